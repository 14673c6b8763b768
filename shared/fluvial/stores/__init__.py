"""Where streams are kept: one contract, and the stores that keep it."""
