"""The HTTP server: streams, live reads, WebSockets, control routes, and HTTP/1.1 on the socket."""
