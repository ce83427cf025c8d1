"""What the pages say, as plain records. An empty set of pictures is not shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pictures = NDArray[np.uint8]  # (N, H, W) or (N, H, W, 3)
    Picture = NDArray[np.uint8]  # (H, W) or (H, W, 3)

Tone = Literal["good", "plain", "caution", "bad"]
TWICE = (
    "Each image is decoded twice from the same noise: once plainly, once pulled towards what the classifier is unsure "
    "about. Higher means harder."
)
Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True)
class Verdict:
    """One sentence that a reader may take away, and why it may be said.

    `question` is what it answers, in a few words; `figure` the number behind it with its interval.
    """

    tone: Tone
    line: str
    detail: str = ""
    question: str = ""
    figure: str = ""


@dataclass(frozen=True)
class ClassRow:
    """One class: `real` training images, `synthetic` accepted ones, `rejected` candidates, `wanted` by the plan."""

    name: str
    real: int
    synthetic: int
    rejected: int = 0
    wanted: int | None = None


@dataclass(frozen=True)
class Shelf:
    """Real and synthetic images of one class side by side; `real` may be None or empty."""

    name: str
    synthetic: Pictures
    real: Pictures | None = None


@dataclass(frozen=True)
class Pair:
    """One image before and after the disturbance, with the measure of each."""

    label: str
    before: Picture
    after: Picture
    measure_before: float
    measure_after: float


@dataclass(frozen=True)
class Spread:
    """A measure of all images before and after: `name` with unit, as "entropy (nats)"; `top` its largest value."""

    name: str
    before: tuple[float, ...]
    after: tuple[float, ...]
    top: float | None = None


@dataclass(frozen=True)
class Reject:
    """Candidates that were not taken, for one reason: `meaning` in words, some `pictures` with a `caption` each."""

    reason: str
    count: int
    meaning: str
    pictures: Pictures | None = None
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """One number about the set. `value` None is not given, and `reason` says why; `baseline` is real against real."""

    name: str
    value: float | None
    better: Better
    lo: float | None = None
    hi: float | None = None
    baseline: float | None = None
    ratio: float | None = None
    n: int | None = None
    what: str = ""  # in plain words
    reason: str = ""
    percent: bool = False


@dataclass(frozen=True)
class Neighbour:
    """A synthetic image and the training image nearest to it; `real` None where real images are not shown."""

    id: str
    label: str
    synthetic: Picture
    real: Picture | None
    score: float
    flagged: bool = False


@dataclass(frozen=True)
class CopyScores:
    """Copy scores of the synthetic images and of new real ones; `threshold` None where too few calibrate it."""

    synthetic: tuple[float, ...]
    real: tuple[float, ...]
    threshold: float | None
    note: str = ""


@dataclass(frozen=True)
class Planted:
    """Copies planted on purpose, of one kind, and how many of them the copy score found."""

    kind: str
    found: int
    planted: int


@dataclass(frozen=True)
class Arm:
    """One way to train, and how its classifiers did on the test images, as shares: means over nets and seeds."""

    name: str
    what: str
    images: int
    balanced_accuracy: float
    macro_auroc: float
    macro_f1: float
    calibration_error: float
    worst_class: float
    quadratic_kappa: float | None = None  # of grades alone


@dataclass(frozen=True)
class Gain:
    """Balanced accuracy of `arm` less that of `against`, as a share, with its interval; `nets` as (name, value, lo, hi)."""

    arm: str
    against: str
    value: float
    lo: float
    hi: float
    verdict: str
    nets: tuple[tuple[str, float, float, float], ...] = ()
    better: int = 0
    worse: int = 0
    p: float = 1.0


@dataclass(frozen=True)
class Utility:
    """What the images are worth to classifiers: the arms, and the gains, those over real images alone first."""

    arms: tuple[Arm, ...]
    gains: tuple[Gain, ...]
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """A group of provenance: ("model", "sha256 ab12...")."""

    title: str
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class AugmentReport:
    """All that the page of `augment` shows; an empty part leaves its section out.

    `change` says in a sentence or two how "before" became "after" in `spread` and `pairs`.
    """

    title: str
    summary: str
    verdicts: tuple[Verdict, ...]
    classes: tuple[ClassRow, ...]
    shelves: tuple[Shelf, ...] = ()
    spread: Spread | None = None
    pairs: tuple[Pair, ...] = ()
    change: str = TWICE
    rejects: tuple[Reject, ...] = ()
    copies: CopyScores | None = None
    facts: tuple[Facts, ...] = ()
    derived: bool = False  # the images were made from real ones
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluateReport:
    """All that the page of `evaluate` shows; an empty part leaves its section out."""

    title: str
    summary: str
    verdicts: tuple[Verdict, ...]
    classes: tuple[ClassRow, ...]
    figures: tuple[Figure, ...]
    labels: tuple[Figure, ...] = ()  # agreement with the judge, class by class
    copies: CopyScores | None = None
    planted: tuple[Planted, ...] = ()
    parts: str = ""  # what the look at parts of the pictures found
    utility: Utility | None = None
    leaks: tuple[Figure, ...] = ()  # looks for leaks; `baseline` is what chance or held-out images give
    neighbours: tuple[Neighbour, ...] = ()
    shelves: tuple[Shelf, ...] = ()
    facts: tuple[Facts, ...] = ()
    derived: bool = False  # the images were made from real ones
    notes: tuple[str, ...] = ()
