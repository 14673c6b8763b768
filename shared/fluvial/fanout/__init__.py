"""Fan-out: what is appended to a stream flows into the estuaries that follow it, always after the commit."""
