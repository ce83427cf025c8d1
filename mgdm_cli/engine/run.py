"""A run folder: what `train` writes and `sample` and `augment` read. Its settings are frozen when training begins."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from mgdm_cli.data.files import canonical, sha256_file, write_atomic
from mgdm_cli.data.geometry import How
from mgdm_cli.data.image import Form
from mgdm_cli.data.intensity import Intensity
from mgdm_cli.diffusion.model import Model
from mgdm_cli.diffusion.process import PROCESSES
from mgdm_cli.diffusion.types import Process
from mgdm_cli.errors import BadInput, MissingInput
from mgdm_cli.nets.classifier import Classifier, ClassifierSettings
from mgdm_cli.nets.layers import settle
from mgdm_cli.nets.unet import UNet, UNetSettings

from . import bases, weights
from .classifying import load_classifier
from .decoding import Parts
from .device import computes_in_bf16
from .preparing import Frame
from .student import StudentSettings, student_process
from .training import TrainSettings
from .warp import WarpSettings

SETTINGS, DENOISER, WEAK, GUIDE, JUDGE, LOG = (
    "settings.json",
    "denoiser.safetensors",
    "weak.safetensors",  # an early average of the denoiser's training, for autoguidance; the denoiser's header holds its hash
    "guide.safetensors",
    "judge.safetensors",
    "log.jsonl",
)
SIBLINGS = ("guide-2.safetensors", "guide-3.safetensors")  # the guide's siblings, where a guidance asked for them


class RunSettings(BaseModel):
    """Everything that fixes a training. `classes` is the class index of the model, stored here and never derived again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["mgdm-run-2"] = "mgdm-run-2"
    version: str
    date: str  # YYYYMMDD on which training began: the date in every mark
    classes: tuple[str, ...]
    counts: dict[str, int]
    size: tuple[int, int]
    fit: How
    form: Form
    intensity: Intensity
    sigma_data: float
    process: str
    process_settings: dict[str, float]
    unet: UNetSettings
    classifier: ClassifierSettings
    train: TrainSettings
    base: str = ""  # the base model that the denoiser starts from; "" is from scratch
    base_sha256: str = ""
    warp: WarpSettings
    classifier_seen: int
    holdout: tuple[str, ...]  # "sha256#part" of the images set aside
    patients_known: bool
    inputs: str  # fingerprint of the training split and the frame
    threads: int
    computes_in: str = ""  # "bfloat16" or "float32" of a run that was begun on a processor
    student: StudentSettings | None = None  # of a run that was distilled from another
    label_tag: str | None = None  # the DICOM attribute that labels were read from

    @property
    def frame(self) -> Frame:
        return Frame(self.size, self.fit, self.intensity, self.form)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) that the nets see."""
        return (self.form.channels, *self.frame.net_size)


def new_model(settings: RunSettings, device: torch.device) -> Model:
    """A model with fresh weights, drawn from the run's seed; see `first_weights` for where a training starts."""
    torch.manual_seed(settings.train.seed)
    net = UNet(settings.unet).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Model(net, process_of(settings))


def process_of(settings: RunSettings) -> Process:
    """The run's process; a student's has its own grid and no other."""
    process = PROCESSES[settings.process](sigma_data=settings.sigma_data, **settings.process_settings)
    return process if settings.student is None else student_process(process, settings.student)


def for_inference(model: Model, device: torch.device) -> Model:
    """The model without gradients; its weights normalised once, and in the type that it computes in: else every evaluation would do so."""
    model.requires_grad_(False).eval()
    settle(model.net)
    if computes_in_bf16(device):
        model.net.to(torch.bfloat16)
    return model


def first_weights(settings: RunSettings, device: torch.device) -> Model:
    """A model as its training finds it: fresh, or the base's weights with classes of its own."""
    model = new_model(settings, device)
    if settings.base:
        bases.start_from(model.net, bases.named(settings.base), settings.base_sha256)
    return model


def new_classifier(settings: RunSettings, device: torch.device, *, seed: int) -> Classifier:
    """A classifier with fresh weights, drawn from `seed`."""
    torch.manual_seed(seed)
    out: Classifier = Classifier(settings.classifier).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return out


def write_settings(folder: Path, settings: RunSettings) -> None:
    """Freeze the settings of a run."""
    write_atomic(folder / SETTINGS, canonical(settings.model_dump(mode="json"), indent=1))


def read_settings(folder: Path) -> RunSettings:
    """The settings of a run. Raises MissingInput, BadInput."""
    path = folder / SETTINGS
    if not path.is_file():
        raise MissingInput(f"model: {folder.name}: no settings.json in it", "Name a folder that `mgdm train` wrote.")
    try:
        return RunSettings.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"model: settings.json: {where}: {first['msg']}", "Train again, or restore the file.") from error


def is_trained(folder: Path) -> bool:
    """Whether the run is complete."""
    return all((folder / name).is_file() for name in (SETTINGS, GUIDE, JUDGE, DENOISER))


def load_parts(folder: Path, settings: RunSettings, device: torch.device) -> tuple[Parts, dict[str, str]]:
    """(the run's networks, ready to make images; hex sha256 of each weights file)."""
    if not is_trained(folder):
        raise BadInput(
            f"model: {folder.name}: training has not finished", f"Continue it: mgdm train --data ... -o {folder.name}"
        )
    tensors, header = weights.load(folder / DENOISER)
    if {**_json(asdict(UNetSettings(1, 1))), **header.get("unet", {})} != _json(asdict(settings.unet)):
        raise BadInput(
            "model: denoiser.safetensors: was made with other settings than settings.json says", "Restore the folder."
        )
    model = new_model(settings, device)
    model.net.load_state_dict(tensors)
    for_inference(model, device)
    guide, _ = load_classifier(folder / GUIDE, device)
    judge, _ = load_classifier(folder / JUDGE, device)
    siblings = [name for name in SIBLINGS if (folder / name).is_file()]
    found = (("denoiser", DENOISER), ("guide", GUIDE), ("judge", JUDGE), *((name, name) for name in siblings))
    hashes = {name: sha256_file(folder / file) for name, file in found}
    weak = _weak(folder, settings, device, header.get("weak"))
    members = (guide, *(load_classifier(folder / name, device)[0] for name in siblings))
    return Parts(
        model, guide, judge, settings.shape, settings.sigma_data, device, weak, members, None, settings.student
    ), hashes


def _weak(folder: Path, settings: RunSettings, device: torch.device, sha256: str | None) -> Model | None:
    """The weak model that belongs to the denoiser; None where there is none. Raises BadInput where it is another's."""
    if sha256 is None or not (folder / WEAK).is_file():
        return None
    if sha256_file(folder / WEAK) != sha256:
        raise BadInput(f"model: {WEAK}: is not the one this denoiser was trained with", "Restore the folder.")
    model = new_model(settings, device)
    model.net.load_state_dict(weights.load(folder / WEAK)[0])
    return for_inference(model, device)


def denoiser_header(settings: RunSettings, **more: Any) -> dict[str, Any]:
    """What the header of the denoiser's file says: enough to rebuild it, and no clock."""
    return {
        "kind": "denoiser",
        "unet": _json(asdict(settings.unet)),
        "process": settings.process,
        "process_settings": settings.process_settings,
        "sigma_data": settings.sigma_data,
        "classes": list(settings.classes),
        "intensity": settings.intensity.model_dump(mode="json"),
        **more,
    }


def _json(value: Any) -> Any:
    import json

    return json.loads(json.dumps(value))
