"""The doors: HTTP over ASGI."""
