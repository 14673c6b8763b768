"""Fluvial: a Durable Streams server, embedded on one machine or at home on AWS."""

__version__ = "0.1.0"
