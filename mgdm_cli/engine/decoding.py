"""Seeds to pictures: one block of candidates of one class, in MGDM's two stages, by selection, or plainly.

MGDM (TPAMI 2024): generate an image, then disturb it by a second decode of the same noise under the gradient of a classifier's
uncertainty. The noise of a generated image is known, so nothing is inverted; and above the guidance interval the two decodes are the
same computation, so the second one replays what the first one found there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from mgdm_cli.data.plan import Recipe, seed_of
from mgdm_cli.diffusion.guidance import (
    EVERYWHERE,
    OF_MEMBERS,
    TERMS,
    Pull,
    Recorded,
    autoguidance,
    cfg,
    climbed,
    guided,
    logit_gap,
)
from mgdm_cli.diffusion.model import Model
from mgdm_cli.diffusion.noise import Noise
from mgdm_cli.diffusion.samplers import SAMPLERS, draws
from mgdm_cli.diffusion.types import NULL, Cond, Denoise, Process, Score
from mgdm_cli.nets.classifier import Classifier, ClassifierSettings

from . import deriving
from .classifying import CLEAN, logits_of
from .device import bf16
from .student import StudentSettings
from .training import Pictures

TERM_OF = {"uncertainty": "entropy", **{name: name for name in TERMS}}
TWO_STAGES = frozenset({"uncertainty", "entropy", "margin", "least-confidence", "gap", "disagreement"})
UNSTAGED = ("none", "cfg", "auto")  # no classifier pulls
GUIDANCE = (*UNSTAGED, *TERM_OF)
MEMBERS = 3  # of the ensemble that disagreement is taken from: the guide and its siblings
PREVIEW_STEPS = 7
CAP = 0.95  # quantile of hardness above which a preview is taken for an artefact
LEAST_CAPPED = 21  # previews of which there is such a quantile
LATENTS = 0x1A7E47  # sets the stream of an image's latents apart from that of its noise
CLIMB, REACH = 3, 0.5  # steps on the starting noise of a one-step student, and their length for a strength of 1


@dataclass(frozen=True)
class Parts:
    """The networks that make and judge. `guide` and `judge` have seen disjoint halves of the training patients.

    `weak`: an early average of the model's own training, for autoguidance. `members`: the guide and its siblings, for disagreement.
    `real`: the training images, where images are made from them.
    `student`: how the model was distilled, if it was.
    """

    model: Model
    guide: Classifier | None
    judge: Classifier | None
    shape: tuple[int, int, int]
    spread: float  # standard deviation of the data in [-1, 1]
    device: torch.device
    weak: Model | None = None
    members: tuple[Classifier, ...] = ()
    real: Pictures | None = None
    student: StudentSettings | None = None

    @property
    def at_once(self) -> bool:
        """Whether the model makes a picture in one step: there is no trajectory then, and guidance acts on the starting noise."""
        return self.student is not None and self.student.steps == 1


@dataclass
class Count:
    """Work done: U-Net evaluations and classifier gradients, one each per image."""

    evaluations: int = 0
    gradients: int = 0


@dataclass(frozen=True)
class Candidates:
    """A block as made: x0 (B, C, H, W) in [-1, 1]; `before` is the picture before disturbance, where there was one.

    `hopeless` rows had lost their label before any disturbance: they were not disturbed, and are there to be rejected.
    `derived`: `before` are real images, which are measured and never written.
    """

    seeds: tuple[int, ...]
    after: Tensor
    before: Tensor | None
    count: Count = field(default_factory=Count)
    hopeless: frozenset[int] = frozenset()
    derived: bool = False


def make_block(
    parts: Parts,
    recipe: Recipe,
    *,
    run_seed: int,
    lot: int,
    attempt: int,
    block: int,
    class_index: int,
    turn: tuple[int, int] = (0, 1),
) -> Candidates:
    """The candidates of one block: a pure function of the weights, the recipe and the numbers given.

    `turn`: the lot's place among those of its class, and how many they are: real images go to them in turns.
    """
    seeds = tuple(seed_of(run_seed, lot, attempt, row) for row in range(block))
    count = Count()
    label = torch.full((block,), class_index, dtype=torch.int64, device=parts.device)
    if recipe.depth is not None:
        place, lots = turn
        numbers = [(attempt * block + row) * lots + place for row in range(block)]
        picked = deriving.chosen(_real(parts).label, class_index, run_seed, numbers)
        return _from_real(parts, recipe, seeds, picked, class_index, count)
    if recipe.mode == "select" and recipe.guidance in TWO_STAGES:
        return _select(parts, recipe, label, (run_seed, lot, attempt), count)
    plain = _plain(parts, recipe, label, seeds, count)
    if recipe.guidance not in TERM_OF or recipe.strength == 0:
        return Candidates(seeds, _decode(parts, recipe, plain, seeds), None, count)
    if recipe.guidance not in TWO_STAGES:
        return Candidates(seeds, _pulled(parts, recipe, plain, label, seeds, count), None, count)
    first = Recorded(plain, above=(recipe.between or EVERYWHERE)[1])
    before = _decode(parts, recipe, first, seeds)
    rows = _keeping(parts, recipe, before, class_index)
    if not rows:
        return Candidates(seeds, before, before, count, frozenset(range(block)))
    label, kept = label[rows], [seeds[row] for row in rows]
    second = _plain(parts, recipe, label, kept, count)
    if not parts.at_once:
        second = first.replay(rows, second)
    after = before.clone()
    after[rows] = _pulled(parts, recipe, second, label, kept, count)
    return Candidates(seeds, after, before, count, frozenset(range(block)) - frozenset(rows))


def _keeping(parts: Parts, recipe: Recipe, before: Tensor, class_index: int) -> list[int]:
    """Rows worth disturbing: an image that lacks its label would be rejected, so no second decode is spent on it."""
    if parts.judge is None or not recipe.filters.label:
        return list(range(len(before)))
    return torch.nonzero(logits_of(parts.judge, before).argmax(-1) == class_index)[:, 0].tolist()


def _real(parts: Parts) -> Pictures:
    if parts.real is None:
        raise ValueError("a depth needs real images")
    return parts.real


def _from_real(
    parts: Parts, recipe: Recipe, seeds: tuple[int, ...], picked: list[tuple[int, int]], class_index: int, count: Count
) -> Candidates:
    """Real images of the class, (index, round) each, back towards their noise and decoded again under the pull."""
    assert recipe.depth is not None
    before = _real(parts).x0[[index for index, _ in picked]]
    after, rows = before.clone(), _keeping(parts, recipe, before, class_index)
    if rows:
        label = torch.full((len(rows),), class_index, dtype=torch.int64, device=parts.device)
        noise = Noise([seeds[row] for row in rows], parts.shape, parts.device)
        grid = deriving.tail(parts.model.process, recipe.steps, recipe.depth)
        plain, renoise = _invertible(parts, recipe, label, count)
        x = deriving.noised(plain, before[rows], grid, renoise)
        x = deriving.freshened(x, before[rows], grid[0], [picked[row][1] for row in rows], noise.draw)
        pulled = guided(plain, _pull(parts, recipe, label, count))
        after[rows] = _finite(deriving.decoded(pulled, x, grid, renoise)).clamp(-1, 1)
    return Candidates(seeds, after, before, count, frozenset(range(len(seeds))) - frozenset(rows), derived=True)


def _counted(
    parts: Parts, model: Model, cond: Cond, count: Count, latent: Callable[[float], Tensor | None] | None = None
) -> Denoise:
    """The model with its condition inside; one that draws answers at each sigma by the latent that belongs there."""
    bound = model.bind(cond)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        count.evaluations += len(x)
        drawn = None if latent is None else latent(sigma)
        answer = bound if drawn is None else model.bind(replace(cond, latent=drawn))
        with bf16(parts.device):
            return answer(x, sigma)

    return denoise


def _invertible(parts: Parts, recipe: Recipe, label: Tensor, count: Count) -> tuple[Denoise, Denoise | None]:
    """(denoiser, what CFG++ renoises by): at a scale of 1 the condition alone."""
    cond, null = (_counted(parts, parts.model, Cond(y), count) for y in (label, torch.full_like(label, NULL)))
    if recipe.scale == 1:
        return lambda x, sigma: cond(x, sigma).clamp(-1, 1), None
    pair = deriving.Pair(
        lambda x, sigma: cond(x, sigma).clamp(-1, 1), lambda x, sigma: null(x, sigma).clamp(-1, 1), recipe.scale
    )
    return pair.denoise, pair.renoise


def _plain(parts: Parts, recipe: Recipe, label: Tensor, seeds: Sequence[int], count: Count) -> Denoise:
    """Condition, classifier-free guidance or autoguidance, and the data's range bound into one denoiser."""
    latent = _latents(parts, seeds)
    scale = 1.0 if recipe.guidance == "none" else recipe.scale
    between = recipe.scale_between or EVERYWHERE
    if recipe.guidance == "auto":
        if parts.weak is None:
            raise ValueError("autoguidance needs a weak model")
        strong, weak = (_counted(parts, model, Cond(label), count) for model in (parts.model, parts.weak))
        both = autoguidance(strong, weak, scale, between)
    else:
        null = Cond(torch.full_like(label, NULL))
        wanted, none = (_counted(parts, parts.model, cond, count, latent) for cond in (Cond(label), null))
        both = cfg(wanted, none, scale, between)
    # Clipped after guidance, and alike in every stage: the data lies in [-1, 1], so its mean at any noise level does too.
    return lambda x, sigma: both(x, sigma).clamp(-1, 1)


