"""The function that delivers to pages of followers: SQS."""
