"""The function that answers HTTP requests: API Gateway, with buffered responses."""
