"""Training: it learns, it resumes bit for bit, it stops when the holdout loss turns up, and its files are safe."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mgdm_cli.commands.reading import Source
from mgdm_cli.data.files import sha256_file
from mgdm_cli.engine import device, scaling, weights
from mgdm_cli.engine.classifying import ClassifySettings, train_classifier
from mgdm_cli.engine.preparing import pictures
from mgdm_cli.engine.pretraining import kept, pretrain, resume, save_checkpoint
from mgdm_cli.engine.run import DENOISER, GUIDE, JUDGE, RunSettings, new_model
from mgdm_cli.engine.training import Pictures, TrainSettings, TrainState, begin, finished, holdout_loss, train
from mgdm_cli.engine.warp import WarpSettings
from mgdm_cli.errors import BadInput, MissingInput
from mgdm_cli.nets.classifier import Classifier, ClassifierSettings
from tests.tiny import CPU, drain, mgdm, tiny_run

NO_WARP = WarpSettings(probability=0.0)


@pytest.fixture(scope="module")
def ready(
    ground: tuple[Source, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunSettings, Pictures, Pictures]:
    """What a training needs: settings, its pictures, those of the holdout."""
    prepared, settings = tiny_run(tmp_path_factory.mktemp("training") / "run", ground[0], trained=False)
    train, holdout = (pictures(prepared, part, CPU) for part in (prepared.splits.train, prepared.splits.holdout))
    return settings, train, holdout


@pytest.fixture
def begun(
    ready: tuple[RunSettings, Pictures, Pictures],
) -> tuple[TrainState, Pictures, Pictures, TrainSettings]:
    settings, data, holdout = ready
    return begin(new_model(settings, CPU), settings.train), data, holdout, settings.train


def test_the_loss_falls(begun: tuple[TrainState, Pictures, Pictures, TrainSettings]) -> None:
    state, data, holdout, settings = begun
    ticks = list(train(state, data, holdout, replace(settings, seen=800), warp=NO_WARP))
    assert ticks[-1].seen == 800
    first, last = ticks[0].loss, ticks[-1].loss
    assert first is not None
    assert last is not None
    assert last < 0.8 * first


def test_a_look_at_a_large_holdout_sees_every_class(ready: tuple[RunSettings, Pictures, Pictures]) -> None:
    """They lie in the order of their classes: the loss of the last one counts as much as that of the first."""
    settings, data, _ = ready
    model = new_model(settings, CPU)
    x0 = data.x0[:1].repeat(600, 1, 1, 1)
    plain = Pictures(x0, torch.zeros(600, dtype=torch.int64))
    noisy = Pictures(torch.cat([x0[:400], torch.randn_like(x0[:200]).clamp(-1, 1)]), plain.label)
    assert holdout_loss(model, noisy) > holdout_loss(model, plain)
    assert holdout_loss(model, Pictures(x0[:256], plain.label[:256])) > 0


@pytest.mark.parametrize("seed", [20260728123456, 2**63 - 1])
def test_every_seed_can_be_trained_from(begun: tuple[TrainState, Pictures, Pictures, TrainSettings], seed: int) -> None:
    """torch takes seeds of 64 bits; a step of a training has one of its own."""
    state, data, holdout, settings = begun
    drain(train(state, data, holdout, replace(settings, seen=8, seed=seed), warp=NO_WARP))
    net = Classifier(ClassifierSettings(data.x0.shape[1], 4, 0.5, width=8, widths=(1,)))
    drain(train_classifier(net, data, ClassifySettings(8, (0.02, 1.0), batch=8, seed=seed), warp=NO_WARP))
    assert device.step_seed(7, 12) == 7 * 1_000_003 + 12


def test_a_resumed_training_equals_an_uninterrupted_one(
    begun: tuple[TrainState, Pictures, Pictures, TrainSettings], tmp_path: Path
) -> None:
    state, data, holdout, settings = begun
    fresh = {k: v.clone() for k, v in state.model.net.state_dict().items()}
    drain(train(state, data, holdout, settings, warp=WarpSettings()))
    for stop in (1, 7):
        other = new_like(state, fresh, settings)
        for _ in train(other, data, holdout, settings, warp=WarpSettings(), tick_every=1):
            if other.step == stop:
                break
        save_checkpoint(tmp_path, other)
        again = new_like(state, {k: torch.zeros_like(v) for k, v in fresh.items()}, settings)
        assert list(resume(tmp_path, again)) == [f"continuing at step {stop}"]
        drain(train(again, data, holdout, settings, warp=WarpSettings()))
        for name, tensor in finished(state, settings).items():
            assert torch.equal(tensor, finished(again, settings)[name]), name
        assert again.history == state.history


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_within_a_step_waits_for_its_end(
    number: int, begun: tuple[TrainState, Pictures, Pictures, TrainSettings], tmp_path: Path
) -> None:
    """Between the optimizer's step and the average, where what is saved would not continue to the same bits."""
    state, data, holdout, settings = begun
    fresh = {k: v.clone() for k, v in state.model.net.state_dict().items()}
    drain(train(state, data, holdout, settings, warp=NO_WARP))
    other = new_like(state, fresh, settings)

    def told(optimizer: torch.optim.Optimizer, *_: object) -> None:
        if other.step == 4:  # the step after which the holdout is looked at
            os.kill(os.getpid(), number)

    def stop(number: int, frame: object) -> None:
        raise InterruptedError

    other.optimizer.register_step_post_hook(told)
    before = signal.signal(number, stop)
    try:
        with pytest.raises(InterruptedError):
            drain(train(other, data, holdout, settings, warp=NO_WARP))
    finally:
        signal.signal(number, before)
    assert other.whole
    assert other.step == 5
    save_checkpoint(tmp_path, other)
    again = new_like(state, fresh, settings)
    drain(resume(tmp_path, again))
    drain(train(again, data, holdout, settings, warp=NO_WARP))
    for name, tensor in finished(state, settings).items():
        assert torch.equal(tensor, finished(again, settings)[name]), name


