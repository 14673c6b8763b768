"""Direct invocation: append one batch."""
