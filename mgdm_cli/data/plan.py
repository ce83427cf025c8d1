"""What will be made: how many images of each class, in which lots, from which seeds, by which recipe.

A plan is frozen in the output folder before the first image. Everything that may change a byte of the result is in it,
so the same plan on the same class of machine gives the same files, whatever was interrupted or shared out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from mgdm_cli.data.files import canonical, sha256_hex
from mgdm_cli.data.image import Form, Mark
from mgdm_cli.data.labels import folder_of, is_class_name
from mgdm_cli.errors import OtherPlan, UsageError

NOT_STATED = "not stated"
ANOTHER_FOLDER = "Use another output folder."
LOT = 64  # images: the unit that shards share out


class Frozen(BaseModel):
    """A record that crosses a file boundary: nothing extra, nothing changed, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _class_name(name: str) -> str:
    if not is_class_name(name):
        raise ValueError("is not usable as a class")
    return name


class Lot(Frozen):
    """Up to `LOT` images of one class: independent of every other lot, made in blocks until `quota` are accepted."""

    index: int = Field(ge=0)
    label: Annotated[str, AfterValidator(_class_name)]
    class_index: int = Field(ge=0)
    quota: int = Field(ge=1)
    first: int = Field(ge=0)  # running number, in the whole data set, of its first image


def cut(quotas: Mapping[str, int], classes: Sequence[str], *, largest: int = LOT) -> tuple[Lot, ...]:
    """The lots of `quotas`, in the order of `classes` (whose positions are the class indices of the model)."""
    lots: list[Lot] = []
    first = 0
    for class_index, label in enumerate(classes):
        left = quotas.get(label, 0)
        while left > 0:
            quota = min(left, largest)
            lots.append(Lot(index=len(lots), label=label, class_index=class_index, quota=quota, first=first))
            first, left = first + quota, left - quota
    return tuple(lots)


