"""ActNorm, the invertible 1 x 1 convolution, whitening, logit: what the laws do not say."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from invattn import CertificateError, invertible_attention
from invattn.bijections import ActNorm, ChannelMap, Composed, Linear1x1, Logit, Squeeze, Whitening, initialize


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlated(count: int = 400, channels: int = 4) -> Tensor:
    mixing = torch.randn(channels, channels, dtype=torch.float64, generator=seeded(1))
    return 3 * torch.randn(count, channels, dtype=torch.float64, generator=seeded(2)) @ mixing + 5


def layers() -> list[ChannelMap]:
    act_norm, whitening = ActNorm(4).double(), Whitening(4).double()
    act_norm.fit(correlated())
    whitening.fit(correlated())
    return [act_norm, Linear1x1(4, generator=seeded(3)).double(), whitening]


@pytest.mark.parametrize("layer", layers(), ids=lambda layer: type(layer).__name__)
def test_every_layout_is_the_same_map_of_channels(layer: ChannelMap) -> None:
    image = torch.randn(2, 4, 3, 5, dtype=torch.float64, generator=seeded(4))
    tokens = image.flatten(2).mT
    torch.testing.assert_close(layer(image).flatten(2).mT, layer(tokens))
    torch.testing.assert_close(layer(tokens)[:, 0], layer(tokens[:, 0]))
    torch.testing.assert_close(layer.log_det(image), layer.log_det(tokens))
    torch.testing.assert_close(layer.log_det(tokens), 15 * layer.log_det(tokens[:, 0]))
    for wrong in (image[:, :3], tokens[0, 0], tokens[..., :2]):
        with pytest.raises(ValueError, match="with C = 4; got"):
            layer(wrong)
    with pytest.raises(TypeError, match="must be floating point"):
        layer(torch.ones(2, 4, dtype=torch.long))


@pytest.mark.parametrize("layer", layers(), ids=lambda layer: type(layer).__name__)
def test_the_constants_are_attained(layer: ChannelMap) -> None:
    constants = layer.bi_lipschitz((7, 4))
    matrix: Tensor = torch.func.jacrev(lambda x: layer(x[None])[0])(torch.zeros(4, dtype=torch.float64))
    sizes = torch.linalg.svdvals(matrix.detach())
    assert constants.upper == pytest.approx(float(sizes[0]), rel=1e-9)
    assert constants.lower == pytest.approx(float(sizes[-1]), rel=1e-9)
    assert layer.bi_lipschitz((4, 2, 2), norm="2").norm_out == "2"


@pytest.mark.parametrize("layer", layers(), ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e5])
def test_the_bound_of_the_rounding_holds(layer: ChannelMap, scale: float) -> None:
    x = scale * torch.randn(300, 3, 4, dtype=torch.float64, generator=seeded(5))
    single = copy.deepcopy(layer).float()
    solution = single.solve(single(x.float()))
    assert solution.error_bound is not None
    exact = copy.deepcopy(single).double().inverse(single(x.float()).double())
    error = (solution.value - exact).flatten(1).norm(dim=1)
    assert (error <= solution.error_bound).all()
    assert (solution.error_bound <= 1e-2 * (scale + 10)).all()


def test_act_norm_starts_with_mean_zero_and_deviation_one() -> None:
    layer, x = ActNorm(4), correlated().float()
    assert torch.equal(layer(x), x)
    assert not layer.is_fitted
    assert initialize(layer, x) == 1
    z = layer(x).detach()
    torch.testing.assert_close(z.mean(dim=0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std(dim=0, correction=0), torch.ones(4), atol=1e-4, rtol=0)


def test_a_constant_channel_keeps_its_scale() -> None:
    layer = ActNorm(2)
    layer.fit(torch.stack([torch.full((9,), 3.0), torch.arange(9.0)], dim=1))
    assert layer.log_scale.detach()[0] == 0
    assert layer.shift.detach()[0] == 3


@pytest.mark.parametrize("make", [ActNorm, Whitening])
def test_nothing_is_started_twice_nor_after_loading(make: type[ActNorm] | type[Whitening]) -> None:
    first, x = make(4), correlated().float()
    assert initialize(first, x) == 1
    assert initialize(first, 100 * x) == 0
    fresh = make(4)
    fresh.load_state_dict(first.state_dict())
    assert initialize(fresh, 100 * x) == 0
    assert torch.equal(fresh(x), first(x))


@pytest.mark.parametrize("layer", [ActNorm(2), Whitening(2)], ids=["act_norm", "whitening"])
@pytest.mark.parametrize("x", [torch.ones(1, 2), torch.tensor([[1.0, torch.nan], [0.0, 1.0]])], ids=["one", "nan"])
def test_data_that_start_nothing_are_refused(layer: ActNorm | Whitening, x: Tensor) -> None:
    with pytest.raises(ValueError, match="at least two finite"):
        layer.fit(x)


def test_layers_of_a_chain_are_started_in_order_with_what_reaches_them() -> None:
    chain = Composed([Squeeze(2), ActNorm(4), invertible_attention(4), ActNorm(4), Linear1x1(4), ActNorm(4)])
    x = 4 * torch.randn(50, 1, 4, 4, generator=seeded(6)) + 1
    assert initialize(chain, x) == 3
    with torch.no_grad():
        z = chain(x)
    torch.testing.assert_close(z.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std(dim=(0, 2, 3), correction=0), torch.ones(4), atol=1e-4, rtol=0)
    assert not chain.bijections[0]._forward_pre_hooks
    assert not chain.bijections[1]._forward_pre_hooks


def test_the_1x1_convolution_starts_as_a_rotation_and_multiplies_by_its_matrix() -> None:
    layer = Linear1x1(6, generator=seeded(7)).double()
    matrix = layer.matrix().detach()
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(6, dtype=torch.float64), atol=1e-6, rtol=0)
    x = torch.randn(3, 6, dtype=torch.float64, generator=seeded(8))
    torch.testing.assert_close(layer(x), x @ matrix.mT)
    with torch.no_grad():
        layer.log_scale.add_(torch.randn(6, generator=seeded(9)))
        layer.lower.add_(0.3)
    torch.testing.assert_close(layer.log_det(x)[0], torch.linalg.slogdet(layer.matrix()).logabsdet)
    # What lies outside the triangles is no parameter of the map.
    before = layer.matrix()
    with torch.no_grad():
        layer.lower.add_(torch.ones(6, 6).triu())
        layer.upper.add_(torch.ones(6, 6).tril())
    assert torch.equal(layer.matrix(), before)


def test_whitening_makes_the_covariance_the_identity() -> None:
    layer, x = Whitening(4, ridge=1e-9).double(), correlated()
    layer.fit(x)
    z = layer(x)
    torch.testing.assert_close(z.mean(dim=0), torch.zeros(4, dtype=torch.float64), atol=1e-8, rtol=0)
    torch.testing.assert_close(z.mT @ z / len(z), torch.eye(4, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(layer.weight, layer.weight.mT)  # ZCA: the symmetric square root
    few = Whitening(4).double()
    few.fit(x[:2])  # a singular covariance
    torch.testing.assert_close(few.inverse(few(x)), x)
    with pytest.raises(ValueError, match="ridge must be positive"):
        Whitening(4, ridge=0)


def test_the_logit_is_the_formula_and_inverts() -> None:
    layer = Logit(low=-0.5, high=0.5, margin=0.05)
    x = torch.linspace(-0.5, 0.5, 11, dtype=torch.float64)[None]
    share = 0.05 + 0.9 * (x + 0.5)
    torch.testing.assert_close(layer(x), torch.log(share / (1 - share)))
    torch.testing.assert_close(layer.inverse(layer(x)), x)
    slopes = (0.9 / share + 0.9 / (1 - share)).log().sum()
    torch.testing.assert_close(layer.log_det(x)[0], slopes)
    assert layer.solve(layer(x)).error_bound is None
    with pytest.raises(CertificateError, match="without bound"):
        layer.bi_lipschitz((11,))
    for options in ({"low": 1.0, "high": 1.0}, {"margin": 0.5}):
        with pytest.raises(ValueError, match="are needed"):
            Logit(**options)


def test_channels_must_be_positive() -> None:
    with pytest.raises(ValueError, match="channels must be at least 1"):
        ActNorm(0)


def test_a_chain_with_these_layers_keeps_its_error_bound() -> None:
    chain = Composed([Squeeze(2), ActNorm(4), invertible_attention(4), Linear1x1(4)]).double()
    x = torch.randn(5, 1, 4, 6, dtype=torch.float64, generator=seeded(10))
    initialize(chain, x)
    with torch.no_grad():
        solution = chain.solve(chain(x))
    assert solution.error_bound is not None
    assert ((solution.value - x).flatten(1).norm(dim=1) <= math.sqrt(24) * solution.error_bound).all()
    assert (solution.error_bound <= 1e-8).all()


def test_whitening_fitted_in_single_precision_inverts_in_double() -> None:
    """Its matrix and the inverse matrix are rounded each for itself: 1e-7 times the condition number apart."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(0, -2.5, 12)
    mixing = torch.linalg.qr(torch.randn(12, 12, generator=generator)).Q
    data = torch.randn(500, 12, generator=generator) * scales @ mixing
    whitening = Whitening(12)
    whitening.fit(data)
    double, x = whitening.double(), data.double()
    unrefined = (double(x) @ double.unweight.mT + double.mean - x).abs().max()
    assert float(unrefined) > 1e-8
    assert float((double.inverse(double(x)) - x).abs().max()) < 1e-12
