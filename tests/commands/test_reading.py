"""What one verb can read, every verb can: the flags of the real images are one list."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from mgdm_cli.app import load
from mgdm_cli.commands import options
from mgdm_cli.commands.reading import LEARNING, Source, reads_images

FIELDS = {field.name for field in fields(Source)}


@pytest.mark.parametrize(
    ("verb", "without"),
    [("inspect", LEARNING), ("train", ()), ("augment", ()), ("evaluate", ()), ("distill", ("size", "fit", "require_patient_id"))],
)  # fmt: skip
def test_a_verb_takes_every_flag_of_the_real_images(verb: str, without: tuple[str, ...]) -> None:
    taken = {parameter.name for parameter in load(verb).params}
    assert FIELDS & taken == FIELDS - set(without)
    assert {"config", "as_json", "quiet"} <= taken


def test_a_command_is_given_its_source_and_its_own_flags() -> None:
    heard: list[tuple[Source, int]] = []

    @reads_images(but=("nan",))
    def command(folder: Source, seed: options.Seed = 0) -> None:
        heard.append((folder, seed))

    said = {name: getattr(Source(Path("in")), name) for name in FIELDS - {"nan"}}
    command(**said | {"skip_bad": True, "seed": 3})
    assert heard == [(Source(Path("in"), skip_bad=True), 3)]
