"""The protocol's spelling: HTTP requests and responses, event streams, WebSocket messages, CORS. Pure functions."""
