"""AWS on one machine: DynamoDB Local (AWS's own engine), moto, and emulations of what the template deploys."""
