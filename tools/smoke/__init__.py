"""`make smoke`: checks a deployed server from outside, one line for each check (docs/operations/smoke.md)."""
