"""Training of the denoiser: a generator of ticks; state that can be saved at any step and continues bit for bit."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mgdm_cli.diffusion.loss import denoising_loss
from mgdm_cli.diffusion.model import Model
from mgdm_cli.diffusion.types import NULL, WARPED_FROM, Cond

from . import warp as warping
from .device import bf16, has_fused_optimizer, seeded, step_seed

LOOKED_AT = 256  # holdout images of a look
TICK = 10  # steps between two looks at a training


@dataclass(frozen=True)
class TrainSettings:
    """`seen`: training images to consume in all; the learning rate and the EMA are functions of the share of it that is done."""

    seen: int
    batch: int = 16  # small: under a budget of images, steps are worth more than quiet gradients
    rate: float = 6.4e-3
    warm_up: int = 200  # steps
    drop_label: float = 0.1
    balance: float = 0.5  # class weight in a batch: count ** (1 - balance); 0 as found, 1 equal
    average: float = 0.08  # width of the EMA as a share of training (Karras et al. 2024, section 3.1)
    check_every: int = 250  # steps between looks at the holdout
    patience: int = 4  # looks above the best by `turn` before training stops
    turn: float = 0.02
    seed: int = 0

    @property
    def steps(self) -> int:
        return max(math.ceil(self.seen / self.batch), 1)


@dataclass(frozen=True)
class Pictures:
    """A set in memory: x0 (N, C, H, W) float32 in [-1, 1], label (N,) int64.

    `least` (N,), where given: the noise level from which on a picture teaches. One that was enlarged is blurred, which noise hides: below
    that level it is left out (Ambient Diffusion Omni, Daras et al. 2025, section 3). Some pictures must have 0.
    """

    x0: Tensor
    label: Tensor
    least: Tensor | None = None

    def array(self) -> NDArray[np.float32]:
        """x0 (N, C, H, W) as the metrics take it, in the CPU's memory."""
        found: NDArray[np.float32] = self.x0.cpu().float().numpy()
        return found


@dataclass(frozen=True)
class Tick:
    """What happened: `loss` is the mean since the last tick, None where none was taken.

    `holdout` is the EMA's loss on the holdout when it was looked at.
    """

    seen: int
    loss: float | None
    holdout: float | None
    seconds: float
    stopped: bool = False


@dataclass
class TrainState:
    """Everything that a resumed training needs, and no clock."""

    model: Model
    optimizer: torch.optim.Optimizer
    ema: dict[str, Tensor]
    best: dict[str, Tensor]
    step: int = 0
    best_holdout: float = math.inf
    above: int = 0
    history: list[tuple[int, float]] = field(default_factory=list)
    stopped: bool = False
    whole: bool = True  # False within a step: what is saved then would not continue bit for bit

    def tensors(self) -> dict[str, Tensor]:
        """Flat tensors of weights, averages and the optimizer's moments."""
        out = {f"net.{k}": v for k, v in self.model.net.state_dict().items()}
        out |= {f"ema.{k}": v for k, v in self.ema.items()} | {f"best.{k}": v for k, v in self.best.items()}
        return out | {f"adam.{k}": v for k, v in moments_of(self.model.net, self.optimizer).items()}

    def header(self) -> dict[str, object]:
        return {
            "step": self.step,
            "best_holdout": self.best_holdout,
            "above": self.above,
            "history": self.history,
            "stopped": self.stopped,
        }

    def restore(self, tensors: dict[str, Tensor], header: dict[str, object]) -> None:
        """Put back what `tensors` and `header` gave."""
        self.model.net.load_state_dict(under("net.", tensors))
        for target, prefix in ((self.ema, "ema."), (self.best, "best.")):
            target.clear()
            target.update({k: v.to(self._device()) for k, v in under(prefix, tensors).items()})
        put_moments(self.model.net, self.optimizer, under("adam.", tensors))
        self.step, self.above = int(str(header["step"])), int(str(header["above"]))
        self.best_holdout, self.stopped = float(str(header["best_holdout"])), bool(header["stopped"])
        self.history = [(int(a), float(b)) for a, b in header["history"]]  # type: ignore[attr-defined]

    def _device(self) -> torch.device:
        return next(self.model.net.parameters()).device


