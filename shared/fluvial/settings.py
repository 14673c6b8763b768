"""Settings: one frozen value, read from a mapping such as the environment; each field is also an option of the CLI."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, get_type_hints

import msgspec
from msgspec import Meta

from fluvial.model.errors import SettingsError
from fluvial.model.limits import BODY_BYTES_MAX, BODY_BYTES_MAX_DEFAULT, LIVE_READS_MAX, LIVE_READS_MAX_DEFAULT

ENVIRONMENT_PREFIX: Final = "FLUVIAL_"

#: What Kubernetes sets in every pod for a Service that is named fluvial.
_SERVICE_VARIABLE: Final = re.compile(rf"{ENVIRONMENT_PREFIX}(PORT|SERVICE_HOST|SERVICE_PORT\w*|PORT_\d+_[A-Z]+\w*)")
_SERVICE_LINK: Final = re.compile(r"(tcp|udp|sctp)://")


class StoreKind(StrEnum):
    """Where streams are kept."""

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
    """How log lines look: for people, or one JSON object each."""

    TEXT = "text"
    JSON = "json"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that an operator can choose. The texts are the CLI's help."""

    host: Annotated[str, Meta(min_length=1, description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")] = 4437
    store: Annotated[
        StoreKind,
        Meta(description="sqlite keeps streams in the data folder, dynamodb in a table and a bucket; memory forgets."),
    ] = StoreKind.SQLITE
    data_dir: Annotated[str, Meta(min_length=1, description="Folder for all data; made by serve.")] = "fluvial-data"
    table: Annotated[str, Meta(min_length=3, description="DynamoDB table of --store dynamodb.")] = "fluvial"
    bucket: Annotated[str, Meta(min_length=3, description="S3 bucket of --store dynamodb.")] = "fluvial"
    region: Annotated[str, Meta(description="AWS region; empty takes AWS_DEFAULT_REGION or the profile's.")] = ""
    endpoint_url: Annotated[str, Meta(description="URL of DynamoDB; empty is AWS's own.")] = ""
    s3_endpoint_url: Annotated[str, Meta(description="URL of S3; empty is AWS's own.")] = ""
    long_poll_timeout: Annotated[float, Meta(gt=0, le=300, description="Seconds that a long-poll waits for news.")] = (
        25.0
    )
    sse_max_age: Annotated[
        float,
        Meta(
            gt=0,
            le=3_600,
            description="Seconds after which an SSE connection ends and its reader comes back.",
        ),
    ] = 60.0
    max_body: Annotated[
        int,
        Meta(ge=1, le=BODY_BYTES_MAX, description="Bytes that the body of one request may have."),
    ] = BODY_BYTES_MAX_DEFAULT
    max_live_reads: Annotated[
        int,
        Meta(
            ge=0,
            le=LIVE_READS_MAX,
            description="Long-polls and SSE connections that may be open at once.",
        ),
    ] = LIVE_READS_MAX_DEFAULT
    read_only: Annotated[
        bool,
        Meta(description="Only read, of --store dynamodb: refuse what would change a stream; others do the upkeep."),
    ] = False
    access: Annotated[
        AccessMode,
        Meta(description="auto is open to everybody until there is a project; projects never is."),
    ] = AccessMode.AUTO
    cors_origins: Annotated[
        str,
        Meta(description="Origins, with commas, whose pages may use an open server; localhost is any port, * is all."),
    ] = "localhost"
    operator_secret_file: Annotated[
        str,
        Meta(description="File with the secret that signs operators' tokens, which make projects over HTTP."),
    ] = ""
    operator_secret_arn: Annotated[
        str, Meta(description="The same as a secret of AWS Secrets Manager; for the edge function.")
    ] = ""
    cdn_secret: Annotated[
        str,
        Meta(description="What a CDN sends as X-Fluvial-Origin, several with commas; without it requests are refused."),
    ] = ""
    shutdown_timeout: Annotated[
        float,
        Meta(gt=0, le=300, description="Seconds that requests under way get to finish on SIGTERM."),
    ] = 10.0
    log_level: Annotated[LogLevel, Meta(description="Least severe log line to print.")] = LogLevel.INFO
    log_format: Annotated[LogFormat, Meta(description="Log lines for people, or JSON.")] = LogFormat.TEXT


def settings_from(values: Mapping[str, Any]) -> Settings:
    """Settings from text values by field name. Raises SettingsError, naming the field, for one that cannot be."""
    try:
        settings = msgspec.convert(dict(values), Settings, strict=False)
    except msgspec.ValidationError as exc:
        reason, _, place = str(exc).partition(" - at `$.")
        field = place.rstrip("`")
        if field in values:
            reason = _reason(field, values[field])
        option = field.replace("_", "-")
        raise SettingsError(f"--{option} ({ENVIRONMENT_PREFIX}{field.upper()}): {reason}") from exc
    if settings.read_only and settings.store is not StoreKind.DYNAMODB:
        raise SettingsError("--read-only needs --store dynamodb: nobody else can write to any other store")
    return settings


def _reason(field: str, value: object) -> str:
    """What is wrong with a field's value, and what would be right."""
    kind = get_type_hints(Settings)[field]
    if issubclass(kind, StrEnum):
        return f"{value!r} is none of {', '.join(kind)}"
    meta: Meta = get_type_hints(Settings, include_extras=True)[field].__metadata__[0]
    if kind is str:
        return f"{value!r} is too short: it has at least {meta.min_length} characters"
    if kind is bool:
        return f"{value!r} is neither true nor false"
    bounds = f"from {meta.ge:,} to {meta.le:,}" if meta.gt is None else f"over {meta.gt:,} and up to {meta.le:,}"
    return f"{value!r} is no {'whole number' if kind is int else 'number'} {bounds}"


def is_service_link(value: str | None) -> bool:
    """Whether a variable's value is one that Kubernetes sets for a Service, e.g. `tcp://10.0.0.1:4437`."""
    return value is not None and _SERVICE_LINK.match(value) is not None


def service_variables(environment: Mapping[str, str]) -> list[str]:
    """The variables that Kubernetes has set for a Service named fluvial: they are no settings."""
    found = filter(_SERVICE_VARIABLE.fullmatch, environment)
    return sorted(name for name in found if name != f"{ENVIRONMENT_PREFIX}PORT" or is_service_link(environment[name]))


def settings_from_environment(environment: Mapping[str, str]) -> Settings:
    """Settings from variables alone, as a Lambda function has them. Raises SettingsError."""
    names = (field.name for field in msgspec.structs.fields(Settings))
    variables = {name: f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in names}
    ignored = service_variables(environment)
    return settings_from(
        {
            name: environment[variable]
            for name, variable in variables.items()
            if variable in environment and variable not in ignored
        }
    )
