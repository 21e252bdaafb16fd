"""The network: sizes, gradients, attention at every level, pretrained weights, round trip on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from invattn import ATTENTION_KINDS
from invattn._errors import CertificateError, DataError
from invattn.bijections import Bijection
from invattn.cli.main import main
from invattn.experiments.camouflage.backbone import load_backbone_weights
from invattn.experiments.camouflage.network import (
    RATES,
    CamouflageNetwork,
    DilatedReduction,
    NetworkConfig,
    ResidualChannelAttention,
    load_network,
)
from invattn.hub import block_certificates, load_model, save_model
from invattn.recipes import make_recipe


def network(kind: str = "embedded_gaussian", recipe: str = "certified", backbone: str = "small") -> CamouflageNetwork:
    form = None if kind == "none" else make_recipe(recipe)
    return NetworkConfig(kind=kind, recipe=form, backbone=backbone).build()


@pytest.mark.parametrize("sides", [(352, 352), (353, 353), (97, 97), (97, 130)])
def test_the_map_has_the_size_of_the_image_at_batch_one(sides: tuple[int, int]) -> None:
    model = network("concatenation" if max(sides) < 352 else "none").eval()
    with torch.no_grad():
        inputs = model.attention_inputs(torch.rand(1, 3, *sides))
        # Strides 4, 8, 16, 32, rounded up.
        assert [tuple(x.shape) for x in inputs] == [
            (1, 32, *(-(-side // 2**n) for side in sides)) for n in (2, 3, 4, 5)
        ]
        found = model(torch.rand(1, 3, *sides))
    assert found.shape == (1, 1, *sides)
    assert bool(found.isfinite().all())


def test_resnet_50_has_its_channels_and_parameters() -> None:
    model = network("none", backbone="resnet50")
    assert model.backbone.channels == (256, 512, 1024, 2048)
    # ResNet-50 of the literature: 25,557,032 numbers with its last layer of 2048 x 1000 + 1000.
    assert sum(weight.numel() for weight in model.backbone.parameters()) == 25_557_032 - 2_049_000


@pytest.mark.parametrize("recipe", ["unconstrained", "paper", "certified"])
@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_every_module_stands_at_every_level_and_learns(kind: str, recipe: str) -> None:
    model = network(kind, recipe)
    assert len(model.blocks()) == 4
    model(torch.rand(2, 3, 64, 64)).square().mean().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert bool(weight.grad.isfinite().all()), name
    assert all(block.certified == (recipe == "certified") for block in model.blocks())


def test_networks_of_one_seed_differ_in_their_attention_only() -> None:
    states = []
    for kind in ("none", "gaussian", "concatenation"):
        torch.manual_seed(3)
        states.append({k: v for k, v in network(kind).state_dict().items() if not k.startswith("attention.")})
    assert all(torch.equal(states[0][name], other[name]) for other in states[1:] for name in states[0])


def test_the_reduction_is_the_sum_of_its_convolutions() -> None:
    reduction, x = DilatedReduction(5, 3).double(), torch.randn(2, 5, 40, 33, dtype=torch.float64)
    parts = [
        torch.nn.functional.conv2d(x, conv.weight, conv.bias, padding=rate, dilation=rate)  # type: ignore[union-attr]
        for conv, rate in zip(reduction.convolutions, RATES, strict=True)
    ]
    assert RATES == (3, 6, 12, 18)
    torch.testing.assert_close(reduction(x), parts[0] + parts[1] + parts[2] + parts[3])


def test_the_reduction_starts_almost_as_a_pointwise_convolution() -> None:
    torch.manual_seed(0)
    reduction, x = DilatedReduction(64, 32), torch.randn(4, 64, 24, 24)
    # Centre taps: variance 1. The 32 outer ones: 8 x 0.1^2 more at most, less at the border.
    assert 0.9 < float(reduction(x).detach().var()) < 1.3


def test_the_small_backbone_sees_each_image_by_itself() -> None:
    model, x = network("none").train(), torch.rand(3, 3, 64, 64)
    for one, together in zip(model.backbone(x[:1]), model.backbone(x), strict=True):
        torch.testing.assert_close(one, together[:1], atol=1e-4, rtol=1e-4)  # float32 sums in another order
    big = network("none", backbone="resnet50").backbone
    assert any(isinstance(part, torch.nn.BatchNorm2d) for part in big.modules())


def test_channel_attention_scales_whole_channels_of_its_change() -> None:
    block, x = ResidualChannelAttention(32).double(), torch.randn(2, 32, 6, 7, dtype=torch.float64)
    ratio = (block(x) - x) / block.body(x)
    assert bool((ratio > 0).all())
    assert bool((ratio < 1).all())
    torch.testing.assert_close(ratio, ratio.mean(dim=(2, 3), keepdim=True).expand_as(ratio), atol=1e-9, rtol=1e-6)


def test_pretrained_weights_come_from_a_folder(tmp_path: Path) -> None:
    torch.manual_seed(1)
    source, target = network("none"), network("none")
    source.backbone.resnet.save_pretrained(tmp_path / "resnet")
    load_backbone_weights(target.backbone, str(tmp_path / "resnet"))
    stored = source.backbone.state_dict()
    assert all(torch.equal(value, stored[name]) for name, value in target.backbone.state_dict().items())
    with pytest.raises(DataError, match="no folder"):
        load_backbone_weights(target.backbone, str(tmp_path / "missing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="cannot be read") as caught:
        load_backbone_weights(target.backbone, str(tmp_path / "empty"))
    assert "\n" not in str(caught.value)


def test_a_stored_network_is_verified_and_certified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = NetworkConfig(kind="gaussian", recipe=make_recipe("certified"), backbone="small", image_size=64)
    model = config.build().eval()
    save_model(model, tmp_path, config=config)
    loaded, found = load_network(tmp_path)
    assert found == config
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
    assert len(block_certificates(loaded)) == 4
    assert main(["certify", str(tmp_path)]) == 0
    assert "every block is proven invertible" in capsys.readouterr().out
    assert main(["certify", str(tmp_path), "--shape", "3,64,64"]) == 1
    with pytest.raises(DataError, match="single attention block"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text().replace("64", "65"))
    with pytest.raises(CertificateError, match="differs from its certificate"):
        load_network(tmp_path)


def test_modules_are_bijections_of_what_they_see() -> None:
    model = network("dot_product").eval()
    with torch.no_grad():
        for block, x in zip(model.blocks(), model.attention_inputs(torch.rand(1, 3, 64, 64)), strict=True):
            assert isinstance(block, Bijection)
            assert float((block.inverse(block(x)) - x).norm() / x.norm()) < 1e-4  # solved to 1e-6, norm for norm


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must have shape \(B, 3, H, W\)"):
        network("none")(torch.rand(1, 1, 64, 64))
    with pytest.raises(ValueError, match="unknown attention"):
        NetworkConfig(kind="gausian", recipe=make_recipe("paper"))
    with pytest.raises(ValueError, match="unknown backbone"):
        NetworkConfig(kind="none", recipe=None, backbone="vgg")
    with pytest.raises(ValueError, match="goes with"):
        NetworkConfig(kind="none", recipe=make_recipe("paper"))
