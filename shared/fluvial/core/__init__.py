"""What the protocol means, as data and pure functions: no I/O, no clock, no chance, no await."""
