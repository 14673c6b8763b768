"""The client: sends webhooks to public addresses, and to no other (spec 12.8).

1. A name is looked up once for each request, and the connection goes to an address of that answer, after all of them
   were checked. So an answer that changes between check and connection changes nothing.
2. No redirect is followed. A receiver that has moved is told to the server by its new URL: the request has a token and
   streams' names in it, which are for the URL that the subscription has, and for no other.
3. No proxy, no cookie, no content coding, no connection that is kept: a request depends on nothing of another one.
4. A dead receiver holds one connection and no thread until its time-out; each request has those alone.
"""

import asyncio
import ssl
from collections.abc import Mapping
from importlib.util import find_spec

from fluvial.webhooks.addresses import Address, is_public
from fluvial.webhooks.errors import WebhookError, WebhookErrorKind
from fluvial.webhooks.exchange import Exchange, WebhookAnswer
from fluvial.webhooks.limits import WEBHOOK_LIMITS, WebhookLimits
from fluvial.webhooks.resolver import Resolve, Resolver
from fluvial.webhooks.target import Target, TargetRefused, check_url


class WebhookClient:
    """Sends webhooks. All calls come from one event loop."""

    def __init__(
        self,
        *,
        allow_localhost: bool,
        limits: WebhookLimits = WEBHOOK_LIMITS,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`resolve` is that of a Resolver, and `tls` trusts the system's authorities, if they are not given."""
        self._allow_localhost, self._limits = allow_localhost, limits
        self._resolve = resolve or Resolver(limits).resolve
        self._tls = tls or _trust_known_authorities()
        self._request_count = 0

    def parse(self, url: str) -> Target:
        """Check a URL when a subscription is created. Raises TargetRefused."""
        return check_url(url, allow_localhost=self._allow_localhost)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> WebhookAnswer:
        """Send one request, and read its answer, of whatever status. Raises WebhookError."""
        if self._request_count >= self._limits.requests_at_once:
            raise WebhookError(WebhookErrorKind.BUSY, "too many webhooks are under way")
        self._request_count += 1
        try:
            async with asyncio.timeout(self._limits.whole_s):
                return await self._post(url, body, headers)
        except TimeoutError as exc:
            message = f"the request was not over within {self._limits.whole_s:g} seconds"
            raise WebhookError(WebhookErrorKind.TIMEOUT, message) from exc
        finally:
            self._request_count -= 1

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> WebhookAnswer:
        try:
            target = self.parse(url)  # again, because the server's rules may have changed
        except TargetRefused as exc:
            raise WebhookError(WebhookErrorKind.TARGET, str(exc)) from exc
        addresses = target.addresses or await self._look_up(target.host)
        return await Exchange(target, addresses, self._tls, self._limits).run(body, headers)

    async def _look_up(self, name: str) -> tuple[Address, ...]:
        """The addresses of a name, when all of them are public. Raises WebhookError."""
        addresses = await self._resolve(name)
        refused = next((address for address in addresses if not is_public(address)), None)
        if refused is not None:
            raise WebhookError(WebhookErrorKind.TARGET, f"{name} has the address {refused}, which is not a public one")
        return addresses


def _trust_known_authorities() -> ssl.SSLContext:
    """Trust the authorities of the system, or those that httpx brings where the system has none."""
    known = ssl.get_default_verify_paths()
    if (known.cafile or known.capath) or find_spec("certifi") is None:
        return ssl.create_default_context()
    import certifi  # noqa: PLC0415  it is not in the functions' layer

    return ssl.create_default_context(cafile=certifi.where())
