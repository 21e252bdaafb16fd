"""A log-determinant with its standard error and truncation bound, through chains and layouts."""

from __future__ import annotations

import pytest
import torch

from invattn import invertible_attention
from invattn.bijections import Bijection, Composed, Inverse, Squeeze
from invattn.logdet import Exact, LogDetEstimator, PowerSeries, RussianRoulette


def chain(estimator: LogDetEstimator, recipe: str = "certified") -> Bijection:
    torch.manual_seed(0)
    blocks = [
        invertible_attention(4, kind=kind, recipe=recipe, lipschitz=0.5, log_det_estimator=estimator)
        for kind in ("dot_product", "embedded_gaussian")
    ]
    return Composed([Squeeze(2), *blocks]).double().eval()


def images() -> torch.Tensor:
    return torch.randn(3, 1, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_the_exact_log_det_has_no_error() -> None:
    model, x = chain(Exact()), images()
    z, report = model.forward_and_log_det_report(x)
    expected = model.forward_and_log_det(x)
    torch.testing.assert_close((z, report.value), expected)
    assert report.standard_error is not None
    assert not report.standard_error.any()
    assert report.truncation_bound == 0


@pytest.mark.parametrize("terms", [1, 3])
def test_a_cut_series_is_within_its_errors(terms: int) -> None:
    x = images()
    exact = chain(Exact()).forward_and_log_det(x)[1]
    generator = torch.Generator().manual_seed(2)
    _, report = chain(PowerSeries(terms=terms, probes=400, generator=generator)).forward_and_log_det_report(x)
    assert report.standard_error is not None
    assert report.truncation_bound is not None
    assert report.truncation_bound == pytest.approx(2 * 24 * 0.5 ** (terms + 1) / (terms + 1) / 0.5, rel=1e-3)
    assert ((report.value - exact).abs() <= report.truncation_bound + 4 * report.standard_error).all()


def test_roulette_is_within_its_standard_error() -> None:
    x = images()
    exact = chain(Exact()).forward_and_log_det(x)[1]
    generator = torch.Generator().manual_seed(3)
    _, report = chain(RussianRoulette(probes=300, generator=generator)).forward_and_log_det_report(x)
    assert report.truncation_bound == 0
    assert report.standard_error is not None
    assert ((report.value - exact).abs() <= 4 * report.standard_error).all()
    assert float(report.standard_error.max()) < 0.2


def test_what_is_unknown_stays_unknown() -> None:
    _, report = chain(PowerSeries(), recipe="paper").forward_and_log_det_report(images())
    assert report.standard_error is None
    assert report.truncation_bound is None


def test_an_inverse_reports_the_log_determinant_of_its_map_with_the_other_sign() -> None:
    squeezed = Squeeze(2)(images())
    _, forward = chain(Exact()).forward_and_log_det_report(images())
    _, back = Inverse(chain(Exact())).forward_and_log_det_report(chain(Exact())(images()))
    assert torch.allclose(back.value, -forward.value, rtol=0, atol=1e-9)
    _, report = Inverse(Squeeze(2)).forward_and_log_det_report(squeezed)
    assert not report.value.any()
