"""A client of Durable Streams servers, for the command line: httpx, and nothing of a server."""
