"""The OpenAPI document: what the routes' code says, and typed descriptions of all answers. Loaded when it is asked for.

- `answers.py` has the types of the descriptions, and renders them.
- `errors.py` has the statuses of error codes, and the codes that routes share.
- `schemas.py` has the bodies of answers.
- `control_operations.py` and `stream_operations.py` have a description for each route.
- `document.py` puts all of it together.
"""
