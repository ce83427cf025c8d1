"""The harness on sets whose worth is known: wrong labels hurt, copies change nothing, more real images help."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mgdm_cli.engine import utility
from mgdm_cli.engine.training import Pictures
from mgdm_cli.engine.utility import Arm, Bench, Cell, CellSettings, Table
from mgdm_cli.engine.utility_jobs import run_cells
from mgdm_cli.errors import UsageError
from mgdm_cli.metrics.utility import Gain, gain

# Seven images of a class are too few for these; a smaller net has nothing left to gain.
NETS = ("resnet", "densenet")
SEEDS = 2
SETTINGS = CellSettings(steps=40, batch=24)


def toy(each: int, seed: int) -> Pictures:
    """Three classes of 16 x 16: a soft spot in one of three corners, faint in noise and anywhere near it."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(3 * each) % 3
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    centre = torch.tensor([[4.0, 4.0], [4.0, 11.0], [11.0, 4.0]])[label] + 1.5 * torch.randn(
        len(label), 2, generator=generator
    )
    apart = (rows - centre[:, :1, None]).square() + (columns - centre[:, 1:, None]).square()
    spot = 0.9 * torch.exp(-apart / 8)
    x0 = spot + 0.45 * torch.randn(len(label), 16, 16, generator=generator) - 0.3
    return Pictures(x0[:, None].clamp(-1, 1), label)


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(toy(7, 0), toy(60, 1), 3)


@pytest.fixture(scope="module")
def arms(bench: Bench) -> tuple[Arm, ...]:
    more = toy(150, 2)
    shuffled = Pictures(more.x0, (more.label + 1) % 3)
    return (Arm("real", None), Arm("copy", bench.real, True), Arm("shuffled", shuffled, True), Arm("more", more, True))


@pytest.fixture(scope="module")
def gains(bench: Bench, arms: tuple[Arm, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Gain]:
    table = Table(tmp_path_factory.mktemp("cells"), bench, arms, NETS, SEEDS, SETTINGS)
    assert [p.done for p in run_cells(table)] == list(range(1, len(table.paths()) + 1))
    found, nets = table.found()
    assert nets == NETS
    assert {name: p.shape for name, p in found.items()} == {a.name: (2, 2, 180, 3) for a in arms}
    label = bench.test.label.numpy()
    return {name: gain(name, "real", p, found["real"], label, nets) for name, p in found.items() if name != "real"}


@pytest.mark.parametrize(("arm", "least", "most"), [("shuffled", -1.0, -0.1), ("copy", 0.0, 0.0), ("more", 0.1, 1.0)])
def test_the_gain_is_the_known_one(gains: dict[str, Gain], arm: str, least: float, most: float) -> None:
    """By both nets; of two that differ as these do no verdict on others follows."""
    assert all(least <= net.value <= most for net in gains[arm].nets)
    assert gains[arm].verdict != ("hurts" if least > 0 else "helps")


def test_a_copy_of_the_real_images_changes_nothing_at_all(bench: Bench) -> None:
    """The pool holds the same images: coins choose between equals, so the cells are equal to the bit."""
    settings = replace(SETTINGS, steps=4)
    plain = utility.trained(bench, Arm("real", None), "lenet", 0, settings)
    assert torch.equal(plain, utility.trained(bench, Arm("copy", bench.real), "lenet", 0, settings))
    assert torch.equal(plain, utility.trained(bench, Arm("real", None), "lenet", 0, settings))
    assert not torch.equal(plain, utility.trained(bench, Arm("real", None), "lenet", 1, settings))


def test_cells_are_kept_and_known_by_what_decides_them(bench: Bench, arms: tuple[Arm, ...], tmp_path: Path) -> None:
    table = Table(tmp_path, bench, arms[:2], ("lenet",), 1, replace(SETTINGS, steps=2))
    assert all(p.seconds > 0 for p in run_cells(table))
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert all(p.seconds == 0 for p in run_cells(table))
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    paths, threads = table.paths(), torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    assert table.paths() == paths  # --jobs decides the threads: another number continues
    torch.set_num_threads(threads)
    renamed = replace(table, arms=(arms[0], replace(arms[1], name="other")))
    assert renamed.paths()[Cell("other", "lenet", 0)].is_file()  # the name does not count, the images do
    changed, later = replace(arms[1], pool=toy(7, 8)), Cell("copy", "lenet", 1)
    for other, cell in (
        (replace(table, arms=(arms[0], changed)), Cell("copy", "lenet", 0)),
        (replace(table, seeds=2), later),
        (replace(table, settings=replace(table.settings, batch=8)), Cell("copy", "lenet", 0)),
        (replace(table, bench=replace(bench, test=toy(5, 9))), Cell("copy", "lenet", 0)),
    ):
        assert not other.paths()[cell].is_file()


def test_when_time_runs_out_a_smaller_table_is_left(bench: Bench, arms: tuple[Arm, ...], tmp_path: Path) -> None:
    table = Table(tmp_path, bench, arms[:2], NETS, 2, replace(SETTINGS, steps=1))
    budget = iter([True] * 5)
    assert len(list(run_cells(table, go_on=lambda longest: next(budget, False)))) == 5
    found, nets = table.found()
    assert nets == NETS
    assert found["real"].shape[:2] == (2, 1)  # the second seed is torn
    assert replace(table, nets=("vgg",)).found() == ({}, ())
    list(run_cells(table))
    assert table.found()[0]["copy"].shape[:2] == (2, 2)


def test_a_net_that_does_not_take_the_images_is_told_before_any_training(tmp_path: Path) -> None:
    """Four poolings leave nothing of a side of 16 that a first layer has made 4."""
    long = Pictures(torch.zeros(6, 1, 16, 256), torch.tensor([0, 1, 2] * 2))
    table = Table(tmp_path, Bench(long, long, 3), (Arm("real", None),), ("lenet", "vgg"), 1, replace(SETTINGS, steps=1))
    with pytest.raises(UsageError, match="--nets vgg: this net does not take images of 256 x 16 pixels"):
        list(run_cells(table))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="--nets vgg"):
        utility.seconds_per_step(table.bench, "vgg", table.settings)
    assert list(run_cells(replace(table, nets=("lenet",))))


