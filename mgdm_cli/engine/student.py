"""What a student is: by which method it was distilled, on which grid it answers, how long it learns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from mgdm_cli.diffusion.adversarial import few
from mgdm_cli.diffusion.types import Process
from mgdm_cli.errors import UsageError

SAMPLER = "ddpm"  # of a student: fresh noise between its answers
METHODS = ("paths", "consistency", "fdistill", "ddgan")
STEPS = {"paths": (1,), "consistency": (1, 2, 4), "fdistill": (1, 2, 4), "ddgan": (1, 2, 4, 8)}
USUAL_STEPS = {"paths": 1, "consistency": 1, "fdistill": 1, "ddgan": 4}
DIVERGENCE = "js"
LATENT = 32


@dataclass(frozen=True)
class StudentSettings:
    """Everything that fixes a distillation. `teacher`: hex sha256 of the denoiser; `grid`: the sigmas the student is asked at, and 0.

    `scale`, `between`: the classifier-free guidance that is distilled into it. `seen`: training images to consume in all.
    """

    method: str
    grid: tuple[float, ...]
    teacher: str
    scale: float
    between: tuple[float, float]
    seen: int
    divergence: str = ""
    latent: int = 0
    scratch: bool = False  # fresh weights instead of the teacher's
    adversarial: float = 0.3  # of fdistill: weight of the discriminator's term; 0 is off
    every: int = 3  # of fdistill: one step of the student in so many
    batch: int = 16
    rate: float = 2e-3
    critic_rate: float = 1e-3
    warm_up: int = 100
    balance: float = 0.5
    average: float = 0.08
    seed: int = 0

    @property
    def training_steps(self) -> int:
        """Steps of training."""
        return max(math.ceil(self.seen / self.batch), 1)

    @property
    def steps(self) -> int:
        """Steps of sampling: answers an image."""
        return len(self.grid) - 1

    def own(self, steps: int) -> list[float]:
        """The student's grid, which is the only one it has. Raises ValueError for another number of steps."""
        if steps != self.steps:
            raise ValueError(f"this student takes {self.steps} steps, not {steps}")
        return list(self.grid)


def student_process(process: Process, student: StudentSettings) -> Process:
    """The teacher's process with the student's grid."""
    return replace(process, grid=student.own)


def grid_of(method: str, steps: int, process: Process) -> tuple[float, ...]:
    """The grid of a student of `steps` steps. Raises UsageError for a number that the method does not have."""
    if steps not in STEPS[method]:
        menu = ", ".join(str(n) for n in STEPS[method])
        raise UsageError(f"--steps: {method} has no students of {steps} steps", f"Choose {menu}.")
    highest = process.grid(1)[0]
    spread: Callable[[int, float], list[float]] = few if method == "ddgan" else _levels
    return tuple(spread(steps, highest))


def _levels(steps: int, hi: float) -> list[float]:
    """The highest level, then those at which pictures of unit range take their form: what is redrawn there is still open."""
    return [hi, *{1: [], 2: [1.0], 4: [3.0, 1.0, 0.4]}[steps], 0.0]
