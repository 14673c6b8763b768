"""Fan-out: appends to a stream are delivered to the estuaries (fan-in streams) that follow it, after the commit."""
