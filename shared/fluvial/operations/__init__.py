"""The protocol's operations over any store: what is more than parse, plan, apply and render."""
