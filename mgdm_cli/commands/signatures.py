"""Commands with flags that stand in no parameter list of theirs: Typer reads the signature that is put together here."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mgdm_cli.commands import options

Command = Callable[..., None]


def signed(
    wrapper: Command,
    command: Command,
    *,
    instead: Mapping[str, Sequence[inspect.Parameter]] | None = None,
    more: Sequence[inspect.Parameter] = (),
) -> Command:
    """`wrapper` with the parameters of `command`, some replaced by those of `instead`, and `more` behind them."""
    taken: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        taken += (instead or {}).get(parameter.name, [parameter])
    named = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*taken, *more)]
    wrapper.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in named}
    return wrapper


def talks(command: Command) -> Command:
    """`command` with --config, --json and --quiet, which act while they are read."""

    def of(config: options.Config = None, as_json: options.Json = False, quiet: options.Quiet = False) -> None: ...

    more = list(inspect.signature(of, eval_str=True).parameters.values())

    @functools.wraps(command)
    def told(**given: Any) -> None:
        command(**{name: value for name, value in given.items() if name not in of.__annotations__})

    return signed(told, command, more=more)