def moments_of(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's moments by the names of the net's parameters."""
    names = [name for name, _ in net.named_parameters()]
    return {
        f"{names[index]}.{k}": torch.as_tensor(v)
        for index, moments in optimizer.state_dict()["state"].items()
        for k, v in moments.items()
    }


def put_moments(net: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `moments_of` gave."""
    state = optimizer.state_dict()
    state["state"] = {
        # In the parameter's own layout in memory: the fused optimizer walks over both without looking at their strides.
        index: {k: torch.empty_like(own).copy_(v) if v.shape == own.shape else v for k, v in moments.items()}
        for index, (name, own) in enumerate(net.named_parameters())
        if (moments := under(f"{name}.", tensors))
    }
    optimizer.load_state_dict(state)


def begin(model: Model, settings: TrainSettings) -> TrainState:
    """A fresh state. AdamW; the EMA starts as the weights."""
    fused = has_fused_optimizer(next(model.net.parameters()).device)
    optimizer = torch.optim.AdamW(
        model.net.parameters(), lr=settings.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=fused
    )
    ema = {k: v.detach().clone() for k, v in model.net.state_dict().items()}
    return TrainState(model, optimizer, ema, {})


def train(
    state: TrainState,
    data: Pictures,
    holdout: Pictures,
    settings: TrainSettings,
    *,
    warp: warping.WarpSettings,
    tick_every: int = TICK,
) -> Iterator[Tick]:
    """Train until `settings.seen` images are consumed or the holdout loss turns up; yields every `tick_every` steps.

    The draw of step s depends on (seed, s) alone, so that a resumed training repeats an uninterrupted one bit for bit.
    """
    weights = class_weights(data.label, settings.balance)
    started, losses = time.monotonic(), []
    while state.step < settings.steps and not state.stopped:
        with undisturbed(state):
            losses.append(_one_step(state, data, weights, settings, warp))
            look = state.step % settings.check_every == 0 or state.step == settings.steps
            seen_now = _look(state, holdout, settings) if look and len(holdout.label) else None
        if look or state.step % tick_every == 0:
            mean = float(torch.stack(losses).mean())
            if not math.isfinite(mean):
                raise FloatingPointError(f"the loss is {mean} at step {state.step}")
            yield Tick(state.step * settings.batch, mean, seen_now, time.monotonic() - started, state.stopped)
            losses = []


class Steps(Protocol):
    """A training's state: `whole` is False within a step."""

    whole: bool


@contextmanager
def undisturbed(state: Steps) -> Iterator[None]:
    """A signal that ends the run waits for the end of the step; a fault within it leaves `state.whole` False."""
    waiting: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (None, signal.SIG_IGN):
                before[number] = signal.signal(number, lambda number, frame: waiting.append(number))
    state.whole = False
    try:
        yield
        state.whole = True
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if waiting:
            os.kill(os.getpid(), waiting[0])


def drawn(
    data: Pictures, weights: Tensor, batch: int, warp: warping.WarpSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """(x0 (batch, C, H, W), label (batch,), warp (batch, W)): images drawn with these weights (N,), warped, and what is told of it."""
    pick = picked(weights, batch, generator)
    return shown(data, pick, warping.draw(batch, warp, generator))


def class_weights(label: Tensor, balance: float) -> Tensor:
    """(N,) weight of each image in a draw with replacement: classes appear as count ** (1 - balance). float64, sums to 1."""
    counts = torch.bincount(label.cpu()).double()
    share = torch.where(counts > 0, counts.clamp_min(1) ** (1 - balance), 0.0)
    weights = (share / counts.clamp_min(1))[label.cpu()]
    return weights / weights.sum()


def picked(weights: Tensor, batch: int, generator: torch.Generator) -> Tensor:
    """(batch,) indices drawn with these weights (N,)."""
    return torch.multinomial(weights, batch, replacement=True, generator=generator)


def shown(data: Pictures, pick: Tensor, how: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(x0, label, warp as it is told) of the pictures `pick` (B,) under the warps `how` (B, W)."""
    pick, how = pick.to(data.x0.device), how.to(data.x0.device)
    return warping.apply(data.x0[pick], how), data.label[pick], warping.told(how)


def _one_step(
    state: TrainState, data: Pictures, weights: Tensor, settings: TrainSettings, warp: warping.WarpSettings
) -> Tensor:
    model, device = state.model, data.x0.device
    generator = torch.Generator().manual_seed(step_seed(settings.seed, state.step))
    pick, how = picked(weights, settings.batch, generator), warping.draw(settings.batch, warp, generator)
    sigma = model.process.draw(settings.batch, generator)
    eps = torch.randn(settings.batch, *data.x0.shape[1:], generator=generator)
    drop = torch.rand(settings.batch, generator=generator) < settings.drop_label
    if data.least is not None:
        always = picked(weights * (data.least == 0), settings.batch, generator)
        pick = torch.where(sigma < data.least[pick], always, pick)
    # What interpolation leaves of the finest detail is no detail to learn, and to tell the net of a warp does not undo it.
    x0, label, told = shown(data, pick, torch.where((sigma >= WARPED_FROM)[:, None], how, 0.0))
    label = torch.where(drop.to(device), NULL, label)
    for group in state.optimizer.param_groups:
        group["lr"] = rate_at(state.step, settings.steps, settings.rate, settings.warm_up)
    model.train()
    with seeded(step_seed(settings.seed, state.step), device), bf16(device):
        loss = denoising_loss(model, x0, sigma.to(device), eps.to(device), Cond(label, told)).mean()
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.net.parameters(), 1.0)
    state.optimizer.step()
    state.step += 1
    average_into(state.ema, model.net, state.step, settings.average)
    return loss.detach()


def rate_at(step: int, steps: int, rate: float, warm_up: int) -> float:
    """Linear warm-up to `rate`, then a half cosine to 0 at the end."""
    warm = min(warm_up, max(steps // 10, 1))
    return rate * min((step + 1) / warm, 1.0) * (1 + math.cos(math.pi * step / steps)) / 2


def average_into(average: dict[str, Tensor], net: nn.Module, step: int, width: float) -> None:
    """Power-function EMA after `step` steps: its width is a fixed share of them (Karras et al. 2024, equation 123)."""
    power = 1 / width - 3  # close to the exact root for widths under 0.15
    keep = (1 - 1 / step) ** (power + 1)
    with torch.no_grad():
        mine = net.state_dict()
        torch._foreach_lerp_(list(average.values()), [mine[k] for k in average], 1 - keep)


def _look(state: TrainState, holdout: Pictures, settings: TrainSettings) -> float:
    """The EMA's loss on the holdout; keeps the best average and notices when the loss has turned up."""
    now = {k: v.clone() for k, v in state.model.net.state_dict().items()}
    state.model.net.load_state_dict(state.ema)
    loss = holdout_loss(state.model, holdout)
    state.model.net.load_state_dict(now)
    state.history.append((state.step * settings.batch, loss))
    if loss < state.best_holdout:
        state.best_holdout, state.above = loss, 0
        state.best = {k: v.clone() for k, v in state.ema.items()}
    elif loss > state.best_holdout * (1 + settings.turn):
        state.above += 1
        state.stopped = state.above >= settings.patience
    return loss


@torch.no_grad()
def holdout_loss(model: Model, data: Pictures, *, draws: int = 4, batch: int = 64) -> float:
    """Mean denoising loss over fixed sigmas and noises, so that two looks differ by the weights alone."""
    model.eval()
    generator = torch.Generator().manual_seed(7)
    if len(data.label) > LOOKED_AT:  # they lie in the order of their classes
        some = torch.randperm(len(data.label), generator=torch.Generator().manual_seed(7))[:LOOKED_AT].sort().values
        least = None if data.least is None else data.least[some]
        data = Pictures(data.x0[some], data.label[some], least)
    total, counted, n = 0.0, 0, len(data.label)
    least = torch.zeros(n) if data.least is None else data.least
    for _ in range(draws):
        sigma = model.process.draw(n, generator)
        counts = (sigma >= least).to(data.x0.device)
        counted += int(counts.sum())
        sigma = sigma.to(data.x0.device)
        eps = torch.randn(n, *data.x0.shape[1:], generator=generator).to(data.x0.device)
        for at in range(0, n, batch):
            to = slice(at, min(at + batch, n))
            with bf16(data.x0.device):
                loss = denoising_loss(model, data.x0[to], sigma[to], eps[to], Cond(data.label[to]))
            total += float((loss * counts[to]).sum())
    return total / max(counted, 1)


def finished(state: TrainState, settings: TrainSettings) -> dict[str, Tensor]:
    """The weights to keep: the average at the end, or the best one where the holdout loss has turned up since."""
    last = state.history[-1][1] if state.history else -math.inf
    turned = state.stopped or last > state.best_holdout * (1 + settings.turn)
    return state.best if turned and state.best else state.ema


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of the tensors whose names begin with `prefix`, without it."""
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
