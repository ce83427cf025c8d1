"""Training, calibrating and testing of the classifiers: the noise-aware guide and the judge that it never meets."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mgdm_cli.nets.classifier import Classifier, ClassifierSettings

from . import warp as warping
from . import weights
from .device import bf16, has_fused_optimizer, seeded, step_seed
from .training import Pictures, Tick, class_weights

CLEAN = 0.01  # the noise level at which a finished image is judged
NOISE_AWARE = (CLEAN, 3.0)
NEARLY_CLEAN = (CLEAN, 0.15)


@dataclass(frozen=True)
class ClassifySettings:
    """`between`: sigmas met in training, log-uniform, and half of the draws at the lower end.

    `told`: whether the net is told which. A guide is, a judge is not: a finished image is said to be clean and may hold noise.
    """

    seen: int
    between: tuple[float, float]
    batch: int = 16
    rate: float = 1e-3
    smooth: float = 0.05
    told: bool = True
    exposure: float = 0.15  # spread of log gamma; contrast varies by half and brightness by a tenth of it
    seed: int = 0


@dataclass(frozen=True)
class Skill:
    """Balanced accuracy on the holdout with its 95 % interval; `chance` is 1 / the classes in it, and 1 where there are none."""

    accuracy: float
    lo: float
    hi: float
    chance: float


def train_classifier(
    net: Classifier, data: Pictures, settings: ClassifySettings, *, warp: warping.WarpSettings
) -> Iterator[Tick]:
    """Train in place on equal class shares, augmented and noised; the weights end as their average over the last third."""
    fused = has_fused_optimizer(data.x0.device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.rate, weight_decay=0.05, fused=fused)
    draw_from, steps = class_weights(data.label, 1.0), max(math.ceil(settings.seen / settings.batch), 1)
    mean = {k: v.clone() for k, v in net.state_dict().items()}
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = (
                settings.rate * min((step + 1) / max(steps // 20, 1), 1.0) * (1 + math.cos(math.pi * step / steps)) / 2
            )
        loss = _classifier_loss(net, data, draw_from, settings, warp, step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        keep = 1 - 1 / max(step - 2 * steps // 3, 1)
        for key, value in net.state_dict().items():
            if value.is_floating_point():
                mean[key].lerp_(value, 1 - keep)
        if step % 10 == 9 or step == steps - 1:
            yield Tick((step + 1) * settings.batch, float(loss.detach()), None, 0.0)
    net.load_state_dict(mean)
    net.eval()


def _classifier_loss(
    net: Classifier,
    data: Pictures,
    draw_from: Tensor,
    settings: ClassifySettings,
    warp: warping.WarpSettings,
    step: int,
) -> Tensor:
    generator, device = torch.Generator().manual_seed(step_seed(settings.seed, step)), data.x0.device
    pick = torch.multinomial(draw_from, settings.batch, replacement=True, generator=generator).to(device)
    x0 = warping.apply(data.x0[pick], warping.draw(settings.batch, warp, generator).to(device))
    x0 = exposed(x0, settings.exposure * torch.randn(3, settings.batch, 1, 1, 1, generator=generator).to(device))
    sigma = sigmas(settings.batch, settings.between, generator).to(device)
    eps = torch.randn(x0.shape, generator=generator).to(device)
    net.train()
    with seeded(step_seed(settings.seed, step), device), bf16(device):
        logits = net(
            x0 + sigma[:, None, None, None] * eps,
            sigma if settings.told else torch.full_like(sigma, settings.between[0]),
        )
    return F.cross_entropy(logits, data.label[pick], label_smoothing=settings.smooth)


def exposed(x0: Tensor, by: Tensor) -> Tensor:
    """x0 (B, C, H, W) in [-1, 1] as another machine might have recorded it; `by` (3, B, 1, 1, 1): gamma, contrast, brightness."""
    gamma, contrast, brightness = by
    light: Tensor = ((x0 + 1) / 2).clamp(0, 1) ** gamma.exp() * (0.5 * contrast).exp() + 0.1 * brightness
    return light * 2 - 1


def sigmas(n: int, between: tuple[float, float], generator: torch.Generator) -> Tensor:
    """(n,) log-uniform in `between`, half of them at its lower end."""
    lo, hi = (math.log(edge) for edge in between)
    out = torch.exp(lo + (hi - lo) * torch.rand(n, generator=generator))
    return torch.where(torch.rand(n, generator=generator) < 0.5, between[0], out)


@torch.no_grad()
def logits_of(net: Classifier, x0: Tensor, *, sigma: float = CLEAN, batch: int = 64) -> Tensor:
    """(N, K) calibrated logits, float32, of clean pictures (N, C, H, W)."""
    net.eval()
    out = [net(part, part.new_full((len(part),), sigma)) for part in torch.split(x0, batch)]
    return torch.cat(out) if out else x0.new_zeros((0, net.settings.classes))


def calibrate(net: Classifier, data: Pictures) -> float:
    """Set the temperature that minimises the holdout's log loss (Guo et al. 2017); returns it.

    One more image counts as a mistake (the rule of succession): a holdout without any would otherwise ask for certainty, under which
    no entropy is left to measure or to follow.
    """
    if len(data.label) == 0:
        return 1.0
    net.get_buffer("temperature").fill_(1.0)
    logits = logits_of(net, data.x0)
    options = torch.logspace(-0.7, 1.3, 81)
    classes, mistaken = logits.shape[-1], 1 / (len(data.label) + 2)
    smooth = mistaken * classes / (classes - 1)
    losses = torch.stack([F.cross_entropy(logits / t, data.label, label_smoothing=smooth) for t in options])
    best = float(options[int(losses.argmin())])
    net.get_buffer("temperature").fill_(best)
    return best


def skill(net: Classifier, data: Pictures, *, draws: int = 2000, seed: int = 0) -> Skill:
    """Balanced accuracy on unseen pictures, and the middle 95 % of its posterior (Brodersen et al. 2010), flat before any was seen.

    A bootstrap would be sure of a few pictures that are all seen rightly.
    """
    k = net.settings.classes
    right = (logits_of(net, data.x0).argmax(-1) == data.label).cpu().double()
    by_class = [right[data.label.cpu() == c] for c in range(k)]
    by_class = [r for r in by_class if len(r)]
    if not by_class:
        return Skill(0.0, 0.0, 0.0, 1.0)
    rng = np.random.default_rng(seed)
    drawn = [rng.beta(float(r.sum()) + 1, float((1 - r).sum()) + 1, draws) for r in by_class]
    lo, hi = np.quantile(np.mean(drawn, axis=0), [0.025, 0.975])
    accuracy = float(torch.stack([r.mean() for r in by_class]).mean())
    return Skill(accuracy, min(float(lo), accuracy), max(float(hi), accuracy), 1 / len(by_class))


def save_classifier(path: Path, net: Classifier, extra: dict[str, object]) -> str:
    """Write weights and settings; returns the file's hex sha256."""
    return weights.save(path, net.state_dict(), {"kind": "classifier", "settings": asdict(net.settings), **extra})


def load_classifier(path: Path, device: torch.device) -> tuple[Classifier, dict[str, object]]:
    """(net in eval mode, header)."""
    tensors, header = weights.load(path)
    settings = dict(header["settings"])
    net = Classifier(ClassifierSettings(**{**settings, "widths": tuple(settings["widths"])}))
    net.load_state_dict(tensors)
    return net.to(device).eval(), header
