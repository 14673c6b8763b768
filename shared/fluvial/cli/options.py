"""Settings as options: each has its name, its environment variable and its text from the settings themselves."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, get_type_hints

import click
import msgspec

from fluvial.model.errors import RequestError, SettingsError, StartupError, StoreError
from fluvial.settings import ENVIRONMENT_PREFIX, Settings, is_service_link

#: The settings that say where a table and a bucket are.
OF_AWS: Final = frozenset({"table", "bucket", "region", "endpoint_url", "s3_endpoint_url"})
OF_LOGS: Final = frozenset({"log_level", "log_format"})
OF_STORE: Final = frozenset({"store", "data_dir"}) | OF_AWS


#: Refusals of what is wrong in itself, by their HTTP status; others depend on what is there.
_WRONG: Final = frozenset({400, 414})


class UsageError(click.ClickException):
    """What was asked for is wrong: one clear line, and exit status 2."""

    exit_code = 2


class Failed(click.ClickException):
    """What was asked for could not be done: one clear line, and exit status 1."""

    exit_code = 1


class WholeNumber(click.IntRange):
    """A whole number within bounds; click calls it an integer range, which nobody would write."""

    name = "whole number"


@contextmanager
def told(place: str = "") -> Iterator[None]:
    """What can go wrong becomes one line: exit status 2 for what was asked for, 1 for what could not be done.

    `place` tells where projects are kept, for messages that do not.
    """
    where = f" ({place})" if place else ""
    try:
        yield
    except SettingsError as exc:
        raise UsageError(str(exc)) from exc
    except StartupError as exc:
        raise Failed(str(exc)) from exc
    except RequestError as exc:
        raise (UsageError if exc.status in _WRONG else Failed)(exc.message + where) from exc
    except StoreError as exc:
        raise Failed(f"{exc.public_message}: {exc.__cause__ or exc}{where}") from exc


class _SettingOption(click.Option):
    """A setting: what Kubernetes has put into its variable is none."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """What its variable says."""
        value = super().resolve_envvar_value(ctx)
        return None if is_service_link(value) else value


def setting_options(names: frozenset[str] | None = None) -> list[click.Parameter]:
    """The options of some settings, or of all."""
    fields = msgspec.structs.fields(Settings)
    return [_option(field) for field in fields if names is None or field.name in names]


def with_settings(names: frozenset[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command's settings, behind its own options; it is given their values by name."""

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        params: list[click.Parameter] = command.__dict__.setdefault("__click_params__", [])
        params[:0] = reversed(setting_options(names))
        return command

    return decorated


def _option(field: msgspec.structs.FieldInfo) -> click.Option:
    hints = get_type_hints(Settings, include_extras=True)
    kind = get_type_hints(Settings)[field.name]
    named = [f"--{field.name.replace('_', '-')}", field.name]
    shown: dict[str, Any] = {
        "help": hints[field.name].__metadata__[0].description,
        "envvar": f"{ENVIRONMENT_PREFIX}{field.name.upper()}",
        "show_envvar": True,
    }
    if kind is bool:
        return _SettingOption(named, is_flag=True, default=field.default, **shown)
    choices = [str(member) for member in kind] if issubclass(kind, str) and kind is not str else None
    metavar = f"[{'|'.join(choices)}]" if choices else kind.__name__.upper()
    return _SettingOption(named, default=str(field.default), metavar=metavar, show_default=True, **shown)
