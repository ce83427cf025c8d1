"""Two classifiers of the real training images that judge a synthetic set: neither guided nor filtered it.

They are cross-fitted: each learns from one half of the patients. So every real image is judged by the one that never
saw its patient, just as neither saw a synthetic image, and the two are compared like with like. The first one's last
features are also the space in which sets are compared: no download, and stored with the result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mgdm_cli.data.folder import Scan, scan
from mgdm_cli.data.geometry import enlarges
from mgdm_cli.data.image import Record
from mgdm_cli.data.labels import folder_of, is_patient
from mgdm_cli.data.splits import folds
from mgdm_cli.errors import BadInput, MissingInput
from mgdm_cli.metrics.labels import softmax
from mgdm_cli.nets.classifier import Classifier, ClassifierSettings
from mgdm_cli.nets.layers import patch_of

from .classifying import (
    CLEAN,
    NEARLY_CLEAN,
    ClassifySettings,
    load_classifier,
    logits_of,
    save_classifier,
    train_classifier,
)
from .preparing import Prepared, pictures
from .training import Pictures
from .warp import WarpSettings

SEEN = 12_000  # training images that each of the two consumes
SALT = 7_919  # keeps the halves and the weights apart from those of `train` with the same seed

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Judges:
    """`nets` (2): the first learnt from the records of `halves[0]`, the second from `halves[1]`."""

    nets: tuple[Classifier, Classifier]
    halves: tuple[tuple[Record, ...], tuple[Record, ...]]
    sha256: tuple[str, str]
    seen: int


@dataclass(frozen=True)
class Progress:
    """Images consumed so far by judge `judge` (0 or 1)."""

    judge: int
    seen: int


def judges(
    folder: Path, prepared: Prepared, device: torch.device, *, seen: int = SEEN, seed: int = 0
) -> Iterator[Progress | Judges]:
    """Trains what `folder` does not hold yet; yields progress and, last, the judges."""
    one, other = folds(prepared.splits.train, 2, seed=seed + SALT)
    nets, hashes = [], []
    for index, half in enumerate((one, other)):
        path = folder / f"judge-{index + 1}.safetensors"
        key = hashlib.sha256(f"{prepared.fingerprint}|{seed}|{seen}|{index}".encode()).hexdigest()
        if not _fits(path, key, device):
            yield from _train(path, key, index, prepared, half, device, seen=seen, seed=seed)
        nets.append(load_classifier(path, device)[0])
        hashes.append(hashlib.sha256(path.read_bytes()).hexdigest())
        yield Progress(index, seen)
    yield Judges((nets[0], nets[1]), (one, other), (hashes[0], hashes[1]), seen)


def features_of(net: Classifier, x0: Tensor, *, batch: int = 64) -> Array:
    """(N, F) what the last layer sees of clean images x0 (N,C,H,W) in [-1,1]."""
    net.eval()
    with torch.no_grad():
        parts = [net.features(part, part.new_full((len(part),), CLEAN)) for part in torch.split(x0, batch)]
    return np.asarray(torch.cat(parts).cpu().double().numpy())


def unseen(found: Judges, prepared: Prepared) -> tuple[Record, ...]:
    """The real images that the first judge, whose features are the feature space, never saw."""
    return (*found.halves[1], *prepared.splits.holdout)


def real_judged(found: Judges, prepared: Prepared, device: torch.device) -> tuple[Array, Labels]:
    """(probabilities (N,K), labels (N,)) of all real training images, each by the judge that never saw its patient."""
    shares, labels = [], []
    for net, unseen in zip(found.nets, reversed(found.halves), strict=True):
        data = pictures(prepared, unseen, device)
        shares.append(softmax(_logits(net, data.x0)))
        labels.append(_labels(data))
    return np.concatenate(shares), np.concatenate(labels)


def judged(found: Judges, x0: Tensor) -> Array:
    """Probabilities (N,K) of images that neither judge saw, the judges taking turns: one judge each, as for real ones."""
    both = [softmax(_logits(net, x0)) for net in found.nets]
    turn = np.arange(len(x0)) % 2
    return np.where(turn[:, None] == 0, both[0], both[1])


def images_of(root: Path) -> Path:
    """Where the images of a set lie: of an output folder of ours below it."""
    inner = root / "images"
    return inner if inner.is_dir() else root


@dataclass(frozen=True)
class RealTest:
    """Real images that nothing was learnt from, and the scan that they are of; what was noticed of them, without a file's name."""

    records: tuple[Record, ...]
    scan: Scan
    notes: tuple[str, ...] = ()


