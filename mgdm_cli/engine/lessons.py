"""One training step of each way to a student: the losses of `diffusion` on this project's nets, averages and random numbers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from mgdm_cli.diffusion import adversarial, consistency, divergence
from mgdm_cli.diffusion.loss import denoising_loss
from mgdm_cli.diffusion.model import Model
from mgdm_cli.diffusion.samplers import dpmpp_2m
from mgdm_cli.diffusion.types import NULL, Cond

from .device import bf16
from .student import StudentSettings
from .training import average_into, moments_of, put_moments, rate_at, under

HOPS = (8, 32)  # of a consistency student: the path in so many pieces at first and at last
FRESH_EVERY, POOL, TEACHER_STEPS = (
    4,
    2048,
    9,
)  # of paths: new pairs in one step of four, kept so many, on the usual grid
PENALTY_EVERY, PENALTY = 16, 0.5  # lazy R1
ALONE = (
    0.1  # share of the training in which the critic learns alone: what knows nothing yet would lead the student astray
)
EDGES = (0.02, 0.98)  # share of the clock in which f-distillation noises (Yin et al. 2024)
BINS, MEMORY = 10, 0.9  # of the running mean of the density ratio
NUDGE = 0.1  # of the noise, by which a critic's answer must not change


@dataclass
class Learner:
    """A net that learns, with its optimizer; `average` where its EMA is what is kept."""

    net: nn.Module
    optimizer: torch.optim.Optimizer
    rate: float
    average: dict[str, Tensor] = field(default_factory=dict)

    def learn(self, loss: Tensor) -> None:
        """A step down the loss; none where it is not finite."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        size = torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        if bool(torch.isfinite(size)):
            self.optimizer.step()


@dataclass(frozen=True)
class Teacher:
    """The guided denoiser that students learn from."""

    model: Model
    scale: float
    between: tuple[float, float]

    @torch.no_grad()
    def answer(self, x: Tensor, sigma: Tensor, cond: Cond) -> Tensor:
        """x0 (B, C, H, W) at sigma (B,), guided where sigma lies in `between`, in the data's range."""
        with bf16(x.device):
            wanted: Tensor = self.model(x, sigma, cond)
            rows = ((sigma >= self.between[0]) & (sigma <= self.between[1])).nonzero()[:, 0]
            if self.scale != 1 and len(rows):
                warp = None if cond.warp is None else cond.warp[rows]
                null = Cond(torch.full_like(rows, NULL), warp)
                wanted[rows] += (self.scale - 1) * (wanted[rows] - self.model(x[rows], sigma[rows], null))
        return wanted.clamp(-1, 1)


@dataclass(frozen=True)
class Batch:
    """Real pictures, what the nets are told of them, and where further random numbers come from."""

    x0: Tensor
    cond: Cond
    generator: torch.Generator

    def noise(self) -> Tensor:
        """Unit noise of the pictures' shape."""
        return torch.randn(self.x0.shape, generator=self.generator).to(self.x0.device)

    def levels(self, sigmas: Tensor) -> tuple[Tensor, Tensor]:
        """(index (B,), sigma (B,)) of levels drawn uniformly from `sigmas`."""
        index = torch.randint(len(sigmas), (len(self.x0),), generator=self.generator)
        return index, sigmas[index].to(self.x0)


