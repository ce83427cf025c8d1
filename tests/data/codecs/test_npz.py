"""npz: rows, labels and splits as in MedMNIST."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgdm_cli.data import codecs
from mgdm_cli.data.codecs import npz
from mgdm_cli.errors import BadInput


def stored(tmp_path: Path, **arrays: Any) -> Path:
    path = tmp_path / "set.npz"
    np.savez_compressed(path, **arrays)
    return path


def images(n: int, *shape: int) -> Any:
    return np.random.default_rng(n).integers(0, 256, (n, *shape)).astype(np.uint8)


def test_rows_run_through_train_val_test(tmp_path: Path) -> None:
    train, test = images(3, 8, 6), images(2, 8, 6)
    path = stored(
        tmp_path,
        test_images=test,
        test_labels=np.array([[1], [0]]),
        train_images=train,
        train_labels=np.array([[0], [1], [10]]),
    )
    assert codecs.sniff(path) is npz
    parts = npz.parts(path)
    assert [(part.index, part.label, part.split) for part in parts] == [
        (0, "0", "train"),
        (1, "1", "train"),
        (2, "10", "train"),
        (3, "1", "test"),
        (4, "0", "test"),
    ]
    np.testing.assert_array_equal(npz.read(path, 4).pixels[0], test[1])
    assert len({part.sha256 for part in parts}) == 5


def test_the_same_row_has_the_same_digest(tmp_path: Path) -> None:
    row = images(1, 5, 5)
    parts = npz.parts(stored(tmp_path, images=np.concatenate([row, row]), labels=np.array([0, 0])))
    assert parts[0].sha256 == parts[1].sha256
    assert parts[0].split is None


def test_colour_one_channel_and_float_labels(tmp_path: Path) -> None:
    parts = npz.parts(stored(tmp_path, train_images=images(2, 4, 5, 3), train_labels=np.array([1.0, 2.0])))
    assert (parts[0].form.channels, parts[1].label) == (3, "2")
    assert npz.parts(stored(tmp_path, train_images=images(3, 4, 5, 1)))[0].form.channels == 1


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"train_images": images(2, 4, 4), "train_labels": np.zeros((2, 14))}, "14 labels per image"),
        ({"train_images": images(2, 4, 4), "train_labels": np.zeros(3)}, "2 images and 3 labels"),
        ({"train_images": images(2, 4, 4, 4)}, "shape"),
        ({"train_images": np.array([{"a": 1}], dtype=object)}, "decoded"),  # a pickle: never loaded
    ],
)
def test_what_cannot_be_learnt_from_is_refused(arrays: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=why):
        npz.parts(stored(tmp_path, **arrays))


def test_other_archives_are_not_claimed(tmp_path: Path) -> None:
    assert codecs.sniff(stored(tmp_path, weights=np.zeros(3))) is None
