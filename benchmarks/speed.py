"""Forward and training throughput of the U-Net beside its peers at equal parameters and equal FLOPs, and the machine's ceilings.

    pip install -e '.[bench]'
    python -m benchmarks.speed

Peers: `UNet2DModel` of diffusers and `DiffusionModelUNet` of MONAI, unconditional, of about the same number of parameters, on maps of a
size at which a forward costs about the same FLOPs as ours on a 64 px grey image. Each is run as its documentation does (float32) and
tuned by hand (channels last; where this processor is quick at it bfloat16: autocast, in inference weights as well, so that autocast has
nothing to convert; with `ONEDNN_MAX_CPU_ISA=AVX512_CORE` before the command one with AMX does without it). Ours stands there as `augment`
runs it, told noise and class once for the block; as it was trained, told for each image; and in the type that the tool does not choose
here. All take turns; the least of several rounds is shown beside the median, and how many times as long the peers take with its spread,
from round to round. Ceilings: a 2048 cube matrix product and a 3x3 convolution of 128 channels on 16 maps of 32x32, in the same run.
Beside them stand the convolutions of ours alone, each on maps of its own size: what is between the two shares is the price of everything
that is no convolution.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.distances import CPU
from benchmarks.keeping import keep, spread
from mgdm_cli.engine.device import computes_in_bf16, make_deterministic, pick
from mgdm_cli.engine.warp import WIDTH
from mgdm_cli.nets.layers import UnitConv, settle
from mgdm_cli.nets.unet import UNet, UNetSettings

LABELS = 3
OURS = "mgdm, 64 px"


@dataclass
class Rival:
    """A net and how it is called: `call(net, x, noise)`; `shape` of one input. `tuned`: channels last, and computing in `kind`; `once`:
    noise and class have one row in inference."""

    name: str
    net: nn.Module
    call: Callable[[nn.Module, Tensor, Tensor], Tensor]
    shape: tuple[int, int, int]
    tuned: bool
    kind: torch.dtype = torch.float32
    once: bool = False

    def context(self) -> Any:
        return torch.autocast("cpu", self.kind, enabled=self.kind != torch.float32)


def quick() -> torch.dtype:
    """What nets compute in on this processor."""
    return torch.bfloat16 if computes_in_bf16(CPU) else torch.float32


def named(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


def rivals(*, peers: bool = True) -> list[Rival]:
    """Ours, and each peer as documented and tuned."""
    ours = UNet(UNetSettings(1, LABELS, patch=2, warp=WIDTH)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    best, other = quick(), torch.float32 if computes_in_bf16(CPU) else torch.bfloat16
    found = [
        Rival(OURS, ours, _ours, (1, 64, 64), True, best, once=True),
        Rival("mgdm, told for each image", copy.deepcopy(ours), _ours, (1, 64, 64), True, best),
        Rival(f"mgdm, {named(other)}", copy.deepcopy(ours), _ours, (1, 64, 64), True, other, once=True),
    ]
    for tuned in (False, True) if peers else ():
        for name, net, call in _peers():
            if tuned:
                net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            how, kind = ("tuned", best) if tuned else ("as documented", torch.float32)
            found.append(Rival(f"{name}, {how}", net, call, (4, 32, 32), tuned, kind))
    return found


def _ours(net: nn.Module, x: Tensor, noise: Tensor) -> Tensor:
    out: Tensor = net(x, noise, torch.zeros(len(noise), dtype=torch.int64))
    return out


def _peers() -> list[tuple[str, nn.Module, Callable[[nn.Module, Tensor, Tensor], Tensor]]]:
    warnings.simplefilter("ignore")
    import diffusers
    from monai.networks import nets

    theirs: tuple[Any, Any] = (diffusers, nets)  # neither is typed
    one = theirs[0].UNet2DModel(
        sample_size=32, in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=(48, 104, 104), norm_num_groups=8,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    two = theirs[1].DiffusionModelUNet(
        spatial_dims=2, in_channels=4, out_channels=4, num_res_blocks=(2, 2, 2), channels=(48, 104, 104), norm_num_groups=8,
        attention_levels=(False, False, True), num_head_channels=52,
    )  # fmt: skip
    return [
        ("diffusers UNet2DModel", one, lambda net, x, noise: net(x, noise * 1000).sample),
        ("MONAI DiffusionModelUNet", two, lambda net, x, noise: net(x, noise * 1000)),
    ]


def ceilings(rounds: int) -> dict[str, float]:
    """GFLOP/s of a matrix product and a convolution, float32 and bfloat16: the best of `rounds`."""
    out = {}
    for name, kind in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a = torch.randn(2048, 2048).to(kind)
        out[f"matrix {name}"] = 2 * 2048**3 / _least(partial(torch.matmul, a, a), rounds) / 1e9
        conv = nn.Conv2d(128, 128, 3, padding=1, bias=False).to(kind).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = torch.randn(16, 128, 32, 32).to(kind).contiguous(memory_format=torch.channels_last)
        flop = 2 * 16 * 32 * 32 * 128 * 128 * 9
        with torch.no_grad():
            out[f"convolution {name}"] = flop / _least(partial(conv, x), rounds) / 1e9
    return {name: round(value, 1) for name, value in out.items()}


def _least(work: Callable[[], object], rounds: int) -> float:
    work()
    spans = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        spans.append(time.perf_counter() - started)
    return min(spans)


def flops(rival: Rival) -> float:
    """Floating-point operations of one forward of one image."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        rival.call(rival.net, torch.randn(1, *rival.shape), torch.rand(1))
    return float(counter.get_total_flops())


