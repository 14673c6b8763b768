"""On a schedule: end what has expired, and delete what nothing leads to."""
