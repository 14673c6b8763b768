"""The parts for AWS: events of its services, clients of them, the change feed, WebSocket connections."""
