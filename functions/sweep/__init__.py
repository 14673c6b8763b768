"""The function that deletes expired streams and unreachable data: a schedule."""
