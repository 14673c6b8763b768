"""Access: whose stream it is, who may do what with it, and how much of it."""
