"""The store on DynamoDB and S3: a stream's head is one item, and one conditional write on it is an append."""
