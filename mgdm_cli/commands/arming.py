"""Arms that `evaluate` makes itself: as many images as the synthetic set has, by other recipes and the same model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgdm_cli import console
from mgdm_cli.commands.reading import Source
from mgdm_cli.errors import MissingInput, NeedsTraining

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from mgdm_cli.commands.finding import Training
    from mgdm_cli.commands.wanted import Wanted
    from mgdm_cli.data.plan import Plan
    from mgdm_cli.engine.preparing import Prepared

FOLDER = "arms"
MADE: dict[str, dict[str, Any]] = {
    "gen": {"guidance": "cfg"},
    "select": {"guidance": "uncertainty", "mode": "select"},
    "guided": {"guidance": "uncertainty"},
    "ungated": {"guidance": "uncertainty", "filters": False},
}
WHAT = {
    "gen": "real images and plain synthetic ones, not disturbed",
    "select": "real images and the hardest of several seeds that hold their label",
    "guided": "real images and synthetic ones, disturbed towards what the guide is unsure of",
    "ungated": "real images and synthetic ones, disturbed as by guided, without the label and copy gates",
}
LIKE = (
    "sampler",
    "steps",
    "knobs",
    "scale",
    "scale_between",
    "strength",
    "candidates",
)  # taken over from the set's own recipe


@dataclass(frozen=True)
class Maker:
    """What the arms are made from: the real images, the synthetic set that they stand beside, the model, where they go."""

    source: Source
    prepared: Prepared
    synthetic: Path
    target: Path
    model: Path | None
    device: torch.device
    seed: int

    def make(self, name: str, counts: Mapping[str, int]) -> Path:
        """The folder of the arm `name` with `counts` images of each class, made or continued. Raises NeedsTraining."""
        from mgdm_cli.commands import augment
        from mgdm_cli.engine.device import as_before

        training, wanted = self._training(), self._wanted(name, counts)
        console.say(f"arm {name}: {sum(counts.values())} images, {WHAT[name].removeprefix('real images and ')}")
        folder = self._folder(name, wanted)
        with as_before():  # an arm goes on as it was begun; what comes after it does not
            augment.run(
                self.source,
                wanted,
                out=folder,
                model=training.model,
                seed=self.seed,
                device=str(self.device),
                real_images=False,
            )
        return folder

    def is_there(self, name: str, counts: Mapping[str, int]) -> Path | None:
        """The folder of the arm where it is finished."""
        from mgdm_cli.data.dataset import DONE

        folder = self._folder(name, self._wanted(name, counts))
        return folder if (folder / DONE).is_file() else None

    def seconds(self, name: str, counts: Mapping[str, int]) -> float:
        """What making the arm would take, from measured steps. Raises NeedsTraining."""
        from mgdm_cli.commands.estimating import estimate
        from mgdm_cli.data.allotment import allot

        wanted = self._wanted(name, counts)
        allotment = allot(
            self.prepared.counts,
            wanted.n,
            wanted.balance,
            max_per_real=wanted.max_per_real,
            force_small=wanted.force_small,
        )
        found = estimate(self.prepared, allotment, wanted, self._training(), self.device)
        return float(found.document["seconds"]["generation"])

    def _folder(self, name: str, wanted: Wanted) -> Path:
        """Named by what is wanted, so that another synthetic set beside it gets arms of its own."""
        decides = [self.prepared.fingerprint, self.model, self.seed, vars(wanted)]
        key = json.dumps(decides, sort_keys=True, default=str)
        return self.target / FOLDER / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"

    def _training(self) -> Training:
        """The model that was named, else of those in the cache the one that made the synthetic set, else the first."""
        from mgdm_cli.commands.finding import Training, cached_runs, made_by

        if self.model is not None:
            return Training(self.model, seed=self.seed)
        runs = cached_runs(self.prepared.fingerprint)
        if not runs:
            raise NeedsTraining(
                f"--arms {', '.join(MADE)}: are made by a model, and none is at hand that learnt from these images",
                "Name its run with --model RUN; mgdm train makes one.",
            )
        return Training(made_by(self._plan(), self.prepared.fingerprint) or runs[0], seed=self.seed)

    def _made_elsewhere(self, plan: Plan) -> bool:
        """Whether the model that makes the arms is known to be another one than that of the set."""
        from mgdm_cli.commands.finding import cached_runs, made_by
        from mgdm_cli.data.files import sha256_file
        from mgdm_cli.engine.run import DENOISER

        if self.model is not None:
            return sha256_file(self.model / DENOISER) != plan.models.denoiser
        inputs = self.prepared.fingerprint
        return made_by(plan, inputs) is None and bool(cached_runs(inputs))

    def _plan(self) -> Plan | None:
        """Of the synthetic set, where it holds one."""
        from mgdm_cli.data.checking import open_plan

        try:
            return open_plan(self.synthetic)
        except MissingInput:
            return None

    def _wanted(self, name: str, counts: Mapping[str, int]) -> Wanted:
        """The recipe of the arm; what it does not decide is as in the synthetic set, where that holds a plan."""
        from mgdm_cli.commands.wanted import Wanted

        like: dict[str, Any] = {}
        plan = self._plan()
        # A recipe for real images does not suit noise, nor a student's another model.
        if plan is not None and plan.recipe.depth is None and not self._made_elsewhere(plan):
            recipe = plan.recipe
            like = {what: getattr(recipe, what) for what in LIKE}
            silent = {
                "strength": recipe.strength == 0,
                "candidates": recipe.candidates < 2,
                "scale": recipe.scale == 1,
                "scale_between": recipe.scale == 1 or recipe.scale_between is None,
            }
            like = {
                what: value for what, value in like.items() if not silent.get(what)
            }  # off: says nothing of how much
        balance = ",".join(f"{c}={n}" for c, n in counts.items() if n)
        return Wanted(None, balance=balance, max_per_real=1e6, force_small=True, **{**like, **MADE[name]})
