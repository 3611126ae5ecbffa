"""Options that every command has, defined once, and the types of option values."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from pitr.cli.output import write_out
from pitr.core.units import parse_duration, parse_size

if TYPE_CHECKING:
    DurationBase = click.ParamType[timedelta]
    SizeBase = click.ParamType[int]
else:  # generic since click 8.3 only
    DurationBase = SizeBase = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])
_STATE = "pitr.global_options"
VALUE_OPTIONS = ("--repo", "--cluster", "--config", "--lock-wait", "--log")
FLAG_OPTIONS = ("--json", "--quiet", "--verbose", "--no-progress")


@dataclass(frozen=True, slots=True)
class GlobalOptions:
    repo: str | None = None
    cluster: str | None = None
    config: str | None = None
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    no_progress: bool = False
    lock_wait: timedelta = timedelta(minutes=5)
    log: Literal["text", "json"] = "text"


class DurationType(DurationBase):
    """``90s``, ``5min``, ``26h``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:  # noqa: ANN401
        if isinstance(value, timedelta):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class SizeType(SizeBase):
    """``64MiB``: bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401
        if isinstance(value, int):
            return value
        try:
            return parse_size(value.removesuffix("/s"))
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = DurationType()
SIZE = SizeType()


def _keep(ctx: click.Context, param: click.Parameter, value: object) -> object:
    """The last one given counts, wherever on the line it stands."""
    given = ctx.get_parameter_source(param.name or "") is click.core.ParameterSource.COMMANDLINE
    if given:
        root = ctx.find_root()
        changed: dict[str, Any] = {param.name or "": value}
        root.meta[_STATE] = replace(given_options(ctx), **changed)
    return value


def given_options(ctx: click.Context) -> GlobalOptions:
    found = ctx.find_root().meta.get(_STATE)
    return found if isinstance(found, GlobalOptions) else GlobalOptions()


def global_parameters(*, hidden: bool) -> list[click.Parameter]:
    """Fresh option objects. ``hidden``: accepted, but left to ``pitr --help``."""

    def option(*declaration: str, **attributes: Any) -> click.Option:  # noqa: ANN401
        return click.Option(declaration, expose_value=False, callback=_keep, hidden=hidden, **attributes)

    return [
        option("--repo", metavar="NAME|URL", help="Repository: a configured one, file:///directory or s3://bucket/x."),
        option("--cluster", metavar="NAME", help="PostgreSQL cluster, when several are configured."),
        option("--config", metavar="PATH", help="Configuration file, or directory like /etc/pitr."),
        option("--json", is_flag=True, help="The result as one JSON document on stdout, on failure too."),
        option("--quiet", is_flag=True, help="Print nothing unless the exit code is not 0."),
        option("--verbose", is_flag=True, help="Say more on stderr."),
        option("--no-progress", is_flag=True, help="No progress bar."),
        option("--lock-wait", type=DURATION, metavar="TIME", help="How long to wait for a lock. Default: 5min."),
        option("--log", type=click.Choice(["text", "json"]), help="Form of messages and progress on stderr."),
    ]


def help_option() -> click.Option:
    """--help by our own writer: click's would end with 1 when the reader went away."""

    def show(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            write_out(ctx.get_help() + "\n")
            ctx.exit(0)

    return click.Option(
        ["-h", "--help"], is_flag=True, is_eager=True, expose_value=False, callback=show, help="Show this text."
    )


def global_options(function: F) -> F:
    """Decorator that accepts the global options on a command."""
    kept: list[click.Parameter] = getattr(function, "__click_params__", [])
    function.__click_params__ = [*reversed(global_parameters(hidden=True)), *kept]  # type: ignore[attr-defined]
    return function


def wants_json(argv: Sequence[str]) -> bool:
    """Whether --json stands on the line, also when the line cannot be parsed."""
    own = argv[: argv.index("--")] if "--" in argv else argv
    return "--json" in own


def wants_json_log(argv: Sequence[str]) -> bool:
    return "--log=json" in argv or ("--log", "json") in itertools.pairwise(argv)
