"""Weights on disk: safetensors with the settings in the header; nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from mgdm_cli.data.files import write_atomic
from mgdm_cli.errors import BadInput, MissingInput


def save(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> str:
    """Write the file whole or not at all; returns its hex sha256."""
    data = to_bytes(
        {k: v.detach().cpu().contiguous() for k, v in tensors.items()}, {"mgdm": json.dumps(header, sort_keys=True)}
    )
    write_atomic(path, data)
    return hashlib.sha256(data).hexdigest()


def copied(source: Path, target: Path) -> None:
    """Put the same file at `target`, whole or not at all, where there is none."""
    if not target.is_file():
        write_atomic(target, source.read_bytes())


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors on the CPU, header). Raises BadInput for a damaged file or one of another kind."""
    return _open(path, with_tensors=True)


def header_of(path: Path) -> dict[str, Any]:
    """The header alone: no tensor is read. Raises as `load`."""
    return _open(path, with_tensors=False)[1]


def _open(path: Path, *, with_tensors: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if path.suffix in (".pt", ".pth", ".ckpt", ".pkl", ".bin"):
        raise BadInput(
            f"model: {path.name}: mgdm reads safetensors only, never pickled weights", "convert it to safetensors"
        )
    if not path.is_file():
        raise MissingInput(f"model: {path.name}: no such file", "name a folder that `mgdm train` wrote")
    try:
        with safe_open(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {})["mgdm"])
            names = file.keys() if with_tensors else ()
            return {name: file.get_tensor(name) for name in names}, header
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise BadInput(
            f"model: {path.name}: damaged or not written by mgdm", "train again, or restore the file"
        ) from error
