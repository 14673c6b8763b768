"""What a month on AWS costs: units that are measured, AWS's prices, and a model of the load between them."""
