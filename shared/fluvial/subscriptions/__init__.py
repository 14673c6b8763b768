"""Subscriptions at work: the routes' operations, and what wakes workers on one machine (spec 6 and 7)."""