def seed_of(run_seed: int, lot: int, attempt: int, row: int) -> int:
    """The 63-bit seed of one candidate image: the head of sha256("mgdm-noise|seed|lot|attempt|row")."""
    digest = hashlib.sha256(f"mgdm-noise|{run_seed}|{lot}|{attempt}|{row}".encode("ascii")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def block_name(lot: int, attempt: int) -> str:
    """The name of a block: "lot.attempt"."""
    return f"{lot}.{attempt}"


def parse_shard(text: str) -> tuple[int, int]:
    """(k, n) of "k/n", k from 1 to n. Raises UsageError."""
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
    k, n = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= k <= n:
        raise UsageError(f"--shard {text!r} is not k/n with k from 1 to n", "For example --shard 2/4.")
    return k, n


USUAL_KIND = "bfloat16"  # what every machine computed in before it was measured: left out of a plan's bytes


class Machine(Frozen):
    """What the bits of a result depend on besides the settings."""

    device: str
    cpu_capability: str
    threads: int = Field(ge=1)
    computes_in: str = USUAL_KIND  # or "float32"


class Models(Frozen):
    """SHA-256 of the weights that make and judge the images."""

    denoiser: str
    classifier: str | None = None
    judge: str | None = None  # the held-out classifier that says whether the label was kept


class Skill(Frozen):
    """Balanced accuracy of a classifier on the holdout with its 95 % interval, and what a guess would have."""

    accuracy: float
    lo: float
    hi: float
    chance: float

    @property
    def beats_chance(self) -> bool:
        """Whether its interval lies above a guess."""
        return self.lo > self.chance

    def __str__(self) -> str:
        return f"holdout balanced accuracy {self.accuracy:.2f} [{self.lo:.2f}, {self.hi:.2f}], a guess has {self.chance:.2f}"


class Filters(Frozen):
    """What an image must pass. None or False is off."""

    label: bool = True
    blank: bool = True  # also for pictures at the ends of their range, and for twins
    copy_alpha: float | None = None
    copy_threshold: float | None = None


SCALE_BETWEEN = (0.3, 5.0)  # sigmas in which classifier-free guidance acts, where nothing else was said or measured


class Recipe(Frozen):
    """How an image is made from its seed."""

    process: str
    sampler: str
    steps: int = Field(ge=1)
    knobs: dict[str, float] = {}
    scale: float = 1.0  # classifier-free guidance, 1 = off
    scale_between: tuple[float, float] | None = None
    guidance: str = "none"
    strength: float = 0.0
    between: tuple[float, float] | None = None  # sigmas in which the pull acts
    on: Literal["x", "x0"] = "x"  # what the pull's classifier sees: the noisy image, or the denoised one
    mode: Literal["guide", "select"] = "guide"
    candidates: int = Field(default=1, ge=1)
    temperature: float | None = None  # of the calibrated classifier
    filters: Filters = Filters()
    extra: dict[str, JsonValue] = {}

    @property
    def depth(self) -> float | None:
        """How far real images are taken back towards noise, 0 to 1; None where images are made from noise."""
        found = self.extra.get("depth")
        return float(found) if isinstance(found, (int, float)) else None


class Statement(Frozen):
    """What the user says about the real data, word for word on the card; "not stated" where nothing was said."""

    name: str = NOT_STATED
    source: str = NOT_STATED
    consent: str = NOT_STATED
    licence: str = NOT_STATED
    contact: str = NOT_STATED


class Plan(Frozen):
    """Everything that decides the bytes of a data set. `run` (its SHA-256) is the identity every mark carries."""

    format: Literal["mgdm-plan-1"] = "mgdm-plan-1"
    command: str = "augment"
    versions: dict[str, str]  # "mgdm", "torch", "numpy" and the libraries that write the files
    machine: Machine
    seed: int
    block: int = Field(ge=1)  # candidates computed as one batch
    max_attempts: int = Field(ge=1)  # blocks a lot may take
    classes: tuple[str, ...]
    real: dict[str, int]
    asked: int
    balance: str
    max_per_real: float
    lots: tuple[Lot, ...]
    form: Form
    suffix: str = Field(pattern=r"^(\.[a-z0-9]+){1,2}$")
    size: tuple[int, int]  # (height, width) the model works at
    intensity: dict[str, JsonValue]
    models: Models
    recipe: Recipe
    inputs: str  # fingerprint of the training split
    date: str = Field(pattern=r"^[0-9]{8}$")  # of the model, never the clock
    statement: Statement = Statement()
    label_tag: str | None = None  # where DICOM is written: the attribute that labels were read from
    patients_known: bool = True  # of every real image
    skill: dict[str, Skill] = {}  # of guide and judge

    def to_bytes(self) -> bytes:
        """The canonical JSON that lies in the output folder."""
        usual = {"label_tag": self.label_tag is None, "patients_known": self.patients_known, "skill": not self.skill}
        later: dict[str, Any] = {name: True for name, silent in usual.items() if silent}
        if self.machine.computes_in == USUAL_KIND:
            later["machine"] = {"computes_in"}
        return canonical(
            self.model_dump(mode="json", exclude=later), indent=1
        )  # plans made before these have the same bytes

    @cached_property
    def run(self) -> str:
        """Hex SHA-256 of the plan."""
        return sha256_hex(self.to_bytes())

    @property
    def quotas(self) -> dict[str, int]:
        """Images planned for each class, class order."""
        counts = dict.fromkeys(self.classes, 0)
        for lot in self.lots:
            counts[lot.label] += lot.quota
        return counts

    @property
    def unplanned(self) -> int:
        """Images that were asked for and no class may get."""
        return max(self.asked - sum(self.quotas.values()), 0)

    @property
    def weak_judge(self) -> Skill | None:
        """The skill of the judge where labels hang on it and it hardly beats a guess."""
        judge = self.skill.get("judge")
        return judge if judge is not None and not judge.beats_chance and self.recipe.filters.label else None

    def share(self, shard: tuple[int, int]) -> tuple[Lot, ...]:
        """The lots of shard k of n, dealt out in turn."""
        k, n = shard
        return tuple(lot for lot in self.lots if lot.index % n == k - 1)

    def seed_of(self, lot: Lot, attempt: int, row: int) -> int:
        """The seed of candidate `row` of block (lot, attempt)."""
        return seed_of(self.seed, lot.index, attempt, row)

    def image_id(self, lot: Lot, rank: int) -> str:
        """The id, and file stem, of the `rank`-th accepted image of a lot."""
        return f"{folder_of(lot.label)}-{lot.first + rank:06d}"

    def image_path(self, lot: Lot, rank: int) -> str:
        """Where that image lies, relative to the output folder."""
        return f"images/{folder_of(lot.label)}/{self.image_id(lot, rank)}{self.suffix}"

    def mark(self, lot: Lot, rank: int) -> Mark:
        """The mark that image must carry inside its file."""
        return Mark(
            id=self.image_id(lot, rank),
            label=lot.label,
            run=self.run,
            index=lot.first + rank,
            model_sha256=self.models.denoiser,
            version=self.versions["mgdm"],
            date=self.date,
            derived=self.recipe.depth is not None,
            label_tag=self.label_tag,
        )


def read_plan(data: bytes) -> Plan:
    """The plan in `data` (the bytes of a plan.json). Raises OtherPlan when it is none, or was changed."""
    try:
        plan = Plan.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise OtherPlan(f"plan.json is not a plan of mgdm: {where}: {first['msg']}", ANOTHER_FOLDER) from error
    if plan.to_bytes() != data:
        raise OtherPlan("plan.json was changed after it was written", ANOTHER_FOLDER)
    return plan


def differences(old: Plan, new: Plan) -> tuple[str, ...]:
    """The names of the settings in which two plans differ, e.g. "recipe.steps"."""

    def walk(a: JsonValue, b: JsonValue, name: str) -> list[str]:
        if a == b:
            return []
        if isinstance(a, dict) and isinstance(b, dict):
            keys = sorted(a.keys() | b.keys())
            return [found for key in keys for found in walk(a.get(key), b.get(key), f"{name}.{key}" if name else key)]
        return [name]

    return tuple(walk(old.model_dump(mode="json"), new.model_dump(mode="json"), ""))
