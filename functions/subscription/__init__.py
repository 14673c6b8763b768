"""Publish: direct invocation, EventBridge, SQS, SNS."""