def _latents(parts: Parts, seeds: Sequence[int]) -> Callable[[float], Tensor | None]:
    """sigma -> the latent (B, L) with which a stochastic student answers there: each image's own, whatever was asked before."""
    student = parts.student
    if student is None or not student.latent:
        return lambda sigma: None
    drawn = Noise([seed ^ LATENTS for seed in seeds], (student.steps, 1, student.latent), parts.device).draw()

    def latent(sigma: float) -> Tensor:
        nearest = min(range(student.steps), key=lambda index: abs(math.log(student.grid[index] / sigma)))
        return drawn[:, nearest, 0]

    return latent


def _pull(parts: Parts, recipe: Recipe, label: Tensor, count: Count) -> Pull:
    between = recipe.between or EVERYWHERE
    return Pull(
        _score(parts, recipe, label, count), recipe.strength, on=recipe.on, between=between, spread=parts.spread
    )


def _pulled(parts: Parts, recipe: Recipe, plain: Denoise, label: Tensor, seeds: Sequence[int], count: Count) -> Tensor:
    """Pictures under the recipe's term: pulled at the states between noise and picture, or, where there are none, at the noise."""
    if not parts.at_once:
        return _decode(parts, recipe, guided(plain, _pull(parts, recipe, label, count)), seeds)
    score = _score(parts, recipe, label, count)
    sigma = parts.model.process.grid(1)[0]
    cond = Cond(label, latent=_latents(parts, seeds)(sigma))

    def of_noise(noise: Tensor) -> Tensor:
        count.evaluations += len(noise)
        with bf16(parts.device):
            x0 = parts.model(noise * sigma, noise.new_full((len(noise),), sigma), cond)
        return score(x0.clamp(-1, 1), CLEAN)

    noise = Noise(seeds, parts.shape, parts.device).draw()
    start = climbed(of_noise, noise, length=REACH * recipe.strength, steps=CLIMB)
    return _decode(parts, recipe, plain, seeds, start=start)


