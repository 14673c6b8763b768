"""What all commands share: settings as command-line options, and errors as one line and an exit status.

An option takes its name, its environment variable and its help text from the field of `Settings`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, get_type_hints

import click
import msgspec

from fluvial.model.duration import format_duration, parse_duration, parse_duration_ms
from fluvial.model.errors import RequestError, SettingsError, StartupError, StoreError
from fluvial.settings import ENVIRONMENT_PREFIX, Settings, is_kubernetes_service_link

#: The settings that locate a table and a bucket.
AWS_SETTINGS: Final = frozenset({"table", "bucket", "region", "endpoint_url", "s3_endpoint_url"})
LOG_SETTINGS: Final = frozenset({"log_level", "log_format"})
STORE_SETTINGS: Final = frozenset({"store", "data_dir"}) | AWS_SETTINGS


#: HTTP statuses of a RequestError that is wrong in itself. Errors with others depend on the store's contents.
_USAGE_ERROR_STATUSES: Final = frozenset({400, 414})


class UsageError(click.ClickException):
    """The command was given wrong input: one line on standard error, and exit status 2."""

    exit_code = 2


class CommandFailed(click.ClickException):
    """The command could not be carried out: one line on standard error, and exit status 1."""

    exit_code = 1


class WholeNumber(click.IntRange):
    """A whole number within bounds, which click would call an "integer range" in help texts and errors."""

    name = "whole number"


class Duration(click.ParamType[int]):
    """A duration such as 24h, in seconds and within bounds."""

    name = "duration"

    def __init__(self, seconds_min: int = 0, seconds_max: int | None = None) -> None:
        """The bounds are allowed themselves."""
        self._min = seconds_min
        self._max = seconds_max

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse it."""
        try:
            seconds = value if isinstance(value, int) else parse_duration(str(value))
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
        if seconds < self._min:
            self.fail(f"'{value}' is less than {format_duration(self._min)}", param, ctx)
        if self._max is not None and seconds > self._max:
            self.fail(f"'{value}' is more than {format_duration(self._max)}", param, ctx)
        return seconds


class DurationMs(click.ParamType[float]):
    """A duration such as 50ms or 1.5s, in milliseconds."""

    name = "duration"

    def __init__(self, ms_min: float = 0) -> None:
        """The bound is allowed itself."""
        self._min = ms_min

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse it."""
        try:
            ms = value if isinstance(value, float) else parse_duration_ms(str(value))
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
        if ms < self._min:
            self.fail(f"'{value}' is less than {self._min:g}ms", param, ctx)
        return ms


@contextmanager
def cli_errors(location: str = "") -> Iterator[None]:
    """Turn the package's errors into UsageError and CommandFailed.

    `location` says where projects are kept, for errors that do not say it.
    """
    suffix = f" ({location})" if location else ""
    try:
        yield
    except SettingsError as exc:
        raise UsageError(str(exc)) from exc
    except StartupError as exc:
        raise CommandFailed(str(exc)) from exc
    except RequestError as exc:
        raise (UsageError if exc.status in _USAGE_ERROR_STATUSES else CommandFailed)(exc.message + suffix) from exc
    except StoreError as exc:
        raise CommandFailed(f"{exc.public_message}: {exc.__cause__ or exc}{suffix}") from exc


class _SettingOption(click.Option):
    """The option of a setting. It ignores a variable that Kubernetes has set for a Service."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """The value of the option's environment variable."""
        value = super().resolve_envvar_value(ctx)
        return None if is_kubernetes_service_link(value) else value


def setting_options(names: frozenset[str] | None = None) -> list[click.Parameter]:
    """The options of the named settings, or of all settings."""
    fields = msgspec.structs.fields(Settings)
    return [_option(field) for field in fields if names is None or field.name in names]


def with_settings(names: frozenset[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command with the options of some settings, listed after its own. It gets their values by name."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        params: list[click.Parameter] = command.__dict__.setdefault("__click_params__", [])
        params[:0] = reversed(setting_options(names))
        return command

    return decorate


def _option(field: msgspec.structs.FieldInfo) -> click.Option:
    hints = get_type_hints(Settings, include_extras=True)
    kind = get_type_hints(Settings)[field.name]
    declarations = [f"--{field.name.replace('_', '-')}", field.name]
    attributes: dict[str, Any] = {
        "help": hints[field.name].__metadata__[0].description,
        "envvar": f"{ENVIRONMENT_PREFIX}{field.name.upper()}",
        "show_envvar": True,
    }
    if kind is bool:
        if field.default:
            declarations[0] += f"/--no-{declarations[0].removeprefix('--')}"
            attributes["show_default"] = True
        return _SettingOption(declarations, is_flag=True, default=field.default, **attributes)
    choices = [str(member) for member in kind] if issubclass(kind, str) and kind is not str else None
    metavar = f"[{'|'.join(choices)}]" if choices else kind.__name__.upper()
    return _SettingOption(declarations, default=str(field.default), metavar=metavar, show_default=True, **attributes)
