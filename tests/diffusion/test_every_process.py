"""Every process learns in the one training loop, and a run of each makes images under every sampler."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mgdm_cli.commands import train as train_command
from mgdm_cli.commands.modelling import prepare
from mgdm_cli.commands.reading import Source
from mgdm_cli.data.plan import Filters, Recipe
from mgdm_cli.diffusion.inversion import decode, invert, psnr
from mgdm_cli.diffusion.model import Model
from mgdm_cli.diffusion.process import PROCESSES
from mgdm_cli.diffusion.samplers import SAMPLERS
from mgdm_cli.diffusion.types import Cond
from mgdm_cli.engine import bases, preparing, sizing, warp
from mgdm_cli.engine.decoding import Parts, make_block
from mgdm_cli.engine.preparing import Prepared
from mgdm_cli.engine.run import write_settings
from mgdm_cli.engine.training import Pictures, TrainSettings, begin, finished, holdout_loss, train
from mgdm_cli.errors import OtherPlan, UsageError
from mgdm_cli.nets.unet import UNet, UNetSettings
from tests.tiny import CPU, tiny_set


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return tiny_set(tmp_path_factory.mktemp("process") / "set")


@pytest.fixture(scope="module")
def prepared(source: Source) -> Prepared:
    return prepare(source, seed=0)


def blobs(n: int, seed: int) -> Pictures:
    """(n, 1, 8, 8) soft bright spots, on the left in class 0 and on the right in class 1."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(n) % 2
    column = 2 + 3 * label + torch.rand(n, generator=generator)
    row = 2 + 3 * torch.rand(n, generator=generator)
    grid = torch.arange(8.0)
    away = (grid[:, None] - row[:, None, None]).square() + (grid - column[:, None, None]).square()
    return Pictures((2 * torch.exp(-away / 6) - 1)[:, None], label)


@pytest.fixture(scope="module", params=sorted(PROCESSES))
def learnt(request: pytest.FixtureRequest) -> tuple[Parts, float, float]:
    """(a denoiser of this process after 120 steps, its loss on the holdout before, and after)."""
    data, holdout = blobs(64, 0), blobs(32, 1)
    spread = float(data.x0.std())
    torch.manual_seed(0)
    net = UNet(UNetSettings(1, 2, width=16, widths=(1,), blocks=1, attention=(False,), warp=warp.WIDTH))
    settings = sizing.PROCESS_SETTINGS.get(request.param, {})
    model = Model(net, PROCESSES[request.param](sigma_data=spread, **settings))
    learn = TrainSettings(seen=1920, rate=1.5e-2, warm_up=5, check_every=1000)
    before, state = holdout_loss(model, holdout), begin(model, learn)
    list(train(state, data, holdout, learn, warp=warp.WarpSettings(probability=0.0)))
    model.net.load_state_dict(finished(state, learn))
    model.requires_grad_(False).eval()
    return Parts(model, None, None, (1, 8, 8), spread, CPU), before, holdout_loss(model, holdout)


def test_the_loss_falls(learnt: tuple[Parts, float, float]) -> None:
    _, before, after = learnt
    assert 0.9 < before < 1.7  # the net answers 0 at first, see `denoising_loss`; the blobs' mean is not 0
    assert after < 0.7 * before


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_model_of_any_process_samples_under_any_sampler(learnt: tuple[Parts, float, float], sampler: str) -> None:
    """The images are finite, lie in the range, answer to their seeds, and are no longer noise."""
    steps = 40 if sampler in ("sde", "langevin") else 8  # these two need small steps, and say so
    parts, recipe = learnt[0], Recipe(process="edm", sampler=sampler, steps=steps, filters=Filters(label=False))
    made = make_block(parts, recipe, run_seed=1, lot=0, attempt=0, block=2, class_index=0).after
    assert float(made.abs().max()) <= 1
    assert float((made[0] - made[1]).abs().max()) > 0.1
    rough = (made.diff(dim=-1).square().mean() / made.var()).item()
    assert rough < 1.5  # neighbours of pure noise differ by 2 variances


def test_a_picture_comes_back_from_its_noise(learnt: tuple[Parts, float, float]) -> None:
    """A trained net is no exact denoiser, and no map that contracts: 25 steps there and back stay above 40 dB all the same."""
    denoise, grid = learnt[0].model.bind(Cond(torch.tensor([0, 1]))), learnt[0].model.process.grid(25)
    x0 = blobs(2, 5).x0
    *_, (x, _) = invert(denoise, x0, grid)
    *_, found = decode(denoise, x, grid)
    assert float(psnr(found, x0).min()) > 40


def test_the_flag_reaches_the_run(source: Source, prepared: Prepared, tmp_path: Path) -> None:
    data = preparing.pictures(prepared, prepared.splits.train, CPU)
    words = {"seed": 0, "flip": False, "date": "20260101"}
    made = sizing.settings_for(prepared, data, process="flow", **words)  # type: ignore[arg-type]
    assert (made.process, made.process_settings, made.base) == ("flow", {}, "")
    with pytest.raises(UsageError, match="--process: 'fow' is not known"):
        sizing.settings_for(prepared, data, process="fow", **words)  # type: ignore[arg-type]
    (tmp_path / "run").mkdir()
    write_settings(tmp_path / "run", made)
    with pytest.raises(OtherPlan, match="--process flow"):
        train_command.run(source, out=tmp_path / "run", process="vp")
    document = train_command.run(source, out=tmp_path / "new", process="vp", width=8, seen=64, dry_run=True).document
    assert document["seen"] == 64
    assert not (tmp_path / "new").exists()


def test_no_run_of_another_process_starts_from_an_edm_base(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    data = preparing.pictures(prepared, prepared.splits.train, CPU)
    words = {"seed": 0, "flip": False, "date": "20260101", "process": "vp"}
    with pytest.raises(UsageError, match="predicts something else"):
        sizing.settings_for(prepared, data, base="grey64", **words)  # type: ignore[arg-type]

    def never(*_: object) -> bases.Base | None:
        raise AssertionError("a base was looked for")

    monkeypatch.setattr(bases, "fitting", never)
    assert sizing.settings_for(prepared, data, **words).base == ""  # type: ignore[arg-type]
