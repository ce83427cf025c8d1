"""What `evaluate` measures, step by step: features, labels, copies, leaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgdm_cli import console

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from mgdm_cli.commands.weighing import Weighed
    from mgdm_cli.data.image import Record
    from mgdm_cli.data.plan import Plan
    from mgdm_cli.engine.encoding import Encoder
    from mgdm_cli.engine.judging import Judges, RealTest
    from mgdm_cli.engine.preparing import Prepared
    from mgdm_cli.engine.training import Pictures
    from mgdm_cli.metrics.audit import Agreement, Copies, Fidelity
    from mgdm_cli.metrics.copies import CopyScorer, Scorer, Scores
    from mgdm_cli.metrics.leaks import Leaks

AT_ONCE = 20  # pictures whose copy score is computed between two signs of life


@dataclass(frozen=True)
class Question:
    """What is compared with what, and how: the flags of `evaluate` beside those of its utility part."""

    prepared: Prepared
    synthetic: Path
    tests: RealTest
    target: Path  # where the judges are kept
    device: torch.device
    seen: int  # training images of each judge
    alpha: float
    seed: int
    model: Path | None = None
    encoder: Path | None = None

    def opened(self) -> Encoder | None:
        """The user's encoder. Raises MissingInput, BadInput."""
        from mgdm_cli.engine.encoding import open_encoder

        return None if self.encoder is None else open_encoder(self.encoder, self.prepared.frame, self.device)

    def check(self) -> None:
        """Whether all that is named can be opened, before anything long begins. Raises MissingInput, BadInput, UsageError."""
        from mgdm_cli.engine import judging

        self.opened()
        judging.others(self.synthetic, self.prepared, synthetic=True)


@dataclass(frozen=True)
class SpaceOf:
    """The feature space of the distances: what it is, in words, whose file, and pictures -> features."""

    what: str
    sha256: str
    features: Callable[[torch.Tensor], NDArray[np.float64]]
    dimension: int = 0

    @classmethod
    def judge(cls, judges: Judges) -> SpaceOf:
        from mgdm_cli.engine.judging import features_of

        what = "last features of a classifier trained on one half of the real training patients"
        return cls(what, judges.sha256[0], lambda x0: features_of(judges.nets[0], x0))

    @classmethod
    def user(cls, encoder: Encoder) -> SpaceOf:
        return cls(f"{encoder.name}, an encoder of yours ({encoder.what})", encoder.sha256, encoder.features)


