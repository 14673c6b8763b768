"""HTTP/1.1 on a socket: uvicorn's protocol classes with this server's bounds, refusals and answers."""
