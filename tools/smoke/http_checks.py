"""Checks of requests that are answered at once."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterable
from typing import Final

from tools.smoke.place import JSON, Place, open_client
from tools.smoke.report import CheckFailedError, CheckSkippedError, check_that, expect

#: One byte more than the template's functions take; and one byte more than API Gateway and any server by default do.
#: https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-execution-service-limits-table.html
BODY_BYTES: Final = (4_456_449, 16 * 1_048_576 + 1)
#: A project with one request a second gets so many, one after the other.
LIMITED_REQUEST_COUNT: Final = 12
BURST_AT_ONCE: Final = 500
BINARY: Final = bytes(range(256)) * 40


async def check_health(place: Place) -> str:
    """The server answers at all."""
    answer = expect(await place.http.get(f"{place.url}/health"), 200)
    return answer.text[:60].strip()


async def check_create(place: Place) -> str:
    """A stream is created once; the same PUT again finds it."""
    created = await place.create("orders")
    check_that(created.headers.get("location", "").endswith(f"/{place.prefix}orders"), "its Location is another")
    fields = {**place.headers(), **JSON, "Stream-Expires-At": created.request.headers["stream-expires-at"]}
    expect(await place.http.put(place.stream_url("orders"), headers=fields), 200)
    return ""


async def check_append(place: Place) -> str:
    """An append is acknowledged, and a producer's repetition is not appended again."""
    await place.append_json("orders", {"id": 1})
    stamp = {"Producer-Id": "smoke", "Producer-Epoch": "0", "Producer-Seq": "0"}
    for status in (200, 204):
        fields = {**place.headers(), **JSON, **stamp}
        expect(await place.http.post(place.stream_url("orders"), content=b'{"id":2}', headers=fields), status)
    return ""


async def check_read(place: Place) -> str:
    """A read has each message once, and says that there is no more."""
    answer = await place.read("orders")
    check_that(answer.json() == [{"id": 1}, {"id": 2}], f"the stream has {answer.text[:100]}")
    check_that(answer.headers.get("stream-up-to-date") == "true", "it does not say that it is up to date")
    return f"{len(answer.content)} bytes"


async def check_browsers(place: Place) -> str:
    """A page of another origin may write and read, and sees the protocol's fields."""
    if not place.is_operator:
        raise CheckSkippedError("needs an operator's token: a project's origins are its own matter")
    origin = {"Origin": "https://smoke.example"}
    asked = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    for answer in (
        expect(await place.http.options(place.stream_url("orders"), headers=asked), 200, 204),
        await place.read("orders", headers=origin),
    ):
        allowed = answer.headers.get("access-control-allow-origin")
        check_that(allowed in {"*", *origin.values()}, f"{answer.request.method} allows the origin {allowed}")
    exposed = answer.headers.get("access-control-expose-headers", "")
    check_that("stream-next-offset" in exposed.lower(), f"it exposes {exposed or 'nothing'}")
    return ""


async def check_head(place: Place) -> str:
    """HEAD tells the same tail as a read."""
    answer = expect(await place.http.head(place.stream_url("orders"), headers=place.headers()), 200)
    tail = (await place.read("orders")).headers["stream-next-offset"]
    check_that(answer.headers.get("stream-next-offset") == tail, "HEAD and GET have different tails")
    return tail


async def check_unchanged(place: Place) -> str:
    """A revalidation is a 304. Through a streaming function, the danger is an empty body that never ends."""
    tag = (await place.read("orders")).headers["etag"]
    fields, limit_s = {**place.headers(), "If-None-Match": tag}, place.waits.empty_answer_s
    try:
        async with asyncio.timeout(limit_s):
            answer = await place.http.get(place.stream_url("orders"), params={"offset": "-1"}, headers=fields)
    except TimeoutError as exc:
        raise CheckFailedError(f"no whole answer within {limit_s:g} s, which has no body") from exc
    expect(answer, 304)
    check_that(answer.content == b"", "a 304 has a body")
    await place.read("orders")
    return f"304 for {tag}"


