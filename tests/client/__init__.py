"""The client of Durable Streams servers."""
