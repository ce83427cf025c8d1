"""A scanned folder -> tensors: splits, one size, one intensity map; and the way back from a tensor to a picture to write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mgdm_cli.data.codecs import output_form
from mgdm_cli.data.files import sha256_hex
from mgdm_cli.data.fitness import common_size, require_labels, require_one_form, require_patients
from mgdm_cli.data.folder import Scan, read_pixels
from mgdm_cli.data.geometry import How, fit, pad_to_multiple, shared
from mgdm_cli.data.image import Form, Image, Record
from mgdm_cli.data.intensity import Intensity, fit_intensity
from mgdm_cli.data.splits import Splits, fingerprint, split

from .training import Pictures

MULTIPLE = 8  # heights and widths that the nets take


@dataclass(frozen=True)
class Frame:
    """The way of a picture into the net and back: its size in files, the map of its intensities, how it is stored."""

    size: tuple[int, int]  # (height, width) in files
    fit: How
    intensity: Intensity
    form: Form  # of the images that are written

    @property
    def net_size(self) -> tuple[int, int]:
        """(height, width) that the nets see: `size` rounded up to multiples of 8."""
        return self.size[0] + -self.size[0] % MULTIPLE, self.size[1] + -self.size[1] % MULTIPLE

    def to_tensor(self, image: Image, *, upsample: bool = False) -> torch.Tensor:
        """(C, H, W) float32 in [-1, 1] at `net_size`."""
        unit = self.intensity.to_unit(fit(image.pixels, self.size, self.fit, upsample=upsample))
        return torch.from_numpy(np.ascontiguousarray(pad_to_multiple(unit, MULTIPLE)[0]))

    def cropped(self, x0: torch.Tensor) -> torch.Tensor:
        """x0 (..., H, W) at `net_size` without the border that the nets need: at `size`."""
        top, left = ((net - own) // 2 for net, own in zip(self.net_size, self.size, strict=True))
        return x0[..., top : top + self.size[0], left : left + self.size[1]]

    def to_image(self, x0: torch.Tensor) -> Image:
        """x0 (C, H, W) in [-1, 1] at `net_size` -> an image in physical units at `size`."""
        unit = np.ascontiguousarray(self.cropped(x0.detach()).cpu().float().numpy())
        return Image(self.intensity.to_physical(unit).astype(np.float32), self.form)


@dataclass(frozen=True)
class Prepared:
    """A set ready for training. `train` and `holdout` are labelled records; `classes` fixes the class indices."""

    scan: Scan
    splits: Splits
    classes: tuple[str, ...]
    frame: Frame
    fingerprint: str  # of the training split and the frame

    @property
    def counts(self) -> dict[str, int]:
        """Real training images per class, the holdout included: what a user would train on."""
        found = Counter(record.label for record in (*self.splits.train, *self.splits.holdout))
        return {name: found[name] for name in self.classes}


def prepare(
    scan: Scan,
    *,
    size: tuple[int, int] | None = None,
    fit_how: How = "pad",
    window: tuple[float, float] | None = None,
    holdout: float = 0.10,
    seed: int = 0,
    tell: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Splits and frame of a scan. Raises BadInput for missing labels, mixed forms, or sizes that no --size settles."""
    splits = split(scan.records, holdout=holdout, seed=seed)
    learnt = (*splits.train, *splits.holdout)
    require_labels(learnt)
    require_one_form(learnt)
    size = common_size(learnt, size, fit_how)
    require_patients(splits.train)
    intensity = fit_intensity(_decoded(scan, splits.train, tell), window)
    frame = Frame(size, fit_how, intensity, output_form(shared((record.form for record in learnt), size, fit_how)))
    mark = f"{fingerprint((*splits.train, *splits.holdout))}|{size}|{fit_how}|{intensity.to_json()}|{seed}"
    if scan.ask.nan is not None or scan.ask.voi:
        mark += f"|{scan.ask.nan}|{scan.ask.voi}"
    return Prepared(scan, splits, scan.classes, frame, sha256_hex(mark.encode()))


def pictures(prepared: Prepared, records: Sequence[Record], device: torch.device) -> Pictures:
    """The tensors of `records`, in their order."""
    index = {name: i for i, name in enumerate(prepared.classes)}
    x0 = [prepared.frame.to_tensor(image) for image in _decoded(prepared.scan, records, None)]
    label = torch.tensor([index[str(record.label)] for record in records], dtype=torch.int64)
    channels, (height, width) = prepared.frame.form.channels, prepared.frame.net_size
    stacked = torch.stack(x0) if x0 else torch.zeros((0, channels, height, width))
    return Pictures(stacked.to(device), label.to(device))


def _decoded(scan: Scan, records: Sequence[Record], tell: Callable[[int, int], None] | None) -> Iterable[Image]:
    for done, record in enumerate(records):
        yield read_pixels(scan, record)
        if tell is not None:
            tell(done + 1, len(records))
