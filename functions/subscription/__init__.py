"""The function that publishes: direct invocation, EventBridge, SQS, SNS."""
