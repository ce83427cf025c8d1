"""What `evaluate` takes another folder for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mgdm_cli.data.folder import scan
from mgdm_cli.data.labels import folder_of
from mgdm_cli.engine.judging import others
from mgdm_cli.engine.preparing import prepare
from mgdm_cli.errors import BadInput

CLASSES = ("Glioma größer 2 cm", "kein Tumor")


def filled(root: Path, folders: tuple[str, ...], seed: int) -> Path:
    from PIL import Image as Pillow

    rng = np.random.default_rng(seed)
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for i in range(4):
            Pillow.fromarray(rng.integers(0, 256, (16, 16)).astype(np.uint8)).save(root / folder / f"{i}.png")
    return root


def test_the_folders_of_an_output_stand_for_their_classes(tmp_path: Path) -> None:
    prepared = prepare(scan(filled(tmp_path / "real", CLASSES, 0)))
    assert prepared.classes == CLASSES
    made = filled(tmp_path / "out/images", tuple(folder_of(name) for name in CLASSES), 1).parent
    plain = filled(tmp_path / "plain", CLASSES, 2)
    for root in (made, plain):
        records, found = others(root, prepared, synthetic=True)
        assert {record.label for record in records} == set(CLASSES)
        assert found.records == records
    with pytest.raises(BadInput, match="kein_Tumor is none of the real set"):
        others(filled(tmp_path / "other", ("kein_Tumor",), 3), prepared, synthetic=True)
