"""A variant of the template whose functions have aliases, for releases that reach clients gradually, and SnapStart."""
