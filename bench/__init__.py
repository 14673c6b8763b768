"""The benchmark against the reference server."""
