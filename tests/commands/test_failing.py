"""What `--fail-on` names, and which findings count as wrong."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mgdm_cli import app
from mgdm_cli.commands.concluding import label_verdict, labels_hold_less
from mgdm_cli.commands.failing import looks_of
from mgdm_cli.data.phantom_set import PATIENT_REGEX, write_set
from mgdm_cli.errors import GATE, OK, USAGE, UsageError
from tests.commands.test_concluding import agreed, gain, weighed


def test_looks_are_named_or_none() -> None:
    assert looks_of("copies,leaks", weighed=False) == ("copies", "leaks")
    assert looks_of("utility, labels", weighed=True) == ("labels", "utility")
    assert looks_of("none", weighed=False) == ()
    for text, weighed_too, said in (
        ("copy", False, "none of the looks"),
        ("utility", False, "worth"),
        ("", True, "none"),
    ):
        with pytest.raises(UsageError, match=said):
            looks_of(text, weighed=weighed_too)


@pytest.mark.parametrize(("real", "less"), [(0.95, False), (1.0, False), (None, False), (0.55, False)])
def test_labels_that_hold_do_not_fail(real: float | None, less: bool) -> None:
    assert labels_hold_less(agreed(1000, real=real), 2) is less  # type: ignore[arg-type]


def test_labels_fail_where_the_verdict_says_that_they_hold_less() -> None:
    row, own = agreed(1000)
    wrong = replace(row, share=0.7, lo=0.67, hi=0.73)
    assert labels_hold_less((wrong, own), 2)
    assert "less often" in label_verdict((wrong, own), 2)[0].line
    blind = (replace(wrong, real=0.55), replace(own, real=0.55))  # judges that cannot tell real images apart
    assert not labels_hold_less(blind, 2)
    assert not labels_hold_less((), 2)


def test_what_hurts_is_a_made_arm_beyond_doubt() -> None:
    assert weighed(gain("real", -0.05, -0.01)).hurting == ("made",)
    assert weighed(gain("real", -0.05, 0.01), gain("dup", -0.05, -0.01)).hurting == ()
    assert weighed(gain("real", -0.05, -0.01, seeds=1)).hurting == ()


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
    code, document = end("--fail-on", "none")
    assert code == document["exit_code"] == OK
    assert document["fail_on"] == []
    assert "copies" in document["failed"]  # type: ignore[operator]
    assert app.main([*map(str, words), "--fail-on", "utility"]) == USAGE
