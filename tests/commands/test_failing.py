"""What `--fail-on` names, and which findings count as wrong."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mgdm_cli import app
from mgdm_cli.commands.concluding import label_verdict, labels_hold_less, labels_told
from mgdm_cli.commands.failing import looks_of, require_answerable
from mgdm_cli.commands.weighing import Asked, Weighed
from mgdm_cli.data.phantom_set import PATIENT_REGEX, write_set
from mgdm_cli.errors import GATE, OK, USAGE, UsageError
from mgdm_cli.metrics.utility import Gain
from tests.commands.test_concluding import agreed, gain, weighed


def test_looks_are_named_or_none() -> None:
    assert looks_of("copies,leaks") == ("copies", "leaks")
    assert looks_of("utility, labels,") == ("labels", "utility")
    assert looks_of("none") == ()
    assert looks_of("undecided") == ("copies", "leaks", "undecided")
    assert looks_of("undecided,labels") == ("labels", "undecided")
    for text in ("copy", "", "none,copies"):
        with pytest.raises(UsageError, match="is none of the looks"):
            looks_of(text)


def test_a_table_that_could_not_say_that_images_hurt_is_no_gate() -> None:
    require_answerable(("copies",), None)
    require_answerable(("utility",), Asked.of("dup,synthetic", "quick", 2, None))
    others = Asked.of("dup,gen", "quick", 3, None)  # say nothing of the set that is judged
    for asked in (None, others, Asked.of("synthetic", "quick", 1, None), Asked.of("synthetic", "vgg", 3, None)):
        with pytest.raises(UsageError, match="utility"):
            require_answerable(("utility",), asked)


@pytest.mark.parametrize("real", [0.95, 1.0, None, 0.55])
def test_labels_that_hold_do_not_fail(real: float | None) -> None:
    assert not labels_hold_less(agreed(1000, real=real), 2)  # type: ignore[arg-type]


def test_labels_fail_where_the_verdict_says_that_they_hold_less() -> None:
    row, own = agreed(1000)
    wrong = replace(row, share=0.7, lo=0.67, hi=0.73)
    assert labels_hold_less((wrong, own), 2)
    assert "less often" in label_verdict((wrong, own), 2)[0].line
    blind = (replace(wrong, skill=0.55), own)  # judges that cannot tell real images apart
    assert not labels_hold_less(blind, 2)
    assert not labels_hold_less((), 2)


def own(*gains: Gain) -> Weighed:
    """A table in which the set of --synthetic has these gains."""
    found = weighed(*(replace(g, arm="synthetic") for g in gains))
    return replace(found, rows=(*found.rows, replace(found.rows[-1], name="synthetic")))


def test_what_hurts_is_the_set_beyond_doubt() -> None:
    assert own(gain("real", -0.05, -0.01)).hurts
    assert not own(gain("real", -0.05, 0.01), gain("dup", -0.05, -0.01)).hurts
    assert not own(gain("real", -0.05, -0.01, seeds=1)).hurts
    assert not replace(own(gain("real", -0.05, -0.01)), cells=2).hurts  # half a table


def test_an_arm_to_compare_with_does_not_fail_the_set_that_is_judged() -> None:
    alone = weighed(gain("real", -0.05, -0.01))
    both = own(gain("real", -0.01, 0.05))
    assert not alone.hurts
    assert not alone.told
    assert not replace(both, gains=(*alone.gains, *both.gains)).hurts


def test_a_table_of_one_seed_or_half_a_table_decides_nothing() -> None:
    assert own(gain("real", -0.01, 0.05)).told
    assert not own(gain("real", -0.01, 0.05, seeds=1)).told
    assert not own(gain("real", -0.01, 0.05, nets=1)).told
    assert not replace(own(gain("real", -0.01, 0.05)), cells=2).told


@pytest.mark.parametrize(
    ("real", "lo", "told"),
    [(0.95, 0.94, True), (0.95, 0.80, False), (0.55, 0.50, False), (None, 0.9, False)],
)
def test_labels_are_decided_where_the_verdict_is_no_maybe(real: float | None, lo: float, told: bool) -> None:
    row, own = agreed(1000, real=real)  # type: ignore[arg-type]
    assert labels_told((replace(row, lo=lo), own), 2) is told


def test_copies_fail_unless_asked_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_set(tmp_path / "real", counts={"grade0": 60, "grade1": 40}, size=32, seed=0)
    for name in ("grade0", "grade1"):
        for path in sorted((tmp_path / "real" / name).iterdir())[:30]:
            target = tmp_path / "made" / name / f"made-{path.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    words = [
        "evaluate",
        "--real",
        tmp_path / "real",
        "--synthetic",
        tmp_path / "made",
        "--patient-regex",
        PATIENT_REGEX,
    ]
    words += ["--seen", 32, "--device", "cpu", "--out", tmp_path / "out", "--quiet"]

    def end(*more: str) -> tuple[int, dict[str, object]]:
        code = app.main([*map(str, words), *more])
        return code, json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))

    code, document = end()
    assert code == document["exit_code"] == GATE
    assert document["fail_on"] == ["copies", "leaks"]
    assert "copies" in document["failed"]  # type: ignore[operator]
    assert "failed: copies" in capsys.readouterr().out
    code, document = end("--fail-on", "labels")  # which so short a training cannot judge
    assert code == document["exit_code"] == OK
    assert document["fail_on"] == ["labels"]
    assert "copies" in document["failed"]  # type: ignore[operator]
    assert "labels" in document["undecided"]  # type: ignore[operator]
    assert "could not be decided: labels" in capsys.readouterr().out
    code, document = end("--fail-on", "labels,undecided")
    assert code == document["exit_code"] == GATE
    assert app.main([*map(str, words), "--fail-on", "utility"]) == USAGE