async def check_encoded_name(place: Place) -> str:
    """`a%2Fb` is one segment: another stream than `a/b`."""
    await place.create("encoded/a%2Fb", b'"encoded"')
    await place.append_json("encoded/a%2Fb", "more")
    found = (await place.read("encoded/a%2Fb")).json()
    check_that(found == ["encoded", "more"], f"the stream has {found}")
    other = await place.http.get(place.stream_url("encoded/a/b"), params={"offset": "-1"}, headers=place.headers())
    expect(other, 404)
    return ""


async def check_binary(place: Place) -> str:
    """Bytes of every value come back as they are."""
    kind = "application/octet-stream"
    await place.create("binary", BINARY, kind)
    await place.append("binary", BINARY, kind)
    found = (await place.read("binary")).content
    check_that(found == 2 * BINARY, f"{len(found)} bytes came back that are not the {2 * len(BINARY)} sent")
    return f"{len(found)} bytes"


async def check_too_large(place: Place) -> str:
    """A body over the limit is a 413."""
    kind = "application/octet-stream"
    await place.create("large", content_type=kind)
    fields = {**place.headers(), "Content-Type": kind}
    for size in BODY_BYTES:
        answer = await place.http.post(place.stream_url("large"), content=bytes(size), headers=fields)
        if answer.status_code == 413:  # noqa: PLR2004  the status that the check is about
            return f"{size:,} bytes: {answer.text[:80]}"
        expect(answer, 200, 204)  # a server with a higher limit
    raise CheckSkippedError(f"the server takes {BODY_BYTES[-1]:,} bytes")


async def check_project_rate(place: Place) -> str:
    """A project's own limit of requests is a 429 with Retry-After. It disturbs no other project."""
    if not place.is_operator:
        raise CheckSkippedError("needs an operator's token, and a server that is not open")
    name = f"{place.run}-rate"
    token = await place.make_project(name, {"requestsPerSecond": 1})
    url, fields = f"{place.streams_url}/{name}/nothing", place.headers(token)
    answers = [await place.http.head(url, headers=fields) for _ in range(LIMITED_REQUEST_COUNT)]
    refused = [answer for answer in answers if answer.status_code == 429]  # noqa: PLR2004
    check_that(bool(refused), f"{len(answers)} requests were answered with {_count(a.status_code for a in answers)}")
    check_that("retry-after" in refused[0].headers, "a 429 has no Retry-After")
    return f"{len(refused)} of {len(answers)} requests refused"


async def check_burst(place: Place, request_count: int) -> str:
    """Past the throttle of API Gateway's stage, requests are a 429, and none is a failure. It disturbs all others."""
    if not request_count:
        raise CheckSkippedError("only with --burst N, since it disturbs others")
    async with open_client(connection_count=BURST_AT_ONCE) as http:
        slots = asyncio.Semaphore(BURST_AT_ONCE)

        async def ask() -> int:
            async with slots:
                return (await http.head(place.stream_url("orders"), headers=place.headers())).status_code

        found = Counter(await asyncio.gather(*(ask() for _ in range(request_count))))
    check_that(found[429] > 0, f"no 429 among {_count(found.elements())}: give a larger N, or a lower throttle")
    check_that(not set(found) - {200, 429, 503}, f"answers were {_count(found.elements())}")
    return _count(found.elements())


def _count(statuses: Iterable[int]) -> str:
    return json.dumps(Counter(map(str, statuses)))


async def check_delete(place: Place) -> str:
    """A deleted stream is not there any more."""
    expect(await place.http.delete(place.stream_url("orders"), headers=place.headers()), 204)
    answer = await place.http.get(place.stream_url("orders"), params={"offset": "-1"}, headers=place.headers())
    expect(answer, 404, 410)
    return ""