def convolutions(rival: Rival, batch: int) -> Callable[[], None]:
    """The convolutions of one inference call, in their order and nothing else."""
    met: list[tuple[Tensor, nn.Module]] = []
    net = copy.deepcopy(rival.net).eval().requires_grad_(False)
    settle(net)
    net = net.to(rival.kind)
    hooks = [
        layer.register_forward_pre_hook(lambda layer, args: met.append((torch.empty_like(args[0]), layer)))
        for layer in net.modules()
        if isinstance(layer, nn.Conv2d | UnitConv)
    ]
    with torch.no_grad(), rival.context():
        rival.call(net, torch.randn(batch, *rival.shape).to(memory_format=torch.channels_last), torch.full((1,), 0.3))
    for hook in hooks:
        hook.remove()
    for seen, _ in met:
        seen.normal_()

    def once() -> None:
        with torch.no_grad():
            for seen, layer in met:
                layer(seen)

    return once


def forward(rival: Rival, batch: int) -> Callable[[], None]:
    """One inference call."""
    x, noise = torch.randn(batch, *rival.shape), torch.full((1 if rival.once else batch,), 0.3)
    net = copy.deepcopy(rival.net).eval().requires_grad_(False)
    settle(net)
    if rival.tuned and rival.name != "mgdm, told for each image":
        net = net.to(rival.kind)

    def once() -> None:
        with torch.no_grad(), rival.context():
            rival.call(net, x.to(memory_format=torch.channels_last) if rival.tuned else x, noise)

    return once


def training(rival: Rival, batch: int) -> Callable[[], None]:
    """One training step."""
    x, noise = torch.randn(batch, *rival.shape), torch.rand(batch)
    optimizer = torch.optim.AdamW(rival.net.parameters(), lr=1e-4, fused=rival.tuned)

    def once() -> None:
        rival.net.train()
        with rival.context():
            out = rival.call(rival.net, x.to(memory_format=torch.channels_last) if rival.tuned else x, noise)
            loss = out.float().square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return once


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, write benchmarks/results/speed[_<instructions that it was held to>].json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args(arguments)
    make_deterministic()
    pick("cpu")
    nets = rivals()
    seconds: dict[str, dict[str, list[float]]] = {rival.name: {"forward": [], "training": []} for rival in nets}
    for what, maker in (("forward", forward), ("training", training)):
        work = {rival.name: maker(rival, asked.batch) for rival in nets}
        for once in work.values():
            once()
        for _ in range(asked.rounds):
            for name, once in work.items():
                started = time.perf_counter()
                once()
                seconds[name][what].append((time.perf_counter() - started) / asked.batch)
    top, kind = ceilings(asked.rounds), named(quick())
    ceiling = top[f"convolution {kind}"]
    alone = _least(convolutions(nets[0], asked.batch), asked.rounds) / asked.batch
    rows = {}
    for rival in nets:
        cost = flops(rival)
        row: dict[str, Any] = {
            "parameters": sum(p.numel() for p in rival.net.parameters()),
            "gflop_forward": round(cost / 1e9, 3),
        }
        for what in ("forward", "training"):
            best, middle = min(seconds[rival.name][what]), statistics.median(seconds[rival.name][what])
            row[what] = {"ms_least": round(best * 1e3, 2), "ms_median": round(middle * 1e3, 2)}
        row["times_as_long_as_ours"] = {
            what: spread([a / b for a, b in zip(seconds[rival.name][what], seconds[OURS][what], strict=True)], 2)
            for what in ("forward", "training")
        }
        row["gflop_per_s"] = round(cost / min(seconds[rival.name]["forward"]) / 1e9, 1)
        row["share_of_convolution_ceiling"] = round(row["gflop_per_s"] / ceiling, 3)
        if rival.name == OURS:
            row["convolutions_alone"] = {
                "ms_least": round(alone * 1e3, 2),
                "share_of_convolution_ceiling": round(cost / alone / 1e9 / ceiling, 3),
            }
        rows[rival.name] = row
        sys.stdout.write(f"{rival.name:42s} {row}\n")
    held = os.environ.get("ONEDNN_MAX_CPU_ISA", "").lower()
    document = {"batch": asked.batch, "threads": torch.get_num_threads(), "held_to": held, "computes_in": kind}
    keep("speed" + (f"_{held}" if held else ""), document | {"ceilings_gflop_per_s": top, "nets": rows})
    sys.stdout.write(f"ceilings (GFLOP/s): {top}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
