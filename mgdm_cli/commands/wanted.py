"""What `augment` is asked for: its defaults, and the flags that say what is to be made and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mgdm_cli.engine.planning import Drawing

STRENGTH = 0.03
BALANCE = "equal"  # made images in rare classes alone mark these classes (measured: benchmarks.utility)
# Fresh noise at the high levels undoes what the net got wrong there: more images show their class. Low down so few steps blur by it.
SAMPLER, KNOBS = "dpmpp_2m_sde", {"lo": 1.0}
STEPS = 13  # at 9 a fifth of the finest detail is missing, which 36 would give (measured: benchmarks.tuning)
SCALE = 2.5  # of autoguidance, and of an estimate before any was measured
FROM_REAL = ("ddim", 1.0, 0.4)  # sampler, scale and strength in place of these defaults with --source real
BETWEEN = (0.15, 3.0)  # sigmas in which the pull acts
CANDIDATES = 4
DEPTH = 0.7  # of the way to noise that a real image is taken back, with --source real


def _scale_between() -> tuple[float, float]:
    from mgdm_cli.data.plan import SCALE_BETWEEN  # loads pydantic, for which --help has no time

    return SCALE_BETWEEN


@dataclass(frozen=True)
class Wanted:
    """What is to be made, and how: the flags of `augment` beside those of the input."""

    n: int | None = None
    guidance: str = "uncertainty"
    strength: float = STRENGTH
    mode: Literal["guide", "select"] = "guide"
    candidates: int = CANDIDATES
    balance: str = BALANCE
    max_per_real: float = 20.0
    force_small: bool = False
    sampler: str | None = None
    steps: int | None = None
    scale: float | None = None  # None: the one that suits the run (engine/scaling.py)
    scale_between: tuple[float, float] = field(default_factory=_scale_between)
    between: tuple[float, float] = BETWEEN
    knobs: dict[str, float] = field(default_factory=dict)
    copy_alpha: float = 0.01
    filters: bool = True
    block: int | None = None
    statement: Mapping[str, str] = field(default_factory=dict)
    on: Literal["x", "x0"] = "x"
    write_as: str | None = None
    depth: float | None = None  # where images are made from real ones: how far each is taken back towards noise

    @property
    def usual(self) -> Drawing:
        """What is not said, where the model is no student."""
        from mgdm_cli.engine.planning import Drawing

        return Drawing(SAMPLER, STEPS, SCALE, KNOBS)
