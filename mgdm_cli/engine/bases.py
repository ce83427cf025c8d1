"""Base models: weights that ship with the package, from which a run on a small set starts instead of from noise."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mgdm_cli
from mgdm_cli.data.files import sha256_file
from mgdm_cli.errors import BadInput, UsageError
from mgdm_cli.nets.layers import NoiseEmbedding, unit
from mgdm_cli.nets.unet import UNetSettings

from . import weights

KIND = "base"
CLASS_ROWS = "label.weight"  # the one tensor whose shape hangs on the classes; its last row is "no class"
APART = 1.0  # how far apart classes begin, as a share of the base's own: nearer, and after a short training they are still much alike
LARGEST = 2.0  # how many times larger than the base's a set's pictures may be


@dataclass(frozen=True)
class Base:
    """One base model. `seen`: images its training consumed; `size`: side of its training images; `sources`: what they were."""

    name: str
    path: Path
    unet: UNetSettings
    size: int
    seen: int
    licence: str
    sources: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def sha256(self) -> str:
        return sha256_file(self.path)


def root() -> Path:
    """The folder of base models: inside the package where it was installed, beside it in a checkout."""
    package = Path(mgdm_cli.__file__).parent
    inside = package / "models"
    return inside if inside.is_dir() else package.parent / "models"


@cache
def listing() -> tuple[Base, ...]:
    """All base models, by name. Raises BadInput for a damaged file."""
    return tuple(_read(path) for path in sorted(root().glob("*.safetensors")))


def named(name: str) -> Base:
    """Raises UsageError for a name that is not there."""
    for base in listing():
        if base.name == name:
            return base
    known = ", ".join(base.name for base in listing()) or "there are none"
    raise UsageError(f"--base: {name!r} is not known", f"Choose auto, none, or one of: {known}.")


def fitting(unet: UNetSettings, size: tuple[int, int]) -> Base | None:
    """The base that a net of these settings on images of this size (height, width) can start from, if there is one.

    One that looks at images as this net does comes before one that has to be folded (`start_from`).
    """
    for base in sorted(listing(), key=lambda base: base.unet.patch != unet.patch):
        own = (
            base.size * unet.patch // base.unet.patch
        )  # the maps inside the net are then as large as those it learnt from
        if max(size) <= LARGEST * own and min(size) * LARGEST >= own and _alike(base.unet, unet):
            return base
    return None


def why_none(unet: UNetSettings, size: tuple[int, int]) -> str:
    """Why `fitting` finds nothing, in a few words: "size 32"."""
    alike = [base for base in listing() if base.unet.channels == unet.channels]
    if not alike:
        return f"{unet.channels} channel{'s' * (unet.channels > 1)}" if listing() else "there is none"
    # patch follows from the size, which is what a person knows
    if any(_alike(replace(base.unet, patch=unet.patch), unet) for base in alike):
        return f"size {size[0]}" if size[0] == size[1] else f"size {size[0]}x{size[1]}"
    name, _, ours = _first_other(alike[0], unet)
    return f"{name} {ours}"


def _first_other(base: Base, unet: UNetSettings) -> tuple[str, Any, Any]:
    """(name, the base's, this net's) of the first setting in which two nets are not alike."""
    theirs, ours = (asdict(replace(net, classes=0, dropout=0.0)) for net in (base.unet, unet))
    name = next(key for key in theirs if theirs[key] != ours[key])
    return name, theirs[name], ours[name]


def require_fit(base: Base, unet: UNetSettings) -> None:
    """Raises UsageError where the base's net is another one."""
    if not _alike(base.unet, unet):
        name, theirs, ours = _first_other(base, unet)
        said = f"its {name} is {theirs}, this set's net needs {ours}"
        if name == "channels":
            kinds = {1: "grey images", 3: "colour images"}
            said = f"learnt from {kinds.get(theirs, theirs)}, these are {kinds.get(ours, ours)}"
        elif name == "patch":
            said = f"learnt from images of {base.size} pixels, these are larger"
        raise UsageError(f"--base {base.name}: {said}", "Choose another base, or --base none.")


