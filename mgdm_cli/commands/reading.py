"""How the real images are read: one list of flags, which every command that reads them takes, and the scan that they ask for."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from mgdm_cli import console
from mgdm_cli.commands import options, values
from mgdm_cli.commands.signatures import Command, signed
from mgdm_cli.errors import UsageError

if TYPE_CHECKING:
    from mgdm_cli.data.folder import Scan


@dataclass(frozen=True)
class Source:
    """The folder of real images and how it is read. A field is a flag: its annotation says which."""

    data: options.Data
    labels: options.Labels = None
    label_tag: options.LabelTag = None
    patient_regex: options.PatientRegex = None
    frames: options.Frames = None
    slices: options.Slices = None
    skip_bad: options.SkipBad = False
    max_skip: options.MaxSkip = 0.05
    allow_synthetic_input: options.AllowSynthetic = False
    allow_burned_in: options.AllowBurnedIn = False
    max_file_size: options.MaxFileSize = None
    nan: options.Nan = None
    size: options.Size = None
    fit: options.Fit = "pad"
    window: options.Window = None
    require_patient_id: options.RequirePatientId = False

    def flags(self) -> str:
        """The flags that say this, for a command that a person is told to give."""
        said = ["--data", quote(str(self.data))]
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if value != field.default:
                flag = "--" + field.name.replace("_", "-")
                said += [flag] if value is True else [flag, quote(str(value))]
        return " ".join(said)


LEARNING = ("window", "require_patient_id")  # fields that say how images are learnt, not whether they can be


def scanned(source: Source, **more: Any) -> Scan:
    """What the folder holds, with progress; `more` goes to `folder.scan` and goes before what `source` says."""
    from mgdm_cli.data.folder import scan
    from mgdm_cli.data.workers import Limits

    with console.progress("look at the files", None, "files") as bar:
        said: dict[str, Any] = {
            "labels": source.labels,
            "label_tag": source.label_tag,
            "patient_regex": source.patient_regex,
            "frames": source.frames,
            "slices": source.slices,
            "skip_bad": source.skip_bad,
            "max_skip": source.max_skip,
            "allow_synthetic": source.allow_synthetic_input,
            "allow_burned_in": source.allow_burned_in,
            "max_file_size": values.bytes_of(source.max_file_size),
            "nan": values.nan_of(source.nan),
            "voi": source.window == "voi",
            "decode": True,
        }
        return scan(source.data, limits=Limits(), tell=lambda done, total: bar.advance(), **said | more)


def alike(source: Source) -> Callable[..., Scan]:
    """How another folder of real images is read: by the flags of `source`, but its labels are folders, for a table is of one folder.

    A `--patient-regex` may find nobody there: its patients are then not known.
    """
    other = replace(source, labels=None)
    return lambda root, **more: scanned(replace(other, data=root), require_match=False, **more)


def beside(folder: Path, ending: str) -> Path:
    """The folder next to `folder` that is named like it, with `ending`; of "." and ".." by their true names."""
    whole = folder.resolve()
    return (whole if folder.name in ("", "..") else folder).with_name(whole.name + ending)


def keep_settings(folder: Path, flags: Mapping[str, Any] | None) -> None:
    """config.resolved.toml of a command that wrote `folder`: it takes them again as --config. Raises IoFailed."""
    from mgdm_cli.config import RESOLVED, resolved_toml
    from mgdm_cli.data.files import write_atomic

    if flags is not None:
        write_atomic(folder / RESOLVED, resolved_toml(flags).encode())


def refuse_inside(out: Path, *folders: Path) -> None:
    """Raises UsageError where `out` lies in a folder that is read: the next command would take what it holds for input."""
    for folder in folders:
        if folder.is_dir() and out.resolve().is_relative_to(folder.resolve()):
            raise UsageError(
                f"--out: {out.name}: lies in the input folder {folder.resolve().name}, which it would become a part of",
                "Name a folder beside it.",
            )


def reads_images(*, but: Collection[str] = (), data: Any = options.Data) -> Callable[[Command], Command]:
    """A command that asks for a `Source` takes the flags of its fields instead, without those in `but`.

    `data` is the flag that names the folder, where it is another one.
    """

    def widened(command: Command) -> Command:
        asked = inspect.signature(command, eval_str=True).parameters.values()
        (name,) = (parameter.name for parameter in asked if parameter.annotation is Source)
        fields = [p for p in inspect.signature(Source, eval_str=True).parameters.values() if p.name not in but]
        fields[0] = fields[0].replace(annotation=data)

        @functools.wraps(command)
        def with_source(**given: Any) -> None:
            source = Source(**{field.name: given.pop(field.name) for field in fields})
            command(**{name: source}, **given)

        return signed(with_source, command, instead={name: fields})

    return widened
