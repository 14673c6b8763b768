"""Stores: the contract, and its implementations in memory, on SQLite and on DynamoDB."""
