#!/bin/sh
# The live function: the local server, for reads alone. The Lambda Web Adapter starts it and forwards requests to it.
# Lambda adds the layer's packages to the path only when it starts Python itself.
export PYTHONPATH="/opt/python${PYTHONPATH:+:$PYTHONPATH}"
exec python3 -m fluvial serve --host 127.0.0.1 --port "${AWS_LWA_PORT:-8080}" --store dynamodb --read-only --log-format lambda
