"""AWS on one machine: DynamoDB Local (AWS's own engine), moto, and the resources of the template."""
