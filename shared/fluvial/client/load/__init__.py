"""Loads for servers of Durable Streams: closed loops of requests and live readers, over raw connections.

They cost as little as they can, because the generator often shares a machine with the server.
"""
