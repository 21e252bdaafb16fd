"""Histograms, splines and tapers: what the laws do not say."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from invattn.bijections import HistogramNormal, MonotoneSpline, PatchTaper, Squeeze, Whitening, initialize


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def heavy_tails(count: int = 20_000) -> Tensor:
    """Two channels: sinh of a normal number, and an exponential one."""
    normal = torch.randn(count, 2, dtype=torch.float64, generator=seeded(1))
    return torch.stack([(2 * normal[:, 0]).sinh() + 2, -torch.special.ndtr(normal[:, 1]).log()], dim=1)


def grey_levels(count: int = 20_000) -> Tensor:
    """Dequantised numbers of 0 to 3 in [-0.5, 0.5): nearly always 0 in one channel, even in the other."""
    share = torch.rand(count, 2, dtype=torch.float64, generator=seeded(2))
    levels = torch.stack([(share[:, 0] > 0.97) * 3.0, (4 * share[:, 1]).floor()], dim=1)
    noise = torch.rand(count, 2, dtype=torch.float64, generator=seeded(3))
    return (levels + noise) / 4 - 0.5


@pytest.mark.parametrize(
    ("layer", "x"),
    [(MonotoneSpline(2, knots=12), heavy_tails()), (HistogramNormal(2, levels=4), grey_levels())],
    ids=["spline", "histogram"],
)
def test_fitted_to_data_every_channel_becomes_normal(layer: MonotoneSpline | HistogramNormal, x: Tensor) -> None:
    layer = layer.double()
    assert not layer.is_fitted
    assert initialize(layer, x) == 1
    assert initialize(layer, 3 * x) == 0
    z = layer(x).detach()
    probability = torch.special.ndtr(z).sort(dim=0).values
    even = (torch.arange(len(z), dtype=z.dtype) + 0.5) / len(z)
    distance = (probability - even[:, None]).abs().amax(dim=0)
    assert (distance < 0.02).all()  # Kolmogorov's distance: 0.01 is the noise of 20,000 samples
    straight = torch.special.ndtr((x - x.mean(dim=0)) / x.std(dim=0)).sort(dim=0).values
    assert ((straight - even[:, None]).abs().amax(dim=0) > 0.06).all()


def test_a_spline_is_the_identity_before_it_is_fitted_and_straight_beyond_its_knots() -> None:
    layer = MonotoneSpline(2, knots=5)
    x = torch.tensor([[-9.0, -2.9], [0.1, 7.0]])
    torch.testing.assert_close(layer(x).detach(), x)
    layer.fit(heavy_tails().float())
    far = torch.tensor([[-1e3, -1e3], [-1e3 - 1, -1e3 - 1], [-1e3 - 2, -1e3 - 2]])
    z = layer(far).detach()
    torch.testing.assert_close(z[0] - z[1], z[1] - z[2], rtol=1e-3, atol=0)  # of 1e3 in float32


def test_the_density_of_a_histogram_is_the_histogram() -> None:
    layer = HistogramNormal(2, levels=4, smoothing=1e-9).double()
    x = grey_levels()
    layer.fit(x)
    levels = ((x + 0.5) * 4).floor().long()
    shares = torch.stack([torch.bincount(levels[:, c], minlength=4) for c in range(2)]).double() / len(x)
    z, log_det = layer.forward_and_log_det(x[:50])
    log_density = log_det - 0.5 * (z.square() + math.log(2 * math.pi)).sum(dim=1)
    wanted = sum((4 * shares[c, levels[:50, c]]).log() for c in range(2))
    # 6e-5 of the probability lies beyond the interval.
    torch.testing.assert_close(log_density, wanted, atol=2e-4, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_slopes_stay_within_the_proven_constants(seed: int) -> None:
    spline = MonotoneSpline(2, knots=6).double()
    spline.fit(heavy_tails())
    with torch.no_grad():
        for parameter in spline.parameters():
            parameter.add_(torch.randn(parameter.shape, dtype=torch.float64, generator=seeded(seed)))
    histogram = HistogramNormal(2, levels=4).double()
    histogram.fit(grey_levels())
    edges = torch.tensor([-0.5, -0.25, 0.0, 0.25, 0.5], dtype=torch.float64)
    for layer, points in (
        (spline, torch.linspace(-8, 8, 20_001, dtype=torch.float64)),
        (histogram, torch.cat([edges - 1e-12, edges + 1e-12, torch.linspace(-0.6, 0.6, 999, dtype=torch.float64)])),
    ):
        x = points[:, None].repeat(1, 2).requires_grad_()
        (slopes,) = torch.autograd.grad(layer(x).sum(), x)
        constants = layer.bi_lipschitz((2,), norm="2")
        assert constants.lower <= float(slopes.min()) * (1 + 1e-9)
        assert float(slopes.max()) <= constants.upper * (1 + 1e-9)
        if layer is histogram:  # attained at edges of cells
            assert constants.upper == pytest.approx(float(slopes.max()), rel=1e-6)
            assert constants.lower == pytest.approx(float(slopes.min()), rel=1e-6)


def test_data_that_start_nothing_are_refused() -> None:
    for layer in (MonotoneSpline(2), HistogramNormal(2, levels=3)):
        for x in (torch.ones(1, 2), torch.tensor([[1.0, torch.nan], [0.0, 1.0]])):
            with pytest.raises(ValueError, match="at least two finite"):
                layer.fit(x)
    layer = MonotoneSpline(2, knots=4)
    layer.fit(torch.stack([torch.full((9,), 3.0), torch.arange(9.0)], dim=1))
    assert layer(torch.randn(20, 2, generator=seeded())).isfinite().all()
    with pytest.raises(ValueError, match="at least 2 knots; got 1"):
        MonotoneSpline(2, knots=1)
    for options in ({"levels": 0}, {"levels": 2, "low": 1.0, "high": 1.0}, {"levels": 2, "smoothing": 0.0}):
        with pytest.raises(ValueError, match="levels >= 1, low < high and smoothing > 0"):
            HistogramNormal(2, **options)  # type: ignore[arg-type]


def test_a_taper_falls_with_the_distance_of_pixels_in_the_order_of_squeeze() -> None:
    taper = PatchTaper(side=3, channels=2, reach=1.5)
    matrix = taper.matrix(torch.zeros((), dtype=torch.float64))
    assert float(torch.linalg.eigvalsh(matrix).min()) > -1e-12
    row, column = torch.meshgrid(torch.arange(3.0), torch.arange(3.0), indexing="ij")
    places = [Squeeze(3)(plane.expand(1, 2, 3, 3)).flatten().double() for plane in (row, column)]
    for i, j in ((0, 1), (0, 2), (3, 16), (5, 17)):
        squares = sum((place[i] - place[j]) ** 2 for place in places)
        assert float(matrix[i, j]) == pytest.approx(math.exp(-float(squares) / 4.5))
    for side, reach in ((0, 1.0), (3, 0.0)):
        with pytest.raises(ValueError, match="reach > 0 are needed"):
            PatchTaper(side=side, channels=2, reach=reach)
    with pytest.raises(ValueError, match="have 18 entries; channels is 4"):
        Whitening(4, taper=taper)


def test_tapered_whitening_whitens_neighbours_and_knows_nothing_of_far_entries() -> None:
    x = torch.randn(4000, 9, dtype=torch.float64, generator=seeded(4)) @ torch.randn(
        9, 9, dtype=torch.float64, generator=seeded(5)
    )
    layer = Whitening(9, ridge=1e-9, taper=PatchTaper(side=3, channels=1, reach=1e-3)).double()
    layer.fit(x)
    off_diagonal = layer.weight - layer.weight.diagonal().diag()
    assert float(off_diagonal.abs().max()) < 1e-12
    torch.testing.assert_close(layer(x).std(dim=0), torch.ones(9, dtype=torch.float64), atol=1e-3, rtol=0)
