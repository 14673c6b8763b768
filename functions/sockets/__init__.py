"""The function that handles WebSocket connections: API Gateway."""