def others(
    root: Path, prepared: Prepared, *, synthetic: bool, read: Callable[..., Scan] = scan
) -> tuple[tuple[Record, ...], Scan]:
    """(records, scan) of another folder with the classes of `prepared`: sub-folders, in the same form of pixels.

    An output folder of `augment` is read through its images. `read(folder, allow_synthetic=...)` scans it. Raises BadInput for classes
    or channels that differ.
    """
    try:
        found = read(images_of(root), allow_synthetic=synthetic)
    except MissingInput as error:
        raise MissingInput(error.message, "Check the path given to --synthetic, --test or --arms.") from error
    names = {folder_of(name): name for name in prepared.classes}  # our own folders are named by the class
    records = tuple(replace(r, label=names.get(str(r.label), r.label)) for r in found.records)
    found = replace(found, records=records)
    unknown = sorted({str(record.label) for record in found.records} - set(prepared.classes))
    if unknown:
        raise BadInput(
            f"{root.name}: class {unknown[0]} is none of the real set ({', '.join(prepared.classes)})",
            "Both folders need a sub-folder for each class, named alike.",
        )
    size, how = prepared.frame.size, prepared.frame.fit
    for record in found.records:
        own = (record.form.height, record.form.width)
        if enlarges(own, size, how):
            raise BadInput(
                f"{root.name}: {record.path}: is {own[0]}x{own[1]}, smaller than the {size[0]}x{size[1]} of the real images",
                f"Give --size {min(own)}, or what the images were made with.",
            )
        if record.form.channels != prepared.frame.form.channels:
            raise BadInput(
                f"{root.name}: {record.path}: has {record.form.channels} channels, the real images "
                f"{prepared.frame.form.channels}",
                "Compare grey with grey and colour with colour.",
            )
    return found.records, found


def real_test(test: Path | None, prepared: Prepared, *, read: Callable[..., Scan]) -> RealTest:
    """The test images: those of the folder `test`, read by `read`, else of the input's own test split; never a training image.

    Of that split only images of the classes that are learnt; a folder that was named is refused for others (BadInput).
    """
    if test is None:
        found, notes = prepared.scan, []
        records = tuple(record for record in prepared.splits.test if record.label in prepared.classes)
        if left := len(prepared.splits.test) - len(records):
            notes.append(f"{left} test images without a label, or of a class without a training image, were left out")
    else:
        records, found = others(test, prepared, synthetic=False, read=read)
        notes = []
    learnt = (*prepared.splits.train, *prepared.splits.holdout)
    known = {(record.sha256, record.part) for record in learnt}
    patients = {record.patient for record in learnt if record.patient is not None}
    new = tuple(r for r in records if (r.sha256, r.part) not in known and r.patient not in patients)
    if len(new) < len(records):
        notes.append(
            f"{len(records) - len(new)} test images are, or show patients of, training images and were left out"
        )
    if strangers := sum(not is_patient(record.patient) for record in new) if patients else 0:
        notes.append(f"the patients of {strangers} test images are not known: training patients may be among them")
    return RealTest(new, found, tuple(notes))


def pictures_of(found: Scan, records: Sequence[Record], prepared: Prepared, device: torch.device) -> Pictures:
    """The tensors of records of another scan, brought into the frame of `prepared`."""
    return pictures(replace(prepared, scan=found), records, device)


def _logits(net: Classifier, x0: Tensor) -> Array:
    return np.asarray(logits_of(net, x0).cpu().double().numpy())


def _labels(data: Pictures) -> Labels:
    return np.asarray(data.label.cpu().numpy(), dtype=np.int64)


def _fits(path: Path, key: str, device: torch.device) -> bool:
    return path.is_file() and load_classifier(path, device)[1].get("key") == key


def _train(
    path: Path,
    key: str,
    index: int,
    prepared: Prepared,
    half: Sequence[Record],
    device: torch.device,
    *,
    seen: int,
    seed: int,
) -> Iterator[Progress]:
    data: Pictures = pictures(prepared, half, device)
    channels = prepared.frame.form.channels
    patch = patch_of(prepared.frame.net_size)
    settings = ClassifierSettings(channels, len(prepared.classes), float(data.x0.std()), patch=patch)
    torch.manual_seed(seed + SALT + index)
    net = Classifier(settings).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    work = ClassifySettings(seen, NEARLY_CLEAN, seed=seed + SALT + index, told=False)
    for tick in train_classifier(net, data, work, warp=WarpSettings(probability=0.5)):
        yield Progress(index, min(tick.seen, seen))
    save_classifier(path, net, {"key": key, "seen": seen})