@dataclass
class State:
    """Everything that a resumed distillation needs, and no clock. `model`: the student."""

    model: Model
    learners: dict[str, Learner]
    memory: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0
    whole: bool = True  # False within a step: what is saved then would not continue bit for bit

    def tensors(self) -> dict[str, Tensor]:
        """Flat tensors of all nets, averages and moments."""
        out = {f"memory.{k}": v for k, v in self.memory.items()}
        for name, learner in self.learners.items():
            out |= {f"{name}.net.{k}": v for k, v in learner.net.state_dict().items()}
            out |= {f"{name}.average.{k}": v for k, v in learner.average.items()}
            out |= {f"{name}.adam.{k}": v for k, v in moments_of(learner.net, learner.optimizer).items()}
        return out

    def header(self) -> dict[str, object]:
        return {"step": self.step}

    def restore(self, tensors: dict[str, Tensor], header: dict[str, object]) -> None:
        """Put back what `tensors` and `header` gave."""
        for name, learner in self.learners.items():
            mine = under(f"{name}.", tensors)
            learner.net.load_state_dict(under("net.", mine))
            device = next(learner.net.parameters()).device
            learner.average = {k: v.to(device) for k, v in under("average.", mine).items()}
            put_moments(learner.net, learner.optimizer, under("adam.", mine))
        self.memory = {k: v.clone() for k, v in under("memory.", tensors).items()}
        self.step = int(str(header["step"]))


def take(state: State, batch: Batch, teacher: Teacher, settings: StudentSettings) -> Tensor | None:
    """One step of the method; the student's loss, None where this step was its opponents'."""
    for learner in state.learners.values():
        for group in learner.optimizer.param_groups:
            group["lr"] = rate_at(state.step, settings.training_steps, learner.rate, settings.warm_up)
    loss = LESSONS[settings.method](state, batch, teacher, settings)
    state.step += 1
    for learner in state.learners.values():
        if learner.average:
            average_into(learner.average, learner.net, state.step, settings.average)
    return loss


def consistency_lesson(state: State, batch: Batch, teacher: Teacher, settings: StudentSettings) -> Tensor:
    """Neighbours on one of the teacher's paths have one end."""
    process, model = teacher.model.process, state.model
    at = 1 - torch.rand(len(batch.x0), generator=batch.generator)
    hops = consistency.hops_at(state.step / settings.training_steps, *HOPS)
    sigma, to = (level.to(batch.x0) for level in consistency.hop(process.clock, at, hops))
    x = batch.x0 + sigma[:, None, None, None] * batch.noise()
    with bf16(x.device):
        loss = consistency.consistency_loss(
            lambda x, sigma: model(x, sigma, batch.cond),
            lambda x, sigma: teacher.answer(x, sigma, batch.cond),
            x, sigma, to,
        ).mean()  # fmt: skip
    state.learners["student"].learn(loss)
    return loss.detach()


