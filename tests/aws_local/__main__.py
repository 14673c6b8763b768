"""`make serve-aws`: the server on DynamoDB Local (moto where Java is missing) and moto's S3, all on this machine.

With `--functions` it is not one server, but the whole stack: gateways, functions, queues and the change feed.
"""

import logging
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

import boto3
from moto.server import ThreadedMotoServer

from tests.aws_local.dynamodb_local import NotInstallableError, dynamodb_local
from tests.aws_local.template import create_table, parameter_default
from tests.support.processes import stop_process

#: Longer than the server waits for its running requests.
SERVER_STOP_TIMEOUT_S = 15
#: How late a signal may be noticed.
SIGNAL_PAUSE_S = 0.5

REGION = "eu-central-1"
TABLE = BUCKET = "fluvial"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def moto_server() -> Iterator[str]:
    """Run a moto server for the block, and yield its URL."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def local_aws(dynamodb: str | None = None) -> Iterator[dict[str, str]]:
    """Create the template's table and a bucket, and yield the environment variables that name them."""
    with ExitStack() as stack:
        moto = stack.enter_context(moto_server())
        os.environ.update(CREDENTIALS)
        if dynamodb is None:
            try:
                dynamodb = stack.enter_context(dynamodb_local())
            except NotInstallableError as exc:
                sys.stderr.write(f"{exc}: moto is used instead\n")
                dynamodb = moto
        name = f"{TABLE}-{os.urandom(4).hex()}"
        table_client = boto3.client("dynamodb", endpoint_url=dynamodb)
        create_table(table_client, name)
        region = {"LocationConstraint": REGION}
        boto3.client("s3", endpoint_url=moto).create_bucket(Bucket=name, CreateBucketConfiguration=region)  # type: ignore[arg-type]
        yield {
            **CREDENTIALS,
            "FLUVIAL_STORE": "dynamodb",
            "FLUVIAL_TABLE": name,
            "FLUVIAL_BUCKET": name,
            "FLUVIAL_ENDPOINT_URL": dynamodb,
            "FLUVIAL_S3_ENDPOINT_URL": moto,
        }


def export_lines(environment: Mapping[str, str]) -> str:
    """Shell lines that point other commands at the same table: Fluvial's own, the AWS CLI, any SDK."""
    endpoints = {
        "AWS_ENDPOINT_URL_DYNAMODB": environment["FLUVIAL_ENDPOINT_URL"],
        "AWS_ENDPOINT_URL_S3": environment["FLUVIAL_S3_ENDPOINT_URL"],
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in {**environment, **endpoints}.items()]
    return "\n".join(["# For other commands, in another terminal:", *lines, ""])


def _stop(_number: int, _frame: object) -> None:
    """Raise an exception at SIGTERM, so that context managers stop the processes that the program started."""
    raise SystemExit(0)


def wait_for_end(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process to end, and return its exit status.

    Python runs the handler of a signal in the main thread alone, but the kernel may interrupt another one, such as one
    of moto's. So the main thread looks up now and then: a wait without a time-out would miss the signal.
    """
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(SIGNAL_PAUSE_S)


def main() -> int:
    """Serve until SIGTERM or Ctrl-C; other options than `--functions` are passed on to `fluvial serve`."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    with local_aws() as environment:
        sys.stdout.write(export_lines(environment))
        sys.stdout.flush()
        options, variables = sys.argv[1:], {**os.environ, **environment}
        command = [sys.executable, "-m", "fluvial", "serve", *options]
        if options == ["--functions"]:
            command = [sys.executable, "-m", "tests.aws_local.cloud"]
            variables.setdefault("FLUVIAL_ACCESS", parameter_default("Access"))
        server = subprocess.Popen(command, env=variables, start_new_session=True)
        try:
            return wait_for_end(server)
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):  # a second signal must not interrupt the shutdown
                signal.signal(number, signal.SIG_IGN)
            stop_process(server, SERVER_STOP_TIMEOUT_S)
            with suppress(ProcessLookupError):  # functions' processes, which nothing stops once the server was killed
                os.killpg(server.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
