"""The looks for leaks that `evaluate` takes: which images, which run, and what stands in the way of a look."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mgdm_cli import console
from mgdm_cli.commands.finding import made_by

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from mgdm_cli.data.plan import Plan
    from mgdm_cli.engine.preparing import Prepared
    from mgdm_cli.engine.training import Pictures
    from mgdm_cli.metrics.copies import CopyScorer, Scores
    from mgdm_cli.metrics.leaks import Authenticity, Leaks, Membership, NeighbourTest

MOST, MOST_HELD = 400, 2000  # training and held-out images that a look takes, at random
ASSUMED = "The folder does not say what its generator learnt from."
FEWEST = 20  # patients of each side that the blind control needs

NO_MODEL = "the model is not at hand; name its run with --model"
OTHER_RUN = "the run learnt from another split than this one"
NOT_ITS_RUN = "the run is not the one that the synthetic set names"
STUDENT = "the run is a student, which answers at its own noise levels, and this asks at others"


def look(
    prepared: Prepared,
    train: Pictures,
    synthetic: NDArray[np.float32],
    scorer: CopyScorer,
    scores: Scores,
    *,
    plan: Plan | None,
    model: Path | None,
    device: torch.device,
    seed: int,
) -> Leaks:
    """Train against holdout, membership and authenticity of a synthetic set (S,C,H,W) whose copy `scores` are known."""
    from mgdm_cli.engine.preparing import pictures
    from mgdm_cli.engine.run import read_settings
    from mgdm_cli.errors import BadInput
    from mgdm_cli.metrics.leaks import Leaks

    if not prepared.splits.holdout:
        return Leaks(unaudited="no images are held out from training")
    if plan is not None and plan.inputs != prepared.fingerprint:
        return Leaks(unaudited="the generator learnt from another split, so that nothing here is known to be held out")
    holdout = pictures(prepared, prepared.splits.holdout, device)
    reasons = []
    neighbours: NeighbourTest | None = None
    console.say("compare training images with held-out ones")
    try:
        neighbours = _neighbours(prepared, train, holdout, synthetic, seed)
    except BadInput as error:
        reasons.append(("neighbours", error.message))
    run, why = _run(prepared, plan, model)
    if run is not None and read_settings(run).student is not None:
        run, why = None, STUDENT
    membership = None if run is None else _membership(run, prepared, train, holdout, device, seed)
    if why:
        reasons.append(("membership", why))
    real: Authenticity | None = None
    try:
        real = _authenticity(scorer, scores, holdout, seed)
    except BadInput as error:
        reasons.append(("authenticity", error.message))
    return Leaks(neighbours, membership, real, tuple(reasons), assumed="" if plan or model else ASSUMED)


def _keys(prepared: Prepared) -> tuple[list[str], list[str]]:
    """Patients of the training images and of the held-out ones."""
    from mgdm_cli.data.splits import patient_key

    return [patient_key(r) for r in prepared.splits.train], [patient_key(r) for r in prepared.splits.holdout]


def _neighbours(
    prepared: Prepared, train: Pictures, holdout: Pictures, synthetic: NDArray[np.float32], seed: int
) -> NeighbourTest:
    import numpy as np

    from mgdm_cli.metrics.copies import CopyScorer
    from mgdm_cli.metrics.leaks import neighbour_test, references

    own, others = _keys(prepared)
    label, aside = train.label.cpu().numpy(), holdout.label.cpu().numpy()
    chosen = references(label, own, aside, seed=seed)
    real = np.concatenate([train.array()[chosen], holdout.array()])
    found = CopyScorer(real).score(synthetic)
    return neighbour_test(
        found.nearest,
        found.score,
        [*(own[i] for i in chosen), *others],
        np.arange(len(real)) < len(chosen),
        stratum=np.concatenate([label[chosen], aside]),
        training=len(own),
        seed=seed,
    )


def _authenticity(scorer: CopyScorer, scores: Scores, holdout: Pictures, seed: int) -> Authenticity:
    import numpy as np

    from mgdm_cli.metrics.leaks import authenticity

    generator = np.random.default_rng(seed)
    some = np.sort(generator.permutation(len(scores.score))[:MOST])
    held = scorer.score(holdout.array()[np.sort(generator.permutation(len(holdout.label))[:MOST])])
    nearest = np.unique(np.concatenate([scores.nearest[some], held.nearest]))
    own = dict(zip(nearest.tolist(), scorer.among(nearest).distance.tolist(), strict=True))
    return authenticity(
        scores.score[some],
        scores.distance[some],
        np.array([own[i] for i in scores.nearest[some].tolist()]),
        held.score,
        held.distance,
        np.array([own[i] for i in held.nearest.tolist()]),
    )


def _run(prepared: Prepared, plan: Plan | None, model: Path | None) -> tuple[Path | None, str]:
    """The run that made the set, the one named or one in the cache, or why there is none to ask."""
    from mgdm_cli.data.files import sha256_file
    from mgdm_cli.engine.run import DENOISER, read_settings

    if model is None:
        found = made_by(plan, prepared.fingerprint)
        return found, "" if found is not None else NO_MODEL
    if read_settings(model).inputs != prepared.fingerprint:
        return None, OTHER_RUN
    if plan is not None and sha256_file(model / DENOISER) != plan.models.denoiser:
        return None, NOT_ITS_RUN
    return model, ""


def _membership(
    run: Path, prepared: Prepared, train: Pictures, holdout: Pictures, device: torch.device, seed: int
) -> Membership:
    from dataclasses import replace

    import numpy as np

    from mgdm_cli.engine.membership import NOISES, SIGMAS, losses
    from mgdm_cli.engine.run import load_parts, read_settings
    from mgdm_cli.engine.training import Pictures
    from mgdm_cli.metrics.leaks import blind, membership

    parts, _ = load_parts(run, read_settings(run), device)
    generator = np.random.default_rng(seed)
    sets, patients = [], []
    for data, keys, most in zip((train, holdout), _keys(prepared), (MOST, MOST_HELD), strict=True):
        some = np.sort(generator.permutation(len(keys))[:most])
        sets.append(Pictures(data.x0[some], data.label[some]))
        patients.append([keys[i] for i in some])
    found = []
    total = sum(len(part.label) for part in sets) * len(SIGMAS) * NOISES
    with console.progress("ask the model", total, "evaluations") as bar:
        for part in sets:
            before = 0
            for event in losses(parts.model, part):
                if isinstance(event, int):
                    bar.advance(event - before)
                    before = event
                else:
                    found.append(event)
    test = membership(found[0], found[1], patients=(patients[0], patients[1]), seed=seed)
    if min(len(set(names)) for names in patients) < FEWEST:
        return test
    auc, low = blind(sets[0].array(), sets[1].array(), patients=(patients[0], patients[1]), seed=seed)
    return replace(test, blind=auc, blind_lo=low)