def test_a_fault_within_a_step_is_known(begun: tuple[TrainState, Pictures, Pictures, TrainSettings]) -> None:
    state, data, holdout, settings = begun

    def fail(*_: object) -> None:
        raise MemoryError

    state.optimizer.register_step_post_hook(fail)
    with pytest.raises(MemoryError):
        drain(train(state, data, holdout, settings, warp=NO_WARP))
    assert not state.whole


@pytest.mark.parametrize("save_every", [0.0, 1e9])
def test_what_is_not_finite_is_never_saved(
    begun: tuple[TrainState, Pictures, Pictures, TrainSettings], tmp_path: Path, save_every: float
) -> None:
    """Weights that blow up end the training at the next look; the checkpoint before them goes on."""
    state, data, holdout, settings = begun
    longer = replace(settings, seen=40 * settings.batch)

    def spoil(*_: object) -> None:
        if state.step == 24:
            next(state.model.net.parameters()).data.fill_(torch.nan)

    state.optimizer.register_step_post_hook(spoil)
    save_checkpoint(tmp_path, state)
    ticks = train(state, data, holdout, longer, warp=NO_WARP)
    with pytest.raises(FloatingPointError):
        drain(kept(tmp_path, "denoiser", state, ticks, longer, save_every=save_every))
    again = new_like(state, {k: torch.zeros_like(v) for k, v in state.model.net.state_dict().items()}, longer)
    (said,) = resume(tmp_path, again)
    assert said == f"continuing at step {0 if save_every else 20}"
    assert all(bool(tensor.isfinite().all()) for tensor in again.tensors().values())


def test_a_training_stopped_at_a_look_still_puts_the_weak_model_aside(
    begun: tuple[TrainState, Pictures, Pictures, TrainSettings], tmp_path: Path
) -> None:
    state, data, holdout, settings = begun
    longer, called = replace(settings, seen=40 * settings.batch), list[int]()
    events = kept(
        tmp_path, "denoiser", state, train(state, data, holdout, longer, warp=NO_WARP), longer,
        save_every=1e9, each=lambda: called.append(state.step),
    )  # fmt: skip
    for event in events:
        if event.seen == 20 * settings.batch:
            events.close()  # type: ignore[attr-defined]
            break
    before = len(called)
    again = new_like(state, state.model.net.state_dict(), longer)
    more = train(again, data, holdout, longer, warp=NO_WARP)
    drain(kept(tmp_path, "denoiser", again, more, longer, save_every=1e9, each=lambda: called.append(again.step)))
    assert called[before] == 20, "where it was stopped, before any further step"


def new_like(state: TrainState, net: dict[str, torch.Tensor], settings: TrainSettings) -> TrainState:
    import copy

    model = copy.deepcopy(state.model)
    model.net.load_state_dict(net)
    return begin(model, settings)


def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(
    begun: tuple[TrainState, Pictures, Pictures, TrainSettings], tmp_path: Path
) -> None:
    state, data, holdout, settings = begun
    for _ in train(state, data, holdout, settings, warp=NO_WARP, tick_every=1):
        save_checkpoint(tmp_path, state)
        if state.step == 3:
            break
    files = sorted(tmp_path.glob("checkpoint-*.safetensors"))
    assert [f.name for f in files] == ["checkpoint-000000002.safetensors", "checkpoint-000000003.safetensors"]
    data_bytes = bytearray(files[-1].read_bytes())
    data_bytes[-1] ^= 1
    files[-1].write_bytes(data_bytes)
    said = list(resume(tmp_path, state))
    assert "damaged" in said[0]
    assert said[1] == "continuing at step 2"


