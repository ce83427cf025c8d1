"""Settings from a TOML file: keys are the long names of a command's flags; flags on the command line win.

`mgdm augment --config FILE.toml` reads it; every output folder holds `config.resolved.toml`, which does the same again.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

from mgdm_cli.errors import MissingInput, UsageError

RESOLVED = "config.resolved.toml"  # in an output folder
NOT_SETTINGS = frozenset({"config", "help"})  # flags that a file cannot hold
NOT_RESOLVED = NOT_SETTINGS | {
    "json",
    "as_json",
    "quiet",
    "dry_run",
}  # flags that change how it is told, not what is done


def read(path: Path) -> dict[str, Any]:
    """The keys and values of a TOML file, as written."""
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise MissingInput(f"settings: {path.name}: no such file", "Check the path given to --config") from None
    except (IsADirectoryError, UnicodeDecodeError):
        raise UsageError(f"settings: {path.name}: is not a text file", "Give --config a TOML file") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"settings: {path.name}: is not valid TOML: {error}", "Correct that line") from None


def match(values: Mapping[str, Any], flags: Mapping[str, bool], *, source: str) -> dict[str, Any]:
    """`values` by parameter name. `flags` maps each name to True for an on/off flag; an unknown key is refused."""
    matched: dict[str, Any] = {}
    for key, value in values.items():
        name = key.removeprefix("--").replace("-", "_")
        if name not in flags:
            raise UsageError(f"settings: {source}: unknown key {key!r}", _nearest(name, flags))
        if name in matched:
            raise UsageError(f"settings: {source}: {key!r} stands there twice", "Keep one of them")
        matched[name] = _checked(key, value, is_switch=flags[name], source=source)
    return matched


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0].replace('_', '-')!r}?"
    return "Known keys: " + ", ".join(sorted(entry.replace("_", "-") for entry in known))


def _checked(key: str, value: Any, *, is_switch: bool, source: str) -> Any:
    """A TOML value as the command line would have given it."""
    where = f"settings: {source}: {key}"
    if is_switch != isinstance(value, bool):
        wanted = "true or false" if is_switch else "a value, not true or false"
        raise UsageError(f"{where}: needs {wanted}", "Correct that line")
    if isinstance(value, list) and all(isinstance(entry, (str, int, float)) for entry in value):
        return [_text(entry) for entry in value]
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)):
        return _text(value)
    raise UsageError(f"{where}: tables and dates are not settings", "Write key = value lines only")


def _text(value: str | int | float) -> str:
    return value if isinstance(value, str) else str(value)


def defaults(path: Path, parameters: Iterable[Any]) -> dict[str, Any]:
    """The values of a TOML file by parameter name, for a command with these (typer) parameters."""
    names, switches = _flags(parameters)
    return {names[key]: value for key, value in match(read(path), switches, source=path.name).items()}


def _flags(parameters: Iterable[Any]) -> tuple[dict[str, str], dict[str, bool]]:
    """By long flag (or argument) name: the parameter's name, and whether it is an on/off switch."""
    names: dict[str, str] = {}
    switches: dict[str, bool] = {}
    for parameter in parameters:
        for flag in parameter.opts:
            long = flag.startswith("--") or parameter.param_type_name == "argument"
            key = flag.removeprefix("--").replace("-", "_")
            if long and key not in NOT_SETTINGS:
                names[key] = parameter.name
                switches[key] = bool(getattr(parameter, "is_flag", False))
    return names, switches


def resolved_toml(params: Mapping[str, Any]) -> str:
    """TOML text with the long flag names of `params`, sorted; what is None is left out. Same settings, same bytes."""
    lines = []
    for name in sorted(params):
        if name in NOT_RESOLVED or params[name] is None:
            continue
        lines.append(f"{name.replace('_', '-')} = {_toml(params[name])}\n")
    return "".join(lines)


def _toml(value: Any) -> str:
    """One TOML value."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, PurePath):
        value = str(value)
    if isinstance(value, str):
        return _toml_string(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(entry) for entry in value) + "]"
    raise TypeError(f"{type(value).__name__} has no TOML form")


def _toml_string(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError(
            "settings: a value holds bytes that are not UTF-8 text", "Rename that file or folder"
        ) from None
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
