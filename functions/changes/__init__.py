"""The function that takes the steps that follow a commit: DynamoDB Streams."""