@pytest.mark.slow  # two processes that import torch
def test_several_processes_give_the_same_cells(bench: Bench, arms: tuple[Arm, ...], tmp_path: Path) -> None:
    alone = Table(tmp_path / "alone", bench, arms[:2], ("lenet",), 2, replace(SETTINGS, steps=3))
    together = replace(alone, folder=tmp_path / "together")
    for table in (alone, together):
        table.folder.mkdir()
    list(run_cells(alone))
    once = iter([True])
    list(run_cells(together, go_on=lambda longest: next(once, False)))
    done = list(run_cells(together, jobs=2))
    assert sorted(p.done for p in done) == [1, 2, 3, 4]
    assert {p.cell for p in done} == set(together.paths())
    assert [p.seconds == 0 for p in done] == [True, False, False, False]
    one, other = alone.found()[0], together.found()[0]
    assert all(np.allclose(one[name], other[name], atol=1e-3) for name in one)
    late = replace(alone, folder=tmp_path)
    assert list(run_cells(late, jobs=2, go_on=lambda longest: False)) == []


def test_batches_hold_the_classes_in_equal_shares(bench: Bench) -> None:
    """Also where the pool lacks a class: its places go to real images."""
    pool = Pictures(torch.full((4, 1, 16, 16), 9.0), torch.tensor([0, 0, 1, 1]))
    draw = utility._Draw(bench, Arm("pool", pool))
    seen = [draw(30, torch.Generator().manual_seed(i)) for i in range(20)]
    label, bright = torch.cat([y for _, y in seen]), torch.cat([x.amax((1, 2, 3)) for x, _ in seen]) > 5
    assert torch.bincount(label).tolist() == [200, 200, 200]
    assert not bright[label == 2].any()
    assert 0.4 < float(bright[label < 2].float().mean()) < 0.6


def test_control_pools_have_the_counts_asked() -> None:
    real, counts = toy(7, 0), np.array([3, 20, 0])
    dup = utility.duplicates(real, counts)
    assert utility.counts_of(dup, 3).tolist() == [3, 20, 0]
    known = {x.numpy().tobytes() for x in real.x0}
    assert all(x.numpy().tobytes() in known for x in dup.x0)
    times = np.unique([x.numpy().tobytes() for x in dup.x0[dup.label == 1]], return_counts=True)[1]
    assert set(times) <= {2, 3}
    other = utility.classical(real, counts)
    assert utility.counts_of(other, 3).tolist() == [3, 20, 0]
    assert not any(x.numpy().tobytes() in known for x in other.x0)
    assert utility.counts_of(utility.trimmed(toy(9, 3), np.array([2, 99, 0])), 3).tolist() == [2, 9, 0]


def test_steps_follow_the_real_images_within_limits() -> None:
    assert [utility.steps_for(n) for n in (50, 1000, 10_000)] == [200, 313, 400]
