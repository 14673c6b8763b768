"""Deliver a page of followers: SQS."""
