"""The command line: mounts `commands/*` without importing them; what goes wrong becomes one line and an exit code."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from mgdm_cli import __version__, console, errors
from mgdm_cli.errors import Interrupted, IoFailed, MgdmError, NeedsTraining, UsageError

# What a person can type; the module of the same name in commands/ holds `command`.
VERBS = {
    "inspect": "What a folder of images holds: formats, classes, patients.",
    "train": "Train denoiser and classifier on a folder of images.",
    "distill": "A student of a run: an image in one or a few steps.",
    "sample": "Plain class-conditional images from a trained run.",
    "augment": "The main job: plan, generate, disturb, filter, write, report.",
    "models": "The base models that training starts from.",
    "evaluate": "Real against synthetic: fidelity, labels, near copies.",
    "verify": "Check the files of an output folder, their marks and manifest.",
    "merge": "Join the shards of one plan into one folder.",
    "demo": "The whole pipeline on an embedded phantom set.",
}

# Errors of the machine, not of the program.
IO_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.EACCES, errno.EPERM})

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
CONTINUES = "The same command continues where it stopped"


class Verb(TyperCommand):
    """A command whose help lists the options by panel, in plain text: loading rich takes longer than all the rest."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """One section for each panel, in the order in which the panels first appear."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx)
            if row is not None:
                other = f"{parameter.param_type_name}s".capitalize()  # "Arguments", "Options"
                panels.setdefault(getattr(parameter, "rich_help_panel", None) or other, []).append(row)
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)


class Verbs(TyperGroup):
    """The group of `VERBS`: a command's module is imported when that command is called, not before."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, summary in VERBS.items():
            self.add_command(Verb(name, help=summary))

    def get_params(self, ctx: Any) -> list[Any]:
        """The options; typer loads pydantic (0.1 s) for a switch without a default, so --help and its like get one."""
        parameters = super().get_params(ctx)
        for parameter in parameters:
            if parameter.default is None and getattr(parameter, "is_bool_flag", False):
                parameter.default = False
        return parameters

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The real command in place of its one-line stub."""
        name, stub, rest = super().resolve_command(ctx, args)
        return name, stub if name is None else load(name), rest

    def make_context(self, *arguments: Any, **attributes: Any) -> Any:
        """Read the command line; --help and --version print here, perhaps for a reader that has gone."""
        try:
            return super().make_context(*arguments, **attributes)
        except BrokenPipeError as error:
            raise typer.Exit(report(error)) from error

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error ends here, before typer could take it for one of its own."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.TyperException):
            raise
        except (Exception, KeyboardInterrupt) as error:
            raise typer.Exit(report(error)) from error


def load(verb: str) -> TyperCommand:
    """The command object of `verb`, from its module."""
    from mgdm_cli.commands.signatures import talks

    module = import_module(f"mgdm_cli.commands.{verb}")
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(verb, cls=Verb, context_settings=CONTEXT)(talks(module.command))
    command = typer.main.get_command(single)
    assert isinstance(command, TyperCommand)
    return command


app = typer.Typer(cls=Verbs, context_settings=CONTEXT, rich_markup_mode=None, pretty_exceptions_enable=False)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"mgdm {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, expose_value=False, callback=_show_version, help="Show the version."),
    ] = False,
) -> None:
    """Synthetic medical images: class-balanced, hard, correctly labelled, marked.

    Look at your data, then make images:

    \b
    mgdm inspect --data ./fundus
    mgdm augment --data ./fundus --guidance uncertainty --n 5000 -o ./fundus-synthetic
    mgdm demo
    """
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit(errors.USAGE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for name in ("stdout", "stderr"):  # a scheduler may start us with either closed
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    console.reset()
    console.configure(as_json="--json" in words)  # a usage error comes before the option is read
    try:
        with _interruptible(), _discreet():
            code = typer.main.get_command(app).main(args=words, prog_name="mgdm", standalone_mode=False)
            sys.stdout.flush()
        return code if isinstance(code, int) else errors.OK
    except (MgdmError, typer.TyperException, OSError, KeyboardInterrupt) as error:  # the rest ends in `Verbs.invoke`
        return report(error)


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM raises `Interrupted` in the main thread; a second one kills."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Interrupted("stopped by SIGTERM", CONTINUES)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _discreet() -> Iterator[None]:
    """Warnings and log lines of libraries are not shown: they may quote a patient's header value."""
    silence = logging.NullHandler()
    logging.getLogger().addHandler(silence)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger().removeHandler(silence)


def report(error: BaseException) -> int:
    """Say what went wrong: one line on stderr, and one JSON document on stdout with --json; the exit code."""
    if isinstance(error, BrokenPipeError):
        _hang_up()
        return errors.IO_FAILED
    told = explain(error)
    message, hint = told.message.rstrip("."), told.hint.rstrip(".")
    sentence = f"{message}. {hint}{'' if hint[-1:] in '?!' else '.'}" if hint else f"{message}."
    try:
        console.fail(sentence)
        if console.as_json():
            console.emit({"error": message, "hint": hint, "exit_code": told.exit_code})
    except OSError:
        _hang_up()
    return told.exit_code


def _hang_up() -> None:
    """Whoever read us has gone and nobody is left to tell: what stdout still holds must not fail again at exit."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def explain(error: BaseException) -> MgdmError:
    """Any exception as an error for people; a bug leaves its traceback in the log."""
    if isinstance(error, MgdmError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("interrupted", CONTINUES, exit_code=errors.SIGINT)
    if isinstance(error, typer.TyperException):
        return UsageError(*_usage(error))
    if isinstance(error, OSError) and error.errno in IO_ERRORS:
        name = f": {Path(os.fsdecode(error.filename)).name}" if isinstance(error.filename, (str, bytes)) else ""
        return IoFailed(
            f"input or output failed{name}: {error.strerror}", "Make room or grant access; the same command continues"
        )
    # Torch's own errors are told by name and words, for torch may not be loaded here.
    named = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator: can't allocate memory" in str(error)
    if isinstance(error, MemoryError) or named:
        return IoFailed(
            "out of memory",
            "The same command continues where there is more of it; else give a smaller --size, --batch-size or --jobs, and another folder",
        )
    if isinstance(error, FloatingPointError):
        return NeedsTraining(
            str(error),
            "The same command continues from the last checkpoint; if it ends so again, train another run with another --seed",
        )
    log = _log(error)
    return MgdmError(f"a bug: {type(error).__name__}", f"The traceback is in {log}", exit_code=errors.BUG)


def _usage(error: typer.TyperException) -> tuple[str, str]:
    """Message and hint of an error in the command line."""
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx is not None else "mgdm"
    message = " ".join(error.format_message().split())
    return message, f"See {path} --help"


def _log(error: BaseException) -> str:
    """The name of the file that now holds the traceback: the log of the output folder, or a temporary file."""
    text = "".join(traceback.format_exception(error))
    target = console.log_path()
    if target is not None:
        with suppress(OSError):
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("a", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(text)
            return str(target)
    with suppress(OSError):
        handle, name = tempfile.mkstemp(prefix="mgdm-", suffix=".log")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
        return name
    sys.stderr.write(text)
    return "the lines above"
