"""Pictures -> features by an encoder that the user brings: a TorchScript file, or a classifier that mgdm wrote.

A TorchScript file is a net with its program, so that it needs no code here; the program runs in TorchScript's own interpreter,
not in Python. Weights alone (safetensors) do not say which net they belong to, except those of mgdm's classifiers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mgdm_cli.data.files import sha256_file
from mgdm_cli.errors import BadInput, MissingInput

from .classifying import CLEAN, load_classifier
from .preparing import Frame

Array = NDArray[np.float64]
EXPORT = "Export it with torch.jit.script or torch.jit.trace: pictures (B, C, H, W) in [-1, 1] -> features (B, F)."
BATCH = 64


@dataclass(frozen=True)
class Encoder:
    """`features`: x0 (N, C, H, W) in [-1, 1], as the nets see it -> (N, F). `name` is the file's, `what` its kind."""

    name: str
    what: str
    sha256: str
    features: Callable[[Tensor], Array]


def open_encoder(path: Path, frame: Frame, device: torch.device) -> Encoder:
    """The encoder in a file, tried on one grey picture of the frame. Raises MissingInput, BadInput."""
    if not path.is_file():
        raise MissingInput(f"--encoder: {path.name}: is not there", "Name a TorchScript or safetensors file.")
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    net, what = (_script(path, device), "TorchScript") if zipped else (_classifier(path, frame, device), "classifier")
    padded = what == "classifier"
    blank = torch.zeros((2, frame.form.channels, *frame.net_size), device=device)
    picture = blank if padded else frame.cropped(blank)
    repeat = 1
    try:
        out = _called(net, picture)
    except RuntimeError as error:  # what a TorchScript net raises for a shape that it does not take
        if frame.form.channels != 1:
            raise _refused(path, picture, error) from None
        try:
            out, repeat = _called(net, picture.repeat(1, 3, 1, 1)), 3
        except RuntimeError:
            raise _refused(path, picture, error) from None
    if not isinstance(out, Tensor) or out.ndim < 2 or len(out) != 2 or not out.is_floating_point():
        raise BadInput(f"--encoder: {path.name}: does not give one row of features a picture", EXPORT)

    def features(x0: Tensor) -> Array:
        parts = []
        for part in torch.split(x0, BATCH):
            found = _called(net, (part if padded else frame.cropped(part)).repeat(1, repeat, 1, 1))
            parts.append(_pooled(found.cpu().double()))  # there is no float64 on MPS
        return np.asarray(torch.cat(parts).numpy())

    return Encoder(path.name, what, sha256_file(path), features)


def _pooled(found: Tensor) -> Tensor:
    """(B, F) the mean over what is no feature: over the places of maps (B, F, H, W), over the tokens of (B, T, F)."""
    if found.ndim == 2:
        return found
    return found.mean(1) if found.ndim == 3 else found.flatten(2).mean(2)


def _called(net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x)


def _script(path: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it goes some day; the files are there today
            net = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise BadInput(
            f"--encoder: {path.name}: is no TorchScript file (weights alone do not say which net they belong to)",
            EXPORT,
        ) from error
    net.eval()
    return lambda x: net(x)


def _classifier(path: Path, frame: Frame, device: torch.device) -> Callable[[Tensor], Tensor]:
    try:
        net, _ = load_classifier(path, device)
    except (BadInput, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BadInput(
            f"--encoder: {path.name}: is neither TorchScript nor a classifier that mgdm wrote (judge-1.safetensors)",
            EXPORT,
        ) from error
    if net.settings.channels != frame.form.channels:
        raise BadInput(
            f"--encoder: {path.name}: takes {net.settings.channels} channels, the images have {frame.form.channels}",
            "Name one of images of the same kind.",
        )
    return lambda x: net.features(x, x.new_full((len(x),), CLEAN))


def _refused(path: Path, picture: Tensor, error: RuntimeError) -> BadInput:
    why = str(error).strip().splitlines()[-1].removeprefix("RuntimeError: ")
    shape = " x ".join(str(side) for side in picture.shape[1:])
    return BadInput(f"--encoder: {path.name}: does not take pictures of {shape}: {why}", EXPORT)
