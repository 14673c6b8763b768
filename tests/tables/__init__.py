"""Tables that another release has written, or is writing at the same time."""
