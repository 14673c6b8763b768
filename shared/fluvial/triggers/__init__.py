"""Triggers: what wakes a function besides HTTP, parsed, and the job that follows."""
