"""The image flow: its parts stand where they were asked for."""

from __future__ import annotations

import inspect

import pytest
import torch

from invattn.bijections import ActNorm, Split, Whitening, initialize
from invattn.branches import CertifiedAttention, CertifiedConvolution, CertifiedPointwise
from invattn.flows import IMAGE_MIXERS, ImageArchitecture, MultiscaleIResNet, ResidualFlow, token_flow
from invattn.flows.multiscale import _attention_blocks


def branches(flow: MultiscaleIResNet, kind: type) -> int:
    return sum(isinstance(part, kind) for part in flow.modules())


def test_attention_stands_at_its_positions() -> None:
    assert _attention_blocks([(0, -1), (1, 0), (-1, -2)], (4, 3)) == {(0, 3), (1, 0), (1, 1)}
    assert _attention_blocks("interleaved:2", (4, 3)) == {(0, 1), (0, 3), (1, 1)}
    flow = MultiscaleIResNet(
        (3, 8, 8), blocks=(2, 2), hidden_channels=4, attention="gaussian", attention_positions="interleaved:1"
    )
    assert branches(flow, CertifiedAttention) == 4
    assert branches(flow, CertifiedConvolution) == 4
    assert (
        branches(
            MultiscaleIResNet(
                (3, 8, 8), blocks=(2, 2), hidden_channels=4, attention="none", attention_positions="interleaved:1"
            ),
            CertifiedAttention,
        )
        == 0
    )
    assert (
        branches(
            MultiscaleIResNet(
                (3, 8, 8), blocks=(2, 2), hidden_channels=4, attention="pointwise", attention_positions="interleaved:2"
            ),
            CertifiedPointwise,
        )
        == 2
    )
    assert (
        branches(
            MultiscaleIResNet(
                (3, 8, 8), blocks=(2, 2), hidden_channels=4, attention="convolution", attention_positions=[(1, 0)]
            ),
            CertifiedConvolution,
        )
        == 5
    )


@pytest.mark.parametrize(
    "positions", [[(2, 0)], [(0, 2)], [(0, -3)], [(0,)], "interleaved:0", "every:2", "interleaved"]
)
def test_a_position_that_does_not_exist_is_refused(positions: object) -> None:
    with pytest.raises(ValueError, match="position"):
        MultiscaleIResNet(
            (3, 8, 8), blocks=(2, 2), hidden_channels=4, attention="gaussian", attention_positions=positions
        )  # type: ignore[arg-type]


def test_a_size_that_does_not_fit_names_one_that_does() -> None:
    with pytest.raises(ValueError, match="multiples of 8, such as 8 x 16"):
        MultiscaleIResNet((3, 10, 12), blocks=(1, 1, 1))
    with pytest.raises(ValueError, match="multiples of 12, such as 12 x 12"):
        MultiscaleIResNet((3, 8, 8), blocks=(1, 1), whitening=3)
    with pytest.raises(ValueError, match=r"image_shape must be \(C, H, W\)"):
        MultiscaleIResNet((8, 8), blocks=(1,))
    for wrong in ({"blocks": ()}, {"blocks": (0,)}, {"first_squeeze": 0}, {"image_shape": (0, 4, 4)}):
        with pytest.raises(ValueError, match=r"at least 1|>= 1"):
            ImageArchitecture(**{"image_shape": (3, 4, 4), "blocks": (1,), **wrong})  # type: ignore[arg-type]


def test_fitted_fronts_that_cannot_be_are_refused() -> None:
    for wrong in ({"levels": -1}, {"knots": 1}, {"channel_knots": 1}, {"knots": -2}, {"whitening_reach": -1.0}):
        with pytest.raises(ValueError, match="knots and channel_knots of 0 or at least 2 are needed; got"):
            ImageArchitecture(image_shape=(3, 4, 4), blocks=(1,), whitening=4, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="give whitening too"):
        ImageArchitecture(image_shape=(3, 4, 4), blocks=(1,), knots=4)


@pytest.mark.parametrize("attention", IMAGE_MIXERS)
@pytest.mark.parametrize("split", [True, False])
def test_it_is_certified_started_from_data_and_sampled(attention: str, split: bool) -> None:
    torch.manual_seed(0)
    flow = MultiscaleIResNet(
        (3, 8, 8), blocks=(1, 1), hidden_channels=4, attention=attention, split=split, whitening=8, prior_channels=0
    )
    x = torch.rand(40, 3, 8, 8)
    assert initialize(flow.bijection, x) == sum(isinstance(part, ActNorm | Whitening) for part in flow.modules())
    assert flow.bijection.certified
    assert sum(isinstance(part, Split) for part in flow.modules()) == split
    assert flow.event_shape == (3, 8, 8)
    z = flow.bijection(x).detach()
    assert z.shape == (40, 192)
    # ActNorm ends every scale: what leaves for the base starts with variance 1.
    assert float(z.std()) == pytest.approx(1.0, abs=0.05)
    assert flow.sample((2, 3)).shape == (2, 3, 3, 8, 8)
    assert flow.log_prob(x).shape == (40,)
    assert flow.bijection.bi_lipschitz((3, 8, 8)).lower > 0


def test_options_are_those_of_the_architecture_and_a_typo_is_refused_by_name() -> None:
    flow = MultiscaleIResNet(
        image_shape=(3, 8, 8),
        blocks=[1, 1],
        hidden_channels=4,
        attention="concatenation",
        attention_positions=[(0, -1)],
        recipe="certified",
    )
    same = ImageArchitecture((3, 8, 8), blocks=(1, 1), hidden_channels=4, attention="concatenation")
    assert flow.architecture == same
    assert "whitening_reach: 'float' = 0.0" in str(inspect.signature(MultiscaleIResNet))
    with pytest.raises(TypeError, match="unexpected keyword argument 'whitening_reech'"):
        MultiscaleIResNet((3, 8, 8), blocks=(1,), whitening_reech=1.0)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        MultiscaleIResNet((3, 8, 8), (1,))  # type: ignore[call-arg,misc]
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'blocks'"):
        MultiscaleIResNet((3, 8, 8))  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'block'"):
        ResidualFlow(2, block=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'block'"):
        token_flow(2, block=3)
