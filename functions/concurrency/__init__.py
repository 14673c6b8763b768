"""The function that reserves concurrency for the live function: the stack's deployments, and a schedule."""
