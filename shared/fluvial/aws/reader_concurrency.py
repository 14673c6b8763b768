"""Reserved concurrency for the live function, so that readers cannot take what writers need.

A live read holds one of the account's concurrent executions for up to a minute, so that enough readers would leave none
for appends. Reserved concurrency is a bound as well: the live function gets half of what the account has, and all other
functions share the rest. CloudFormation cannot say so, because a reservation that would leave fewer than UNRESERVED_MIN
to all others fails the deployment, and a new account has ten altogether. So a function decides: for a custom resource
of the stack at each deployment, and once a day, because quotas are raised.
https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html
"""

import json
import logging
import urllib.request
from enum import StrEnum
from typing import Any, Final, Protocol

import msgspec

log = logging.getLogger(__name__)

#: "You can reserve up to the Unreserved account concurrency value minus 100."
UNRESERVED_MIN: Final = 100

#: An alarm tells when this share of the account's concurrency is taken.
ALARM_SHARE: Final = 0.8

#: Stands for the account's concurrency while that is not known; it is what most accounts have.
USUAL_CONCURRENCY: Final = 1_000

_ANSWER_TIMEOUT_S: Final = 10


class Reservation(StrEnum):
    """Who decides about the live function's reserved concurrency."""

    AUTO = "auto"  # this function
    NONE = "none"  # it has none
    TEMPLATE = "template"  # the template, by its parameter LiveConcurrency


class AccountClient(Protocol):
    """The part of boto3's client for Lambda that is used."""

    def get_account_settings(self) -> dict[str, Any]:
        """The account's limits in this region."""
        ...

    def get_function_concurrency(self, *, FunctionName: str) -> dict[str, Any]:  # noqa: N803  boto3's own names
        """A function's reserved concurrency, if it has any."""
        ...

    def put_function_concurrency(self, *, FunctionName: str, ReservedConcurrentExecutions: int) -> Any:  # noqa: ANN401, N803
        """Reserve concurrency for a function."""
        ...

    def delete_function_concurrency(self, *, FunctionName: str) -> Any:  # noqa: ANN401, N803
        """Reserve none any longer."""
        ...


class ReaderConcurrency(msgspec.Struct, frozen=True, rename="pascal"):
    """What was decided. `readers` is 0 if nothing is reserved for the live function."""

    account: int
    alarm_at: int
    readers: int


class _CustomResourceEvent(msgspec.Struct, frozen=True, rename="pascal"):
    """CloudFormation's request. An event of the schedule has none of these fields.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-requests.html
    """

    request_type: str = ""
    response_url: str = msgspec.field(name="ResponseURL", default="")
    stack_id: str = ""
    request_id: str = ""
    logical_resource_id: str = ""


def readers_share(unreserved: int, reserved_now: int) -> int:
    """How much to reserve for readers: half of what no other function has reserved; 0 if that leaves too little.

    `unreserved` is the account's unreserved concurrency, `reserved_now` what the live function has reserved already.
    """
    available = unreserved + reserved_now
    share = available // 2
    return share if available - share >= UNRESERVED_MIN else 0


def reserve(client: AccountClient, live_function: str, reservation: Reservation) -> ReaderConcurrency:
    """Bring the live function's reserved concurrency to what it should be. Raises botocore's errors."""
    limits = client.get_account_settings()["AccountLimit"]
    account = limits["ConcurrentExecutions"]
    reserved_now = client.get_function_concurrency(FunctionName=live_function).get("ReservedConcurrentExecutions", 0)
    readers: int = reserved_now
    if reservation is not Reservation.TEMPLATE:
        readers = 0
        if reservation is Reservation.AUTO:
            readers = readers_share(limits["UnreservedConcurrentExecutions"], reserved_now)
        if readers and readers != reserved_now:
            client.put_function_concurrency(FunctionName=live_function, ReservedConcurrentExecutions=readers)
        elif reserved_now and not readers:
            client.delete_function_concurrency(FunctionName=live_function)
    return ReaderConcurrency(account, int(account * ALARM_SHARE), readers)


def answer_reservation(
    client: AccountClient, live_function: str, reservation: Reservation, event: dict[str, Any]
) -> dict[str, Any]:
    """Handle an event of the schedule or of CloudFormation, which gets its answer at a URL of its own.

    A failure is logged and reserves nothing: the stack works without, so it must not fail the stack's deployment.
    """
    request = msgspec.convert(event, _CustomResourceEvent)
    found = ReaderConcurrency(USUAL_CONCURRENCY, int(USUAL_CONCURRENCY * ALARM_SHARE), 0)
    if request.request_type != "Delete":  # then the live function is about to be deleted, too
        try:
            found = reserve(client, live_function, reservation)
        except Exception as exc:  # noqa: BLE001  a deployment would wait an hour for an answer
            log.error("concurrency_not_reserved", extra={"reason": f"{type(exc).__name__}: {exc}"})  # noqa: TRY400
        else:
            if reservation is Reservation.AUTO and not found.readers:
                log.warning("readers_not_limited", extra={"account_concurrency": found.account})
    report: dict[str, Any] = msgspec.to_builtins(found)
    if request.response_url:
        _answer(request, report)
    return report


def _answer(request: _CustomResourceEvent, report: dict[str, Any]) -> None:
    """Tell CloudFormation that the resource is there. Raises OSError, after which Lambda invokes the function again."""
    body = {
        "Status": "SUCCESS",
        "PhysicalResourceId": request.logical_resource_id,
        "StackId": request.stack_id,
        "RequestId": request.request_id,
        "LogicalResourceId": request.logical_resource_id,
        # "name-value pairs", which CloudFormation reads as text.
        "Data": {name: str(value) for name, value in report.items()},
    }
    answer = urllib.request.Request(  # noqa: S310  the URL is CloudFormation's
        request.response_url, json.dumps(body).encode(), {"Content-Type": ""}, method="PUT"
    )
    with urllib.request.urlopen(answer, timeout=_ANSWER_TIMEOUT_S):  # noqa: S310
        pass


def account_client() -> AccountClient:
    """A client for Lambda with short time-outs, because a deployment waits for it."""
    import boto3  # noqa: PLC0415  callers with a client of their own need none
    from botocore.config import Config  # noqa: PLC0415

    retries: Any = {"mode": "standard", "total_max_attempts": 3}
    create: Any = boto3.client
    client: AccountClient = create("lambda", config=Config(connect_timeout=2, read_timeout=5, retries=retries))
    return client
