"""The function that appends one batch: direct invocation."""
