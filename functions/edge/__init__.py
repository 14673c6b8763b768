"""API Gateway: the protocol over HTTP, every answer buffered."""
