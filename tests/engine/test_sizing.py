"""How long a training is: what a budget holds, in batches that suit it, at a pace that was measured with them."""

from __future__ import annotations

import pytest

from mgdm_cli.engine import sizing
from mgdm_cli.engine.preparing import Prepared, pictures
from mgdm_cli.engine.run import RunSettings
from mgdm_cli.engine.sizing import CLASSIFIER_SEEN, OVERHEAD, SHORT, SMALL_BATCH, Pace, fit_to_budget, fitted, of_length
from mgdm_cli.errors import NeedsTraining
from tests.tiny import CPU, tiny_run, tiny_set


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, RunSettings]:
    root = tmp_path_factory.mktemp("sizing")
    return tiny_run(root / "run", tiny_set(root / "set"), trained=False)


def whole(settings: RunSettings) -> RunSettings:
    """The tiny run's settings with the usual batch and least length."""
    train = type(settings.train)(seen=sizing.LEAST_TUNED)
    return settings.model_copy(update={"train": train})


def test_few_images_are_seen_in_small_batches(begun: tuple[Prepared, RunSettings]) -> None:
    settings, pace = whole(begun[1]), Pace(10.0, 100.0)
    usual = settings.train.batch
    assert of_length(settings, SHORT - 1).train.batch == SMALL_BATCH < usual
    assert of_length(settings, SHORT).train.batch == usual
    spent = OVERHEAD * (SHORT / 10 + 2 * CLASSIFIER_SEEN[1] / 100)
    assert fit_to_budget(settings, pace, seconds=spent / 2).train.batch == SMALL_BATCH
    assert fit_to_budget(settings, pace, seconds=2 * spent).train.batch == usual


def test_a_budget_is_kept_at_the_measured_pace(begun: tuple[Prepared, RunSettings]) -> None:
    settings, pace = whole(begun[1]), Pace(10.0, 100.0)
    for seconds in (1200.0, 4000.0):
        found = fit_to_budget(settings, pace, seconds=seconds)
        assert 0.95 * seconds < pace.seconds(found.train.seen, found.classifier_seen) <= seconds
    with pytest.raises(NeedsTraining, match="at least"):
        fit_to_budget(settings, pace, seconds=60.0)


def test_small_batches_are_timed_themselves(
    begun: tuple[Prepared, RunSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At half the pace a budget holds half as many images; what was measured of the usual batch would overrun it."""
    prepared, settings = begun[0], whole(begun[1])
    data = pictures(prepared, prepared.splits.train, CPU)
    monkeypatch.setattr(
        sizing, "measure", lambda settings, *_: Pace(5.0 if settings.train.batch == SMALL_BATCH else 10.0, 100.0)
    )
    found, pace = fitted(settings, data, CPU, seconds=1600.0, seen=None)
    assert (found.train.batch, pace.denoiser) == (SMALL_BATCH, 5.0)
    assert pace.seconds(found.train.seen, found.classifier_seen) <= 1600.0
    with pytest.raises(NeedsTraining):
        fitted(settings, data, CPU, seconds=900.0, seen=None)  # at 10 a second it would do
    long, pace = fitted(settings, data, CPU, seconds=None, seen=SHORT)
    assert (long.train.batch, pace.denoiser) == (settings.train.batch, 10.0)


def test_a_training_of_one_step_can_be_timed(begun: tuple[Prepared, RunSettings]) -> None:
    prepared, settings = begun[0], whole(begun[1])
    found, pace = fitted(settings, pictures(prepared, prepared.splits.train, CPU), CPU, seconds=None, seen=1)
    assert found.train.steps == 1
    assert pace.denoiser > 0