def test_a_continued_training_says_first_what_was_learnt_before(ground: tuple[Source, Path], tmp_path: Path) -> None:
    """The first event of the denoiser holds the images of the earlier run, so that the time left is told from new ones alone."""
    prepared, settings = tiny_run(tmp_path / "run", ground[0], trained=False, seen=800)
    for stop in (0, 160):
        first = None
        events = pretrain(tmp_path / "run", prepared, settings, CPU)
        for event in events:
            if event.what != "denoiser":
                continue
            first = first or event
            if event.seen >= 160 + stop:
                break
        events.close()  # type: ignore[attr-defined]
        assert first is not None
        assert (first.seen, first.loss) == (stop, None)


def test_training_stops_when_the_holdout_turns_up(begun: tuple[TrainState, Pictures, Pictures, TrainSettings]) -> None:
    """A holdout that is pure noise gets worse as the net learns the data: the best average is kept, not the last."""
    state, data, _, settings = begun
    noise = Pictures(
        torch.randn(16, *data.x0.shape[1:], generator=torch.Generator().manual_seed(0)),
        torch.zeros(16, dtype=torch.int64),
    )
    long = replace(settings, seen=80_000, check_every=10, patience=2, turn=0.01, rate=3e-3)
    ticks = list(train(state, data, noise, long, warp=NO_WARP))
    assert ticks[-1].stopped
    assert state.step < long.steps
    assert finished(state, long) is state.best


def test_the_null_class_is_drawn_per_image(
    begun: tuple[TrainState, Pictures, Pictures, TrainSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Label dropout is a coin an image, not one a batch (a fault of the reference code)."""
    state, data, _, settings = begun
    met = []
    whole = type(state.model).forward

    def watch(self: object, x: torch.Tensor, sigma: torch.Tensor, cond: object) -> torch.Tensor:
        met.append(cond.label < 0)  # type: ignore[attr-defined]
        return whole(state.model, x, sigma, cond)  # type: ignore[arg-type]

    monkeypatch.setattr(type(state.model), "forward", watch)
    drain(
        train(
            state,
            data,
            Pictures(data.x0[:0], data.label[:0]),
            replace(settings, seen=240, drop_label=0.5),
            warp=NO_WARP,
        )
    )
    assert any(0 < int(dropped.sum()) < len(dropped) for dropped in met)


def test_weights_are_refused_when_damaged_missing_or_pickled(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights.save(path, {"a": torch.ones(2)}, {"kind": "x"})
    assert weights.load(path)[1] == {"kind": "x"}
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(BadInput, match="damaged"):
        weights.load(path)
    with pytest.raises(MissingInput):
        weights.load(tmp_path / "no.safetensors")
    with pytest.raises(BadInput, match="never pickled"):
        weights.load(tmp_path / "w.pt")


def test_train_killed_at_any_moment_ends_with_the_same_weights(ground: tuple[Source, Path], tmp_path: Path) -> None:
    """`mgdm train` under kill -9 in each of its parts, the same command again until it ends: the hashes of an uninterrupted run."""
    source = ground[0]
    prepared, settings = tiny_run(tmp_path / "whole", source, trained=False, seen=400)
    drain(pretrain(tmp_path / "whole", prepared, settings, CPU))
    broken, dice = tmp_path / "broken", random.Random(0)
    tiny_run(broken, source, trained=False, seen=400)
    command = mgdm(
        "train", "--data", str(source.data), "-o", str(broken), "--patient-regex", str(source.patient_regex),
        "--device", "cpu", "--quiet", "--save-every", "0s",
    )  # fmt: skip
    # within the guide, the judge, the denoiser twice, and the measuring of the scale
    for begun in ("lock", GUIDE, JUDGE, "checkpoint-000000030.sha256", DENOISER):
        child = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        while child.poll() is None and not (broken / begun).exists():
            time.sleep(0.005)
        time.sleep(dice.uniform(0.0, 0.3))
        child.kill()
        _, said = child.communicate()
        assert child.returncode == -signal.SIGKILL, said.decode()
    subprocess.run(command, check=True, capture_output=True)
    for name in (GUIDE, JUDGE, DENOISER):
        assert sha256_file(broken / name) == sha256_file(tmp_path / "whole" / name), name
    assert scaling.stored(broken) is not None
