"""One account's concurrency as Lambda's API has it, behind a client of boto3 without any network."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders

from tests.support.network import Body
from tests.support.rigs import REGION

#: "The remaining 100 units of concurrency are for functions that aren't using reserved concurrency"; in an account with
#: less, all of it is.
UNRESERVED_MIN = 100

CONCURRENCY = re.compile(r".*/functions/([^/]+)/concurrency")


@dataclass
class LambdaAccount:
    """The account's quota, and what its functions have reserved of it."""

    quota: int
    reserved: dict[str, int] = field(default_factory=dict)
    operations: list[str] = field(default_factory=list)
    is_denied: bool = False

    @property
    def unreserved(self) -> int:
        """What all functions without a reservation share."""
        return self.quota - sum(self.reserved.values())

    def client(self) -> Any:  # noqa: ANN401  boto3 makes its clients' classes at run time
        """A client for this account's Lambda."""
        keys: dict[str, Any] = dict.fromkeys(("aws_access_key_id", "aws_secret_access_key"), "test")
        client = boto3.client("lambda", region_name=REGION, **keys)
        self.attach(client)
        return client

    def attach(self, client: Any) -> None:  # noqa: ANN401  boto3 makes its clients' classes at run time
        """Answer all requests of a client for Lambda."""
        client.meta.events.register("before-send.lambda", self._answer)

    def _answer(self, request: AWSPreparedRequest, **_: object) -> AWSResponse:
        status, body = self._respond(request)
        headers = HTTPHeaders()
        if status >= 400:
            headers["x-amzn-errortype"] = "AccessDeniedException" if status == 403 else "InvalidParameterValueException"
        return AWSResponse(request.url, status, headers, Body(json.dumps(body).encode()))

    def _respond(self, request: AWSPreparedRequest) -> tuple[int, dict[str, Any]]:
        if self.is_denied:
            return 403, {"Message": "not authorized"}
        if request.method == "GET" and request.url.rstrip("/").endswith("/account-settings"):
            self.operations.append("GetAccountSettings")
            limits = {"ConcurrentExecutions": self.quota, "UnreservedConcurrentExecutions": self.unreserved}
            return 200, {"AccountLimit": limits}
        found = CONCURRENCY.fullmatch(request.url)
        assert found, request.url
        function = found[1]
        if request.method == "GET":
            self.operations.append("GetFunctionConcurrency")
            return 200, self._of(function)
        if request.method == "DELETE":
            self.operations.append("DeleteFunctionConcurrency")
            self.reserved.pop(function, None)
            return 204, {}
        self.operations.append("PutFunctionConcurrency")
        assert isinstance(request.body, bytes)
        wanted = json.loads(request.body)["ReservedConcurrentExecutions"]
        if self.unreserved + self.reserved.get(function, 0) - wanted < min(UNRESERVED_MIN, self.quota):
            return 400, {"Message": "decreases account's UnreservedConcurrentExecution below its minimum value"}
        self.reserved[function] = wanted
        return 200, self._of(function)

    def _of(self, function: str) -> dict[str, int]:
        return {"ReservedConcurrentExecutions": self.reserved[function]} if function in self.reserved else {}
