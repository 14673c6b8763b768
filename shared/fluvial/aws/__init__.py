"""What only AWS has: events of its services, clients that send to them, WebSocket API connections."""
