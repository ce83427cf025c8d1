"""Denoising diffusion GANs on 25 Gaussians: do few adversarial steps find all modes, and how many does one step find?

    python -m benchmarks.gaussians

A grid of 5 x 5 normal laws whose spread is a tenth of their distance, scaled to unit variance. Generator and critic are plain nets of three
hidden layers; losses, chain and posterior are those of `mgdm distill --method ddgan` (Xiao et al. 2022). A sample is good within three
spreads of a centre, and a centre is covered that gets a tenth of its share of good samples. Each number of steps trains equally long.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.keeping import keep
from mgdm_cli.diffusion.adversarial import critic_loss, few, fooling_loss, forward_pair, posterior, steepness
from mgdm_cli.engine.device import make_deterministic

CENTRES = torch.tensor([[float(i), float(j)] for i in range(-2, 3) for j in range(-2, 3)]) / 2**0.5
SPREAD = 0.1 / 2**0.5
HI, LATENT, BATCH, RATE, BETAS = 200.0, 2, 1024, 1e-3, (0.5, 0.9)
PENALTY, PENALTY_EVERY, AVERAGE = 0.05, 15, 0.002
DRAWN = 5000


def plain(inside: int, outside: int, width: int = 256) -> nn.Sequential:
    """Three hidden layers."""
    layers: list[nn.Module] = []
    for now, then in ((inside, width), (width, width), (width, width)):
        layers += [nn.Linear(now, then), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Linear(width, outside))


def _unit(x: Tensor, sigma: Tensor) -> Tensor:
    return (x / (sigma.square() + 1).sqrt()).flatten(1)


def _told(sigma: Tensor) -> Tensor:
    return sigma.flatten(1).log() / 3


class Chain:
    """A generator of x0 from x, sigma and a latent, on its grid of sigmas."""

    def __init__(self, steps: int) -> None:
        self.grid = torch.tensor(few(steps, HI))
        self.net, self.critic = plain(2 + 1 + LATENT, 2), plain(4 + 1, 1)
        self.average = {name: value.clone() for name, value in self.net.state_dict().items()}

    def x0(self, x: Tensor, sigma: Tensor) -> Tensor:
        """(B, 2, 1, 1): a draw of the picture behind x at sigma (B, 1, 1, 1)."""
        answer: Tensor = self.net(torch.cat([_unit(x, sigma), _told(sigma), torch.randn(len(x), LATENT)], 1))
        return answer[:, :, None, None]

    def logit(self, near: Tensor, x: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
        """(B,): whether `near` at `to` is a true step from x at sigma."""
        answer: Tensor = self.critic(torch.cat([_unit(near, to), _unit(x, sigma), _told(sigma)], 1))
        return answer[:, 0]

    def pairs(self, *, learning: bool) -> tuple[Tensor, ...]:
        """(true x at `to`, the generator's, x at sigma, sigma, to) of one step each."""
        x0 = (CENTRES[torch.randint(25, (BATCH,))] + SPREAD * torch.randn(BATCH, 2))[:, :, None, None]
        which = torch.randint(len(self.grid) - 1, (BATCH,))
        sigma, to = (self.grid[which + more][:, None, None, None] for more in (0, 1))
        near, x = forward_pair(x0, sigma, to, torch.randn_like(x0), torch.randn_like(x0))
        with torch.set_grad_enabled(learning):
            fake = posterior(self.x0(x, sigma), x, sigma, to, torch.randn_like(x0))
        return near, fake, x, sigma, to

    @torch.no_grad()
    def drawn(self) -> Tensor:
        """(DRAWN, 2) samples of the average generator."""
        now = {name: value.clone() for name, value in self.net.state_dict().items()}
        self.net.load_state_dict(self.average)
        x = torch.randn(DRAWN, 2, 1, 1) * self.grid[0]
        for level, then in zip(self.grid[:-1], self.grid[1:], strict=True):
            sigma, to = (value.expand(DRAWN, 1, 1, 1) for value in (level, then))
            x = posterior(self.x0(x, sigma), x, sigma, to, torch.randn_like(x))
        self.net.load_state_dict(now)
        return x.flatten(1)


def trained(steps: int, iterations: int, seed: int) -> Chain:
    """A chain of so many steps after so many turns of critic and generator."""
    torch.manual_seed(seed)
    chain = Chain(steps)
    maker, critic = (
        torch.optim.Adam(net.parameters(), lr=RATE, betas=BETAS, fused=True) for net in (chain.net, chain.critic)
    )
    for turn in range(iterations):
        for group in [*maker.param_groups, *critic.param_groups]:
            group["lr"] = RATE * (1 - turn / iterations) + 1e-6
        near, fake, x, sigma, to = chain.pairs(learning=False)
        near.requires_grad_(turn % PENALTY_EVERY == 0)
        real = chain.logit(near, x, sigma, to)
        loss = critic_loss(real, chain.logit(fake, x, sigma, to))
        if turn % PENALTY_EVERY == 0:
            loss = loss + PENALTY / 2 * steepness(real, near)
        _step(critic, loss)
        _, fake, x, sigma, to = chain.pairs(learning=True)
        _step(maker, fooling_loss(chain.logit(fake, x, sigma, to)))
        with torch.no_grad():
            for name, value in chain.net.state_dict().items():
                chain.average[name].lerp_(value, AVERAGE if turn > 200 else 1.0)
    return chain


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def score(samples: Tensor) -> dict[str, Any]:
    """How many of the 25 centres are covered, and which share of the samples is good."""
    away, nearest = (samples[:, None] - CENTRES).norm(dim=2).min(1)
    good = away < 3 * SPREAD
    found = torch.bincount(nearest[good], minlength=25)
    return {"covered": int((found >= 0.1 * len(samples) / 25).sum()), "good": round(float(good.float().mean()), 3)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, write benchmarks/results/gaussians.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", default="1,4")
    parser.add_argument("--iterations", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=1)
    asked = parser.parse_args(arguments)
    make_deterministic()
    torch.manual_seed(0)
    real = CENTRES[torch.randint(25, (DRAWN,))] + SPREAD * torch.randn(DRAWN, 2)
    rows: dict[str, Any] = {"the law itself": [score(real)]}
    for steps in (int(text) for text in asked.steps.split(",")):
        rows[f"{steps} steps"] = []
        for seed in range(asked.seeds):
            started = time.monotonic()
            found = score(trained(steps, asked.iterations, seed).drawn())
            rows[f"{steps} steps"].append({**found, "seconds": round(time.monotonic() - started)})
            sys.stdout.write(f"{steps} steps, seed {seed}: {rows[f'{steps} steps'][-1]}\n")
            sys.stdout.flush()
    keep("gaussians", {"iterations": asked.iterations, "rows": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
