"""Background work: rotation into S3, garbage collection and the sweep."""