def _score(parts: Parts, recipe: Recipe, label: Tensor, count: Count) -> Score:
    if parts.guide is None:
        raise ValueError(f"guidance {recipe.guidance} needs a classifier")
    name = TERM_OF[recipe.guidance]
    nets = [net.requires_grad_(False) for net in (_members(parts) if name in OF_MEMBERS else (parts.guide,))]

    def score(x: Tensor, sigma: float) -> Tensor:
        count.gradients += len(x) * len(nets)
        level = CLEAN if recipe.on == "x0" else sigma  # a denoised image is judged as a finished one
        logits = [net(x, x.new_full((len(x),), level)) for net in nets]
        return TERMS[name](torch.stack(logits) if name in OF_MEMBERS else logits[0], label)

    return score


def _members(parts: Parts) -> tuple[Classifier, ...]:
    if len(parts.members) < 2:
        raise ValueError("disagreement needs the guide's siblings")
    return parts.members


def _measured(parts: Parts, name: str, x0: Tensor, label: Tensor) -> Tensor:
    """(B,) the measure `name` of finished pictures, by the guide, or by it and its siblings."""
    assert parts.guide is not None
    if name in OF_MEMBERS:
        return TERMS[name](torch.stack([logits_of(net, x0) for net in _members(parts)]), label)
    return TERMS[name](logits_of(parts.guide, x0), label)


