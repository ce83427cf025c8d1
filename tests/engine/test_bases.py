"""Base models: which fits, that a run starts from its weights, and that another file under the same name is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from mgdm_cli.commands import models
from mgdm_cli.engine import bases, sizing
from mgdm_cli.engine.preparing import pictures
from mgdm_cli.engine.pretraining import pretrain
from mgdm_cli.engine.run import DENOISER, RunSettings, first_weights, load_parts, write_settings
from mgdm_cli.errors import BadInput, UsageError
from mgdm_cli.nets.layers import unit
from mgdm_cli.nets.unet import UNet, UNetSettings
from tests.tiny import CPU, drain, tiny_set, tiny_settings

SMALL = UNetSettings(3, 7, width=8, widths=(1, 2), blocks=1, attention=(False, True), warp=7)


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of base models with one in it, in place of the package's own."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setattr(bases, "root", lambda: folder)
    bases.listing.cache_clear()
    put(folder / "small-32.safetensors", seed=3)
    yield folder
    bases.listing.cache_clear()


def put(path: Path, *, seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    net = UNet(SMALL)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    tensors = net.state_dict()
    bases.save(
        path, tensors, SMALL, size=32, seen=123, licence="Apache-2.0", sources=("drawn here",), classes=("a",) * 7
    )
    return tensors


def test_a_base_fits_nets_that_differ_in_classes_and_dropout_alone() -> None:
    four = replace(SMALL, classes=4, dropout=0.0)
    found = bases.fitting(four, (32, 40))
    assert found is not None
    assert (found.name, found.seen, found.classes) == ("small-32", 123, ("a",) * 7)
    assert bases.fitting(replace(four, width=16), (32, 32)) is None
    assert bases.fitting(replace(four, channels=1), (32, 32)) is None
    assert bases.fitting(four, (128, 128)) is None
    assert bases.fitting(four, (8, 8)) is None


def test_a_base_that_was_named_says_why_it_does_not_fit() -> None:
    with pytest.raises(UsageError, match="learnt from colour images, these are grey images"):
        bases.require_fit(bases.named("small-32"), replace(SMALL, channels=1))
    with pytest.raises(UsageError, match="its width is 8, this set's net needs 16"):
        bases.require_fit(bases.named("small-32"), replace(SMALL, width=16))
    with pytest.raises(UsageError, match="not known") as caught:
        bases.named("large-512")
    assert "small-32" in str(caught.value.hint)


def test_where_no_base_fits_it_says_why_in_a_few_words(shelf: Path) -> None:
    assert bases.why_none(replace(SMALL, channels=1), (32, 32)) == "1 channel"
    assert bases.why_none(SMALL, (128, 128)) == "size 128"
    assert bases.why_none(replace(SMALL, patch=2), (64, 72)) == "size 64x72"
    assert bases.why_none(replace(SMALL, width=16), (32, 32)) == "width 16"
    (shelf / "small-32.safetensors").unlink()
    bases.listing.cache_clear()
    assert bases.why_none(SMALL, (32, 32)) == "there is none"


def run_settings(tmp_path: Path) -> tuple[object, RunSettings]:
    from mgdm_cli.commands.modelling import prepare

    prepared = prepare(tiny_set(tmp_path / "set"), seed=0)
    base = bases.named("small-32")
    found = tiny_settings(prepared).model_copy(update={"base": base.name, "base_sha256": base.sha256})
    return prepared, found.model_copy(update={"unet": replace(SMALL, classes=4)})


def test_a_run_starts_from_the_base_and_needs_it_no_more_once_trained(tmp_path: Path, shelf: Path) -> None:
    prepared, settings = run_settings(tmp_path)
    tensors = put(shelf / "small-32.safetensors", seed=3)
    model = first_weights(settings, CPU)
    for name, tensor in model.net.state_dict().items():
        if name != bases.CLASS_ROWS:
            assert torch.allclose(tensor, tensors[name], atol=1e-3), name
    rows, known = model.net.state_dict()[bases.CLASS_ROWS], unit(tensors[bases.CLASS_ROWS])
    assert torch.allclose(rows[-1], known[-1], atol=1e-3), "no class is what it was"
    apart, theirs = torch.pdist(rows), torch.pdist(known[:-1]).mean()
    assert 0.3 * theirs < apart.min() < apart.max() < 1.6 * theirs, (
        "each class has a place of its own, as far from the others as the base's"
    )
    folder = tmp_path / "run"
    folder.mkdir()
    write_settings(folder, settings)
    drain(pretrain(folder, prepared, settings, CPU))  # type: ignore[arg-type]
    (shelf / "small-32.safetensors").unlink()
    bases.listing.cache_clear()
    parts, _ = load_parts(folder, settings, CPU)
    assert (folder / DENOISER).is_file()
    # Ready to make images, their length is normalised: what tells them apart is where they point.
    moved, began = (w.float().flatten(1) for w in (parts.model.net.state_dict()["stem.weight"], tensors["stem.weight"]))
    near = torch.cosine_similarity(moved, began)
    assert 0.8 < float(near.min()) < 0.9999


def test_another_file_under_the_same_name_is_refused(tmp_path: Path, shelf: Path) -> None:
    _, settings = run_settings(tmp_path)
    put(shelf / "small-32.safetensors", seed=4)
    with pytest.raises(BadInput, match="small-32"):
        first_weights(settings, CPU)


def test_a_base_of_patches_is_folded_for_smaller_images(shelf: Path) -> None:
    """Each pixel counts as a patch of one value: so does the first layer see it, and the last one answers with the mean of the patch."""
    torch.manual_seed(0)
    patches = replace(SMALL, patch=2, channels=1)
    theirs, ours = UNet(patches), UNet(replace(patches, patch=1, classes=4))
    for parameter in theirs.out.parameters():
        torch.nn.init.normal_(parameter)
    bases.save(
        shelf / "wide-64.safetensors", theirs.state_dict(), patches, size=64, seen=9, licence="x", sources=(),
        classes=("a",) * 7,
    )  # fmt: skip
    bases.listing.cache_clear()
    found = bases.fitting(ours.settings, (32, 32))
    assert found is not None
    assert found.name == "wide-64"
    assert bases.fitting(ours.settings, (65, 65)) is None, "there a net sees patches itself"
    bases.require_fit(found, ours.settings)
    bases.start_from(ours, found, found.sha256)
    x, root = torch.randn(2, 1, 8, 8), 2**0.5
    patch = F.pixel_unshuffle(F.interpolate(x, scale_factor=2.0, mode="nearest"), 2)
    wanted = F.conv2d(patch, theirs.stem.weight[:, :4])
    assert torch.allclose(root * F.conv2d(x, ours.stem.weight[:, :1]), wanted, atol=0.02)
    assert torch.allclose(ours.stem.weight[:, 1:], theirs.stem.weight[:, 4:], atol=0.01)
    deep = torch.randn(2, 8, 8, 8)
    assert torch.allclose(ours.out(deep), F.avg_pool2d(F.pixel_shuffle(theirs.out(deep), 2), 2), atol=0.02)
    noise = torch.linspace(-1, 1, 5)
    assert torch.allclose(ours.noise(noise), theirs.noise(noise + math.log(root) / 4), atol=0.02)
    assert bases.fitting(patches, (64, 64)) == found
    put(shelf / "small-32.safetensors", seed=3)
    with pytest.raises(UsageError, match="learnt from images of 32 pixels, these are larger"):
        bases.require_fit(bases.named("small-32"), replace(SMALL, patch=2))


def test_settings_take_a_base_that_fits_unless_told_not_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mgdm_cli.commands.modelling import prepare

    prepared = prepare(tiny_set(tmp_path / "set"), seed=0)
    data = pictures(prepared, prepared.splits.train, CPU)
    usual = UNetSettings(3, 4, warp=7)
    put_usual = UNet(usual).state_dict()
    bases.save(
        bases.root() / "usual.safetensors", put_usual, usual, size=32, seen=9, licence="x", sources=(), classes=()
    )
    bases.listing.cache_clear()
    started, scratch = (
        sizing.settings_for(prepared, data, seed=0, flip=False, date="20260101", base=base) for base in ("auto", "none")
    )
    assert (started.base, scratch.base) == ("usual", "")
    assert started.base_sha256 == bases.named("usual").sha256
    assert started.train.rate < scratch.train.rate
    assert started.train.seen < scratch.train.seen
    with pytest.raises(UsageError, match="width is 8"):
        sizing.settings_for(prepared, data, seed=0, flip=False, date="20260101", base="small-32")


def test_the_list_says_what_they_learnt_from() -> None:
    result = models.run()
    assert json.loads(json.dumps(result.document))["models"][0]["sources"] == ["drawn here"]
    assert "small-32: colour, 32 px, 123 images seen" in str(result.lines[0])


def test_a_file_of_another_kind_on_the_shelf_is_an_error(tmp_path: Path, shelf: Path) -> None:
    from mgdm_cli.engine import weights

    weights.save(shelf / "other.safetensors", {"a": torch.zeros(1)}, {"kind": "denoiser"})
    bases.listing.cache_clear()
    with pytest.raises(BadInput, match=r"other\.safetensors"):
        bases.listing()
