"""What follows a commit: DynamoDB Streams."""