def paths_lesson(state: State, batch: Batch, teacher: Teacher, settings: StudentSettings) -> Tensor:
    """Noise, and the picture at which the teacher's path from it ends (Luhman & Luhman 2021): met several times, then replaced."""
    pool, size, model = state.memory, len(batch.x0), state.model
    hi = settings.grid[0]
    if state.step % FRESH_EVERY == 0:
        place = torch.arange(size) + state.step // FRESH_EVERY * size
        noise, label = batch.noise(), batch.cond.label
        pool["noise"][place % POOL] = noise.half().cpu()
        pool["end"][place % POOL] = ended(teacher, noise, Cond(label)).half().cpu()
        pool["label"][place % POOL] = torch.as_tensor(label).cpu()
    there = min((state.step // FRESH_EVERY + 1) * size, POOL)
    pick = torch.randint(there, (size,), generator=batch.generator)
    noise, end = (pool[name][pick].to(batch.x0) for name in ("noise", "end"))
    with bf16(noise.device):
        x0 = model(noise * hi, noise.new_full((size,), hi), Cond(pool["label"][pick].to(noise.device)))
    loss: Tensor = consistency.pseudo_huber(x0 - end).mean() / noise[0].numel() ** 0.5
    state.learners["student"].learn(loss)
    return loss.detach()


def ended(teacher: Teacher, noise: Tensor, cond: Cond) -> Tensor:
    """The pictures that the guided teacher makes of this unit noise (B, C, H, W) without drawing any more: one noise has one end."""
    grid = teacher.model.process.grid(TEACHER_STEPS)
    *_, x = dpmpp_2m(
        lambda x, sigma: teacher.answer(x, x.new_full((len(x),), sigma), cond),
        noise * grid[0], grid, randn_like=torch.zeros_like,
    )  # fmt: skip
    return x.clamp(-1, 1)


def pool_for(shape: tuple[int, int, int]) -> dict[str, Tensor]:
    """Room for the pairs of `paths_lesson`."""
    return {
        "noise": torch.zeros((POOL, *shape), dtype=torch.float16),
        "end": torch.zeros((POOL, *shape), dtype=torch.float16),
        "label": torch.zeros(POOL, dtype=torch.int64),
    }


def fdistill_lesson(state: State, batch: Batch, teacher: Teacher, settings: StudentSettings) -> Tensor | None:
    """The student's pictures, noised, are moved as its law must be; or, in most steps, its score and its critic catch up with it."""
    which, start = batch.levels(torch.tensor(settings.grid[:-1]))
    # At the top there is noise alone; below, the student is asked about pictures on their way.
    noisy = torch.where((which > 0).to(start.device)[:, None, None, None], batch.x0, 0.0)
    noisy = noisy + start[:, None, None, None] * batch.noise()
    turn = state.step % settings.every == settings.every - 1
    with torch.set_grad_enabled(turn), bf16(noisy.device):
        x = state.model(noisy, start, batch.cond)
    if turn:
        return _moved(state, batch, x, teacher, settings)
    _caught_up(state, batch, x, teacher, settings)
    return None


def _moved(state: State, batch: Batch, x: Tensor, teacher: Teacher, settings: StudentSettings) -> Tensor:
    at = EDGES[0] + (EDGES[1] - EDGES[0]) * torch.rand(len(x), generator=batch.generator)
    sigma, head = teacher.model.process.clock(at.double()).to(x), state.learners["critic"].net
    noised = x + sigma[:, None, None, None] * batch.noise()
    with bf16(x.device):
        logit = head(teacher.model.features(noised, sigma, batch.cond), batch.cond.label)
    with torch.no_grad():
        real = teacher.answer(noised, sigma, batch.cond)
        with bf16(x.device):
            fake: Tensor = _bound(state.learners["fake"].net, teacher)(noised, sigma, batch.cond)
        weight = _weights(state, logit, at, settings)
    away = (x - divergence.target(x, real, fake, weight)).square().flatten(1).sum(1)
    loss: Tensor = (away / 2).mean() / x[0].numel() ** 0.5
    state.learners["student"].learn(loss + settings.adversarial * adversarial.fooling_loss(logit))
    return loss.detach()


def _weights(state: State, logit: Tensor, at: Tensor, settings: StudentSettings) -> Tensor:
    """h of the density ratio, over its running mean at the noise level."""
    r = divergence.ratio(logit.detach())
    bins, means = (at * BINS).long().clamp_max(BINS - 1), state.memory["ratio"]
    for index in sorted(set(bins.tolist())):
        means[index] = MEMORY * means[index] + (1 - MEMORY) * r[(bins == index).to(r.device)].mean().cpu()
    weight: Tensor = divergence.weights_of(divergence.DIVERGENCES[settings.divergence].h, r, means[bins].to(r))
    return weight


def _caught_up(state: State, batch: Batch, x: Tensor, teacher: Teacher, settings: StudentSettings) -> None:
    process, head = teacher.model.process, state.learners["critic"].net
    sigma = process.draw(len(x), batch.generator).to(x)
    with bf16(x.device):
        fake = _bound(state.learners["fake"].net, teacher)
        loss = denoising_loss(fake, x, sigma, batch.noise(), batch.cond).mean()
    state.learners["fake"].learn(loss)
    if settings.adversarial or settings.divergence != "rkl":
        at = EDGES[0] + (EDGES[1] - EDGES[0]) * torch.rand(len(x), generator=batch.generator)
        sigma = process.clock(at.double()).to(x)
        level = sigma[:, None, None, None]
        noised = torch.cat([batch.x0 + level * batch.noise(), x + level * batch.noise()])
        near = noised + NUDGE * level.repeat(2, 1, 1, 1) * torch.cat([batch.noise(), batch.noise()])
        twice = Cond(*(None if part is None else part.repeat(2, *[1] * (part.dim() - 1)) for part in
                       (batch.cond.label, batch.cond.warp)))  # fmt: skip
        with torch.no_grad(), bf16(x.device):
            seen, beside = (teacher.model.features(n, sigma.repeat(2), twice).float() for n in (noised, near))
        logit = head(seen, twice.label)
        flat = (logit - head(beside, twice.label)).square().mean()  # R1 without second derivatives (Lin et al. 2025)
        state.learners["critic"].learn(adversarial.critic_loss(*logit.chunk(2)) + flat)


def _bound(net: nn.Module, teacher: Teacher) -> Model:
    return Model(net, teacher.model.process)


def ddgan_lesson(state: State, batch: Batch, teacher: Teacher, settings: StudentSettings) -> Tensor:
    """The critic learns to tell true steps of the chain from the student's, then the student to make steps it takes for true."""
    critic, label = state.learners["critic"], batch.cond.label
    near, fake, x, to, sigma = _steps(state, batch, settings, learning=False)
    change = adversarial.draw_change(len(x), batch.generator)
    penalised = state.step % PENALTY_EVERY == 0
    near = near.requires_grad_(penalised)
    with bf16(x.device) if not penalised else nullcontext():  # second derivatives in full precision
        real = _judged(critic.net, near, x, to, sigma, label, change)
        loss = adversarial.critic_loss(real, _judged(critic.net, fake, x, to, sigma, label, change))
        if penalised:
            loss = loss + PENALTY / 2 * adversarial.steepness(real, near)
    critic.learn(loss)
    critic.net.requires_grad_(False)
    turn = state.step >= settings.training_steps * ALONE
    _, fake, x, to, sigma = _steps(state, batch, settings, learning=turn)
    change = adversarial.draw_change(len(x), batch.generator)
    with bf16(x.device):
        fooling = adversarial.fooling_loss(_judged(critic.net, fake, x, to, sigma, label, change))
    if turn:
        state.learners["student"].learn(fooling)
    critic.net.requires_grad_(True)
    return fooling.detach()


def _steps(
    state: State, batch: Batch, settings: StudentSettings, *, learning: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(a true x at `to`, the student's, the x at sigma they come from, to (B,), sigma (B,)) of one step of the chain an image."""
    levels = torch.tensor(settings.grid)
    which, sigma = batch.levels(levels[:-1])
    to = levels[which + 1].to(sigma)
    s, t = sigma[:, None, None, None], to[:, None, None, None]
    near, x = adversarial.forward_pair(batch.x0, s, t, batch.noise(), batch.noise())
    latent = torch.randn(len(x), settings.latent, generator=batch.generator).to(x) if settings.latent else None
    with torch.set_grad_enabled(learning), bf16(x.device):
        x0 = state.model(x, sigma, replace(batch.cond, latent=latent))
    return near, adversarial.posterior(x0, x, s, t, batch.noise()), x, to, sigma


def _judged(
    critic: nn.Module, near: Tensor, x: Tensor, to: Tensor, sigma: Tensor, label: Tensor | None, change: Tensor
) -> Tensor:
    both = adversarial.changed(torch.cat([near, x], 1), change)
    logit: Tensor = critic(*both.chunk(2, 1), to, sigma, label)
    return logit


LESSONS: dict[str, Callable[[State, Batch, Teacher, StudentSettings], Tensor | None]] = {
    "consistency": consistency_lesson,
    "paths": paths_lesson,
    "fdistill": fdistill_lesson,
    "ddgan": ddgan_lesson,
}
