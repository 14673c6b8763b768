"""WebSocket connections: API Gateway."""
