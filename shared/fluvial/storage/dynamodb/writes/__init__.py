"""What writes to a stream: commits, creation and deletion, spills, and writes in doubt."""