def _decode(
    parts: Parts,
    recipe: Recipe,
    denoise: Denoise,
    seeds: Sequence[int],
    steps: int | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """Pictures of these seeds; `start` is put in the place of their unit noise."""
    grid = parts.model.process.grid(steps or recipe.steps)
    noise = Noise(seeds, parts.shape, parts.device)
    own = noise.draw()
    x = (own if start is None else start) * grid[0]
    for step in SAMPLERS[recipe.sampler](denoise, x, grid, randn_like=noise.like, **recipe.knobs):
        x = step
    return _finite(x).clamp(-1, 1)


def _finite(x: Tensor) -> Tensor:
    if not bool(torch.isfinite(x).all()):
        raise FloatingPointError("an image came out with values that are not finite")
    return x


def _select(parts: Parts, recipe: Recipe, label: Tensor, where: tuple[int, int, int], count: Count) -> Candidates:
    """For each row the hardest of `recipe.candidates` previews that keep the label; "before" is the row's first preview.

    Where another number of steps gives another picture (a student's, or a sampler's that draws) the preview is the picture itself.
    """
    if parts.guide is None or parts.judge is None:
        raise ValueError("--mode select needs a classifier and a judge")
    block, name = len(label), TERM_OF[recipe.guidance]
    seeds, hardness, kept, previews = [], [], [], []
    whole = parts.student is not None or draws(recipe.sampler, recipe.knobs)
    steps = recipe.steps if whole else min(PREVIEW_STEPS, recipe.steps)
    for k in range(recipe.candidates):
        mine = [seed_of(*where, k * block + row) for row in range(block)]
        preview = _decode(parts, recipe, _plain(parts, recipe, label, mine, count), mine, steps)
        previews.append(preview)
        seeds.append(mine)
        hardness.append(_measured(parts, name, preview, label))
        kept.append(logits_of(parts.judge, preview).argmax(-1) == label)
    best = _hardest(torch.stack(hardness).float(), torch.stack(kept))
    chosen = tuple(seeds[k][row] for row, k in enumerate(best))
    if whole:
        after = torch.stack([previews[k][row] for row, k in enumerate(best)])
    else:
        after = _decode(parts, recipe, _plain(parts, recipe, label, chosen, count), chosen)
    return Candidates(chosen, after, previews[0], count)


def _hardest(hard: Tensor, keeps: Tensor) -> list[int]:
    """For each of B rows the best of K previews, hard and keeps (K, B): that keeps its label, is no artefact, is the hardest.

    Of few previews the quantile would be at the hardest one, or beside it, whatever it shows: none is taken for an artefact there.
    """
    cap = float(torch.quantile(hard.flatten(), CAP)) if hard.numel() >= LEAST_CAPPED else math.inf
    ranks = [
        [(kept, value <= cap, value) for kept, value in zip(*row, strict=True)]
        for row in zip(keeps.T.tolist(), hard.T.tolist(), strict=True)
    ]
    return [max(range(len(row)), key=row.__getitem__) for row in ranks]


def measures(parts: Parts, x0: Tensor, class_index: int, guidance: str) -> list[dict[str, float]]:
    """How unsure the guide is about each picture: entropy (nats), margin, least confidence, logit gap; disagreement if it was followed."""
    if parts.guide is None:
        raise ValueError("measures need a guide")
    logits = logits_of(parts.guide, x0)
    label = torch.full((len(x0),), class_index, dtype=torch.int64, device=x0.device)
    columns = {
        "entropy": TERMS["entropy"](logits, label),
        "margin": TERMS["margin"](logits, label),
        "least_confidence": TERMS["least-confidence"](logits, label),
        "logit_gap": logit_gap(logits, label),
    }
    if (followed := TERM_OF.get(guidance, "")) in OF_MEMBERS:
        columns[followed] = _measured(parts, followed, x0, label)
    return [{name: round(float(values[i]), 6) for name, values in columns.items()} for i in range(len(x0))]


def cost(recipe: Recipe, process: Process, student: StudentSettings | None = None) -> tuple[int, int]:
    """(U-Net evaluations, classifier gradients) of a candidate that keeps its label, counted by making one with nets that only count."""
    shape = (1, 8, 8)

    class Nothing(nn.Module):
        def forward(
            self, x: Tensor, noise: Tensor, label: Tensor | None, warp: Tensor | None, latent: Tensor | None = None
        ) -> Tensor:
            return torch.zeros_like(x)

    class Unsure(Classifier):
        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            return x.mean((1, 2, 3))[:, None] * torch.tensor([1.0, 2.0])

    unsure = Unsure(ClassifierSettings(1, 2, 0.5, width=8, widths=(1,))).eval()
    nothing = Model(Nothing(), process)
    real = Pictures(torch.zeros(1, *shape), torch.zeros(1, dtype=torch.int64))
    parts = Parts(nothing, unsure, unsure, shape, 0.5, torch.device("cpu"), nothing, (unsure,) * MEMBERS, real, student)
    every = recipe.model_copy(update={"filters": recipe.filters.model_copy(update={"label": False})})
    count = make_block(parts, every, run_seed=0, lot=0, attempt=0, block=1, class_index=0).count
    return count.evaluations, count.gradients
