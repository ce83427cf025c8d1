"""The classifiers by name: right shapes from 32 to 128 pixels, the same weights from the same seed, gradients everywhere."""

from __future__ import annotations

import pytest
import torch

from mgdm_cli.nets.zoo import GROUPS, LARGE, NETS, SMALL, Shape, new_net


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("channels", "size"), [(1, (32, 32)), (3, (64, 48)), (1, (128, 128))])
def test_small_nets_give_logits_and_learn_in_every_part(name: str, channels: int, size: tuple[int, int]) -> None:
    net = new_net(name, Shape(channels, 4, size), seed=0)
    out = net(torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(0)))
    assert out.shape == (2, 4)
    out.logsumexp(1).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    assert sum(p.numel() for p in net.parameters()) < 1_000_000


@pytest.mark.parametrize("size", [(16, 256), (256, 16), (16, 160)])
def test_long_images_have_patches_too(size: tuple[int, int]) -> None:
    net = new_net("vit", Shape(1, 4, size), seed=0)
    assert net(torch.zeros(2, 1, *size)).shape == (2, 4)
    assert Shape(1, 4, size).patch == 16
    assert [Shape(1, 4, plain).patch for plain in ((32, 32), (64, 48), (128, 128))] == [4, 8, 16]


def test_a_seed_gives_the_weights_and_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (new_net("resnet", Shape(1, 2, (32, 32)), seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)


def test_groups_name_nets() -> None:
    assert all(name in NETS for names in GROUPS.values() for name in names)
    assert len(GROUPS["ten"]) == len(set(GROUPS["ten"])) == 10
    assert len(GROUPS["quick"]) == 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MONAI's own, of its own dependencies
@pytest.mark.parametrize("name", LARGE)
def test_monais_nets_take_the_same_shapes(name: str) -> None:
    pytest.importorskip("monai", reason="MONAI is not installed (extra: monai)")
    net = new_net(name, Shape(1, 3, (32, 32)), seed=0).eval()
    with torch.no_grad():
        assert net(torch.zeros(2, 1, 32, 32)).shape == (2, 3)
    with torch.device("meta"), torch.no_grad():  # shapes alone, at no cost
        assert NETS[name](Shape(3, 3, (64, 64))).eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
