"""Settings: one frozen value, read from a mapping such as the environment. Each field is also a command-line option."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, get_type_hints

import msgspec
from msgspec import Meta

from fluvial.model.errors import SettingsError
from fluvial.model.limits import (
    BODY_BYTES_MAX,
    BODY_BYTES_MAX_DEFAULT,
    LIVE_READS_MAX,
    LIVE_READS_MAX_DEFAULT,
    PAYLOAD_ITEM_BYTES_DEFAULT,
    PAYLOAD_ITEM_BYTES_MAX,
)

ENVIRONMENT_PREFIX: Final = "FLUVIAL_"

#: Variables that Kubernetes sets in every pod for a Service that is named fluvial.
_KUBERNETES_VARIABLE: Final = re.compile(rf"{ENVIRONMENT_PREFIX}(PORT|SERVICE_HOST|SERVICE_PORT\w*|PORT_\d+_[A-Z]+\w*)")
_KUBERNETES_LINK: Final = re.compile(r"(tcp|udp|sctp)://")

_PUBLIC_URL: Final = re.compile(r"https?://[^/?#\s]+(/[^?#\s]*)?")


class StoreKind(StrEnum):
    """Where to keep streams."""

    SQLITE = "sqlite"
    MEMORY = "memory"
    DYNAMODB = "dynamodb"


class AccessMode(StrEnum):
    """Who may use the streams."""

    AUTO = "auto"
    PROJECTS = "projects"


class LogLevel(StrEnum):
    """The least severe log line that is printed."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """The format of log lines: text for people, or one JSON object a line."""

    TEXT = "text"
    JSON = "json"
    LAMBDA = "lambda"  # JSON with the ids of Lambda's request, and a line of metrics for CloudWatch after each request

    @property
    def is_json(self) -> bool:
        """Whether each line is a JSON object."""
        return self is not LogFormat.TEXT


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that an operator can choose. The descriptions are the help texts of the command line."""

    host: Annotated[str, Meta(min_length=1, description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535, description="Port to listen on; 0 picks a free one.")] = 4437
    store: Annotated[
        StoreKind,
        Meta(description="Where to keep streams: sqlite in the data folder, dynamodb on AWS, memory only until exit."),
    ] = StoreKind.SQLITE
    data_dir: Annotated[str, Meta(min_length=1, description="Folder for all data; serve creates it.")] = "fluvial-data"
    table: Annotated[str, Meta(min_length=3, description="DynamoDB table for --store dynamodb.")] = "fluvial"
    bucket: Annotated[str, Meta(min_length=3, description="S3 bucket for --store dynamodb.")] = "fluvial"
    region: Annotated[str, Meta(description="AWS region; if empty, that of AWS_DEFAULT_REGION or of the profile.")] = ""
    endpoint_url: Annotated[str, Meta(description="URL of DynamoDB; if empty, AWS's own.")] = ""
    s3_endpoint_url: Annotated[str, Meta(description="URL of S3; if empty, AWS's own.")] = ""
    payload_item_max: Annotated[
        int,
        Meta(
            ge=0,
            le=PAYLOAD_ITEM_BYTES_MAX,
            description="Largest batch, in bytes, that --store dynamodb keeps in the table; larger ones go to S3.",
        ),
    ] = PAYLOAD_ITEM_BYTES_DEFAULT
    long_poll_timeout: Annotated[
        float,
        Meta(gt=0, le=300, description="Seconds that a long-poll waits for new data."),
    ] = 25.0
    sse_max_age: Annotated[
        float,
        Meta(
            gt=0,
            le=3_600,
            description="Seconds after which an SSE connection ends, and its reader reconnects.",
        ),
    ] = 60.0
    max_body: Annotated[
        int,
        Meta(ge=1, le=BODY_BYTES_MAX, description="Largest request body, in bytes."),
    ] = BODY_BYTES_MAX_DEFAULT
    max_live_reads: Annotated[
        int,
        Meta(
            ge=0,
            le=LIVE_READS_MAX,
            description="Most long-polls, SSE connections and WebSockets at the same time.",
        ),
    ] = LIVE_READS_MAX_DEFAULT
    read_only: Annotated[
        bool,
        Meta(description="Serve reads only, on --store dynamodb; other processes write and do the upkeep."),
    ] = False
    change_feed: Annotated[
        bool,
        Meta(description="Functions follow up the table's changes, on --store dynamodb; otherwise this server does."),
    ] = False
    access: Annotated[
        AccessMode,
        Meta(description="auto is open to everybody until the first project exists; projects is never open."),
    ] = AccessMode.AUTO
    cors_origins: Annotated[
        str,
        Meta(
            description="Comma-separated origins whose pages may use an open server; localhost is any port, * is all."
        ),
    ] = "localhost"
    console: Annotated[
        bool,
        Meta(description="Serve the console, a page at /; of an open server to browsers of this machine alone."),
    ] = True
    public_url: Annotated[
        str,
        Meta(
            description="URL of this server as others see it, for webhooks; if empty, that of the request that creates "
            "a subscription."
        ),
    ] = ""
    webhooks_to_localhost: Annotated[
        bool,
        Meta(description="Let subscriptions send webhooks to http://localhost, too, for development."),
    ] = False
    operator_secret_file: Annotated[
        str,
        Meta(description="File with the secret that signs operators' tokens, for creating projects over HTTP."),
    ] = ""
    operator_secret_arn: Annotated[
        str,
        Meta(description="ARN of the same secret in AWS Secrets Manager, for the edge function."),
    ] = ""
    cdn_secret: Annotated[
        str,
        Meta(description="Comma-separated values of X-Fluvial-Origin that a CDN may send; refuse all other requests."),
    ] = ""
    shutdown_timeout: Annotated[
        float,
        Meta(gt=0, le=300, description="Seconds that running requests get to finish on SIGTERM."),
    ] = 10.0
    log_level: Annotated[LogLevel, Meta(description="Least severe level to log.")] = LogLevel.INFO
    log_format: Annotated[
        LogFormat, Meta(description="text for people, json for programs, or lambda in a Lambda function.")
    ] = LogFormat.TEXT
    access_log: Annotated[bool, Meta(description="Log a line for each request.")] = False
    tracing: Annotated[
        bool,
        Meta(description="Send traces over OTLP; OTEL_EXPORTER_OTLP_ENDPOINT says where, fluvial[tracing] has it."),
    ] = False


