#!/bin/sh
# What the Lambda Web Adapter starts and then forwards requests to: the local server, for reads alone. The layer's
# packages are not on the path here, because Lambda's own start of Python does not come before this script.
export PYTHONPATH="${PYTHONPATH:-/opt/python}"
exec python3 -m fluvial serve --host 127.0.0.1 --port "${AWS_LWA_PORT:-8080}" --store dynamodb --read-only --log-format json
