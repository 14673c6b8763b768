"""How streams are stored: keys, items, expressions, and the client that sends requests."""
