"""HTTP/1.1 on the socket: uvicorn's protocol class with this server's bounds and answers."""
