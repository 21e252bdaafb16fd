"""Options of the power series."""

from __future__ import annotations

import pytest
import torch

from invattn.logdet import PowerSeries


@pytest.mark.parametrize(("terms", "probes"), [(0, 1), (1, 0), (-1, -1)])
def test_terms_and_probes_must_be_positive(terms: int, probes: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1; got {terms} and {probes}"):
        PowerSeries(terms=terms, probes=probes)


def test_an_unknown_probe_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"probe distribution 'gausian'. Did you mean 'gaussian'\?"):
        PowerSeries(probe="gausian")


def test_probes_have_the_moments_they_are_named_after() -> None:
    x = torch.zeros(4000, 2, 2, dtype=torch.float64)
    for probe, fourth in (("rademacher", 1.0), ("gaussian", 3.0)):
        drawn = PowerSeries(probe=probe, generator=torch.Generator().manual_seed(0))._draw(x)
        assert drawn.dtype == torch.float64
        assert float(drawn.mean()) == pytest.approx(0, abs=0.04)
        assert float(drawn.square().mean()) == pytest.approx(1, abs=0.05)
        assert float(drawn.pow(4).mean()) == pytest.approx(fourth, abs=0.3)
        assert float((drawn[:, 0, 0] * drawn[:, 1, 1]).mean()) == pytest.approx(0, abs=0.08)


def test_a_constant_map_has_log_det_zero_and_a_scaled_identity_the_series_of_its_factor() -> None:
    """J = a I: v^T J^k v = a^k d for a Rademacher probe, so nothing is left to chance."""
    x = torch.randn(3, 2, 4, dtype=torch.float64)
    _, log_det = PowerSeries(terms=4)(lambda tokens: 0 * tokens + 1, x)
    assert not log_det.any()
    for terms in (1, 2, 5):
        _, log_det = PowerSeries(terms=terms, probes=2)(lambda tokens: 0.5 * tokens, x)
        expected = 8 * sum((-1) ** (k + 1) * 0.5**k / k for k in range(1, terms + 1))
        torch.testing.assert_close(log_det, torch.full((3,), expected, dtype=torch.float64))
