"""Fluvial: a Durable Streams server, embedded on one machine or at home on AWS."""