def start_from(net: nn.Module, base: Base, sha256: str) -> None:
    """Put the base's weights into `net`, folded where it sees single pixels. Raises BadInput where the file has changed.

    A class begins as "no class" and a step of its own along the ways in which the base's classes differ. Rows are taken at the unit size at
    which they count, however long the training left them.
    """
    if base.sha256 != sha256:
        raise BadInput(
            f"model: the base {base.name} is not the one this run began with",
            "Restore it, or train into another folder.",
        )
    tensors = {name: tensor.float() for name, tensor in weights.load(base.path)[0].items()}
    fresh = net.state_dict()
    if fresh["stem.weight"].shape != tensors["stem.weight"].shape:
        _fold(tensors, base.unet)
    rows = fresh[CLASS_ROWS]
    told = unit(tensors[CLASS_ROWS])
    known, none = told[:-1], told[-1:]
    ways = known - known.mean(0)
    own = torch.empty(len(rows) - 1, len(known))
    nn.init.orthogonal_(own, generator=torch.Generator().manual_seed(0))
    tensors[CLASS_ROWS] = torch.cat([none + APART * F.normalize(own, dim=1) @ ways, none])
    net.load_state_dict(tensors)


def _fold(tensors: dict[str, Tensor], unet: UNetSettings) -> None:
    """Weights of a net that sees patches, made those of one that sees single pixels: each is taken for a patch of one value.

    The first layer's weights for the pixels of a patch are summed, the last one's averaged. To the maps inside, a noise of sigma in such a
    patch is one of sigma times the patch's side in independent pixels; but not all of what they see are means of patches, so the noise
    level is told, and the size of what is seen is taken, half way between: sigma times the root of the side. c_noise = ln(sigma) / 4
    (Karras et al. 2022, table 1) grows by a constant then, which turns each pair of sine and cosine.
    """
    pixels, channels, between = unet.patch**2, unet.channels, unet.patch**0.5
    stem, out = tensors["stem.weight"], tensors["out.weight"]
    colours = stem[:, : channels * pixels].reshape(len(stem), channels, pixels, *stem.shape[2:]).sum(2) / between
    tensors["stem.weight"] = torch.cat([colours, stem[:, channels * pixels :]], 1)
    tensors["out.weight"] = out.reshape(channels, pixels, *out.shape[1:]).mean(1)
    tensors["out.bias"] = tensors["out.bias"].reshape(channels, pixels).mean(1)
    sine, cosine = tensors["noise.inner.weight"].chunk(2, 1)
    turn = NoiseEmbedding.rates_of(sine.shape[1]) * (math.log(between) / 4)
    tensors["noise.inner.weight"] = torch.cat(
        [sine * turn.cos() - cosine * turn.sin(), sine * turn.sin() + cosine * turn.cos()], 1
    )


def save(
    path: Path, tensors: dict[str, Tensor], unet: UNetSettings, *, size: int, seen: int, licence: str,
    sources: tuple[str, ...], classes: tuple[str, ...], **more: Any,
) -> str:  # fmt: skip
    """Write a base model in half precision; returns its hex sha256."""
    half = {name: tensor.to(torch.float16) for name, tensor in tensors.items()}
    header = {"kind": KIND, "unet": asdict(unet), "size": size, "seen": seen, "licence": licence}
    return weights.save(path, half, {**header, "sources": sources, "classes": classes, **more})


def _alike(base: UNetSettings, ours: UNetSettings) -> bool:
    """Whether all weights but the classes' have the same shapes and meaning, or can be folded to; dropout is no weight."""
    patch = base.patch if ours.patch == 1 else ours.patch
    return replace(base, classes=0, dropout=0.0) == replace(ours, classes=0, dropout=0.0, patch=patch)


def _read(path: Path) -> Base:
    header = weights.header_of(path)
    if header.get("kind") != KIND:
        raise BadInput(f"model: {path.name}: is no base model", "Remove it from the folder of base models.")
    unet: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in header["unet"].items()}
    return Base(
        path.stem, path, UNetSettings(**unet), int(header["size"]), int(header["seen"]), str(header["licence"]),
        tuple(header["sources"]), tuple(header["classes"]),
    )  # fmt: skip