def settings_from(values: Mapping[str, Any]) -> Settings:
    """Parse settings from text values by field name. Raises SettingsError, which names the field that is invalid."""
    if "log_level" in values:  # AWS's tools write levels in capitals
        values = {**values, "log_level": str(values["log_level"]).lower()}
    try:
        settings = msgspec.convert(dict(values), Settings, strict=False)
    except msgspec.ValidationError as exc:
        reason, _, path = str(exc).partition(" - at `$.")
        field = path.rstrip("`")
        if field in values:
            reason = _explain_invalid_value(field, values[field])
        option = field.replace("_", "-")
        raise SettingsError(f"--{option} ({ENVIRONMENT_PREFIX}{field.upper()}): {reason}") from exc
    if settings.read_only and settings.store is not StoreKind.DYNAMODB:
        raise SettingsError("--read-only needs --store dynamodb: no other process can write to any other store")
    if settings.public_url and not _PUBLIC_URL.fullmatch(settings.public_url):
        raise SettingsError("--public-url begins with http:// or https://, and has no query")
    if settings.change_feed and settings.store is not StoreKind.DYNAMODB:
        raise SettingsError("--change-feed needs --store dynamodb: no function can follow up any other store")
    return settings


def _explain_invalid_value(field: str, value: object) -> str:
    """What is wrong with a field's value, and which values are allowed."""
    kind = get_type_hints(Settings)[field]
    if issubclass(kind, StrEnum):
        return f"{value!r} is not one of {', '.join(kind)}"
    meta: Meta = get_type_hints(Settings, include_extras=True)[field].__metadata__[0]
    if kind is str:
        return f"{value!r} is too short: the minimum length is {meta.min_length}"
    if kind is bool:
        return f"{value!r} is neither true nor false"
    bounds = f"from {meta.ge:,} to {meta.le:,}" if meta.gt is None else f"above {meta.gt:,} and up to {meta.le:,}"
    return f"{value!r} is not a {'whole number' if kind is int else 'number'} {bounds}"


def is_kubernetes_service_link(value: str | None) -> bool:
    """Whether a variable's value is one that Kubernetes sets for a Service, e.g. `tcp://10.0.0.1:4437`."""
    return value is not None and _KUBERNETES_LINK.match(value) is not None


def kubernetes_service_variables(environment: Mapping[str, str]) -> list[str]:
    """The names of variables that Kubernetes has set for a Service named fluvial: they are not settings."""
    found = filter(_KUBERNETES_VARIABLE.fullmatch, environment)
    return sorted(
        name for name in found if name != f"{ENVIRONMENT_PREFIX}PORT" or is_kubernetes_service_link(environment[name])
    )


def settings_from_environment(environment: Mapping[str, str]) -> Settings:
    """Parse settings from environment variables, as a Lambda function does. Raises SettingsError."""
    names = (field.name for field in msgspec.structs.fields(Settings))
    variables = {name: f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in names}
    ignored = kubernetes_service_variables(environment)
    return settings_from(
        {
            name: environment[variable]
            for name, variable in variables.items()
            if variable in environment and variable not in ignored
        }
    )