@dataclass(frozen=True)
class Findings:
    """All that was found out, for the page and the document."""

    prepared: Prepared
    records: tuple[Record, ...]  # synthetic
    synthetic: Pictures
    train: Pictures
    judges: Judges
    space: SpaceOf
    fidelity: Fidelity
    labels: tuple[Agreement, ...]
    test: dict[str, Any] | None
    copies: Copies
    leaks: Leaks
    notes: tuple[str, ...]
    seed: int
    derived: bool  # the synthetic images were made from real ones
    utility: Weighed | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Synthetic images of each class."""
        label = self.synthetic.label
        return {name: int((label == k).sum()) for k, name in enumerate(self.prepared.classes)}


def find(asked: Question) -> Findings:
    """Everything that is measured, step by step."""
    from mgdm_cli.commands import leaking
    from mgdm_cli.engine import judging
    from mgdm_cli.engine.preparing import pictures
    from mgdm_cli.metrics.audit import Judged, agreements

    prepared, device = asked.prepared, asked.device
    records, scan = judging.others(asked.synthetic, prepared, synthetic=True)
    synthetic = judging.pictures_of(scan, records, prepared, device)
    encoder = asked.opened()
    judges = _judges(asked)
    console.say("compare the sets")
    labels = agreements(
        Judged(*judging.real_judged(judges, prepared, device)),
        Judged(judging.judged(judges, synthetic.x0), synthetic.label.cpu().numpy()),
        prepared.classes,
    )
    space = SpaceOf.judge(judges) if encoder is None else SpaceOf.user(encoder)
    near, space = _fidelity(asked, judges, space, synthetic)
    train = pictures(prepared, prepared.splits.train, device)
    plan, notes = plan_in(asked.synthetic, prepared)
    scorer, copied = _copies(asked, train, synthetic)
    leaks = leaking.look(
        prepared, train, synthetic.array(), scorer, copied.scores, plan=plan, model=asked.model, device=device,
        seed=asked.seed,
    )  # fmt: skip
    test = _on_test(judges, prepared, asked.tests, device)
    return Findings(
        prepared,
        records,
        synthetic,
        train,
        judges,
        space,
        near,
        labels,
        test,
        copied,
        leaks,
        (*scan.notes, *notes, *asked.tests.notes),
        asked.seed,
        plan is not None and plan.recipe.depth is not None,
    )


def _fidelity(asked: Question, judges: Judges, space: SpaceOf, synthetic: Pictures) -> tuple[Fidelity, SpaceOf]:
    """Distances in the space, and the space with the number of its features."""
    from mgdm_cli.data.splits import patient_key
    from mgdm_cli.engine import judging
    from mgdm_cli.engine.preparing import pictures
    from mgdm_cli.metrics.audit import Space, fidelity

    records = judging.unseen(judges, asked.prepared)
    real = pictures(asked.prepared, records, asked.device)
    ours = Space(space.features(real.x0), real.label.cpu().numpy(), tuple(patient_key(record) for record in records))
    theirs = Space(space.features(synthetic.x0), synthetic.label.cpu().numpy())
    found = fidelity(ours, theirs, asked.prepared.classes, seed=asked.seed)
    return found, replace(space, dimension=theirs.features.shape[1])


def _judges(asked: Question) -> Judges:
    from mgdm_cli.engine import judging

    found: Judges | None = None
    done = [0, 0]
    with console.progress("train the judges", 2 * asked.seen, "images") as bar:
        for event in judging.judges(asked.target, asked.prepared, asked.device, seen=asked.seen, seed=asked.seed):
            if isinstance(event, judging.Judges):
                found = event
            else:
                bar.advance(event.seen - done[event.judge])
                done[event.judge] = event.seen
    assert found is not None
    return found


def _on_test(judges: Judges, prepared: Prepared, tests: RealTest, device: torch.device) -> dict[str, Any] | None:
    """How good the judges are on real images that nothing was learnt from; None without such."""
    from mgdm_cli.engine import judging
    from mgdm_cli.metrics.labels import balanced_accuracy, macro_auroc

    if not tests.records:
        return None
    data = judging.pictures_of(tests.scan, tests.records, prepared, device)
    shares, label = judging.judged(judges, data.x0), data.label.cpu().numpy()
    return {
        "images": len(tests.records),
        "balanced_accuracy": balanced_accuracy(shares.argmax(axis=1), label),
        "macro_auroc": macro_auroc(shares, label),
    }


def _copies(asked: Question, train: Pictures, synthetic: Pictures) -> tuple[CopyScorer, Copies]:
    from mgdm_cli.data.splits import patient_key
    from mgdm_cli.engine.preparing import pictures
    from mgdm_cli.metrics.audit import copies
    from mgdm_cli.metrics.copies import CopyScorer
    from mgdm_cli.metrics.parts import PartScorer

    splits = asked.prepared.splits
    holdout = pictures(asked.prepared, splits.holdout, asked.device).array()
    real, patients = train.array(), [patient_key(record) for record in splits.train]
    scorer = CopyScorer(real, groups=patients)
    parts = PartScorer(real, groups=patients)
    aside = holdout if len(holdout) else None
    with console.progress("look for copies", None, "pictures") as bar:
        told = (_Told(scorer, bar), _Told(parts, bar))
        found = copies(
            told[0], real, aside, synthetic.array(), alpha=asked.alpha, parts=told[1], seed=asked.seed,
            patients=[patient_key(record) for record in splits.holdout],
        )  # fmt: skip
    return scorer, found


@dataclass(frozen=True)
class _Told:
    """A scorer that shows how far it is; a picture's score does not depend on its company."""

    scorer: Scorer
    bar: console.Bar

    @property
    def groups(self) -> NDArray[np.str_]:
        return self.scorer.groups

    def score(self, images: NDArray[np.float32]) -> Scores:
        from mgdm_cli.metrics.copies import joined

        found = []
        for at in range(0, len(images), AT_ONCE):
            found.append(self.scorer.score(images[at : at + AT_ONCE]))
            self.bar.advance(min(AT_ONCE, len(images) - at))
        return joined(found) if found else self.scorer.score(images)

    def leave_one_out(self, *, limit: int = 400, seed: int = 0) -> tuple[Scores, NDArray[np.int64]]:
        found = self.scorer.leave_one_out(limit=limit, seed=seed)
        self.bar.advance(len(found[1]))
        return found


def plan_in(root: Path, prepared: Prepared) -> tuple[Plan | None, tuple[str, ...]]:
    """The synthetic set's own plan, and a note where it says that it was learnt from other images than these."""
    from mgdm_cli.data.checking import open_plan
    from mgdm_cli.data.dataset import DONE, HOUSE
    from mgdm_cli.errors import MissingInput

    try:
        plan = open_plan(root)
    except MissingInput:
        return None, ("the folder holds no plan: which images the generator learnt from is not known",)
    notes = []
    if (root / HOUSE).is_dir() and not (root / DONE).is_file():
        planned = sum(plan.quotas.values())
        notes.append(f"the set is not finished: {planned} images were planned; the command that made it continues")
    if plan.inputs == prepared.fingerprint:
        return plan, tuple(notes)
    return plan, (
        *notes,
        "the generator learnt from another split than this one (other images, --size or --seed): images counted as "
        "unseen here may have been learnt from",
    )
