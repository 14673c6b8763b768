"""Programs for the repository's own upkeep; none of them is in the package."""
