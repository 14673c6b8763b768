"""`python -m bench.unobserved serve …`: the server with all observation taken out, to measure what that costs.

There is no such setting, because counting costs next to nothing: `bench.observability` measures it.
"""

from starlette.types import Receive, Scope, Send

from fluvial.cli.main import main
from fluvial.metrics.metrics import Metrics
from fluvial.server.application import Application
from fluvial.storage.observer import UNOBSERVED


async def _answer(self: Application, scope: Scope, receive: Receive, send: Send) -> None:
    await self.application_for(scope)(scope, receive, send)


Application.__call__ = _answer  # type: ignore[method-assign]
for name in ("on_group", "on_fsync", "on_checkpoint", "on_rotation", "on_aws_request"):
    setattr(Metrics, name, getattr(type(UNOBSERVED), name))
main(prog_name="fluvial")
