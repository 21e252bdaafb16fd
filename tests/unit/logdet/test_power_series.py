"""Series with random probes: options, the random number of terms and its weights, and draws of parts of a batch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from invattn.logdet import LogDetEstimator, PowerSeries, RussianRoulette, Shard


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


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def halve(tokens: Tensor) -> Tensor:
    return 0.5 * tokens


@pytest.mark.parametrize("options", [{"exact_terms": 0}, {"p": 0.0}, {"p": 1.0}, {"probes": 0}, {"probe": "no"}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"at least 1|strictly between|unknown probe"):
        RussianRoulette(**options)  # type: ignore[arg-type]


def test_the_number_of_terms_has_the_law_that_the_weights_assume() -> None:
    estimator = RussianRoulette(exact_terms=2, generator=seeded(0))
    drawn = [estimator._survival(0.7) for _ in range(4000)]
    longest = max(drawn, key=len)
    assert longest[:4] == pytest.approx([1, 1, 0.7, 0.49])
    for k in range(1, 8):
        share = sum(len(kept) >= k for kept in drawn) / len(drawn)
        assert share == pytest.approx(longest[k - 1], abs=4 * math.sqrt(0.25 / len(drawn)) + 1e-12)


def test_it_has_no_bias_where_the_cut_series_has_one() -> None:
    """J = a I with Rademacher probes: only the number of terms is random."""
    x = torch.zeros(1, 2, 4, dtype=torch.float64)
    exact = 8 * math.log(1.5)
    estimator = RussianRoulette(exact_terms=1, p=0.6, generator=seeded(1))
    values = torch.stack([estimator(halve, x)[1].detach() for _ in range(3000)])
    error = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean()) - exact) <= 4 * error
    assert error <= 0.02
    cut = float(PowerSeries(terms=1)(halve, x)[1])
    assert abs(cut - exact) > 20 * error


def test_a_wrong_weight_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RussianRoulette, "_survival", lambda self, p: [1.0] * (2 if torch.rand(()) < p else 1))
    torch.manual_seed(0)
    x = torch.zeros(1, 2, 4, dtype=torch.float64)
    estimator = RussianRoulette(exact_terms=1, p=0.6)
    values = torch.stack([estimator(halve, x)[1].detach() for _ in range(3000)])
    assert abs(float(values.mean()) - 8 * math.log(1.5)) > 10 * float(values.std()) / math.sqrt(len(values))


@pytest.mark.parametrize(
    ("p", "bound", "chosen"), [(None, 0.8, 0.8), (None, 0.2, 0.5), (None, None, 0.9), (0.3, 0.8, 0.3)]
)
def test_the_certificate_chooses_p(p: float | None, bound: float | None, chosen: float) -> None:
    assert RussianRoulette(p=p)._continuation(lambda: bound) == chosen
    assert RussianRoulette(p=p)._continuation(None) == (p or 0.9)


def test_the_second_moment_is_what_the_theory_says() -> None:
    """J = a I with Rademacher probes, d = 8: S = sum_{k<=N} (-1)^{k+1} a^k d / (k P_k) in closed form."""
    a, p, size = 0.5, 0.6, 8
    kept = [p ** max(0, k - 1) for k in range(1, 60)]
    coefficients = [(-1) ** (k + 1) * a**k * size / k for k in range(1, 60)]
    moment = sum(
        coefficients[k] / kept[k] * (coefficients[k] + 2 * sum(coefficients[k + 1 :])) for k in range(len(coefficients))
    )
    x = torch.zeros(1, 2, 4, dtype=torch.float64)
    estimator = RussianRoulette(exact_terms=1, p=p, generator=seeded(2))
    squares = torch.stack([estimator(halve, x)[1].detach().square() for _ in range(3000)])
    assert abs(float(squares.mean()) - moment) <= 4 * float(squares.std()) / math.sqrt(len(squares))


def test_the_standard_error_is_that_of_the_mean_over_probes() -> None:
    x = torch.randn(500, 3, 4, dtype=torch.float64, generator=seeded(3))
    matrix = 0.3 * torch.randn(4, 4, dtype=torch.float64, generator=seeded(4)) / 2

    def linear(tokens: Tensor) -> Tensor:
        return tokens @ matrix

    assert RussianRoulette(probes=1).estimate(linear, x).standard_error is None
    for estimator in (
        RussianRoulette(probes=16, p=0.5, generator=seeded(5)),
        PowerSeries(probes=16, generator=seeded(6)),
    ):
        found = estimator.estimate(linear, x)
        assert found.standard_error is not None
        assert not found.standard_error.requires_grad
        exact = 3 * torch.linalg.slogdet(torch.eye(4, dtype=torch.float64) + matrix).logabsdet
        ratio = (found.value.detach() - exact).square().mean().sqrt() / found.standard_error.square().mean().sqrt()
        assert float(ratio) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(("terms", "lipschitz"), [(1, 0.5), (10, 0.9)])
def test_truncation_bounds(terms: int, lipschitz: float) -> None:
    """d (-log(1 - L) - sum_{k<=n} L^k / k) is the worst case; the bound is at most a factor 1 / (1 - L) above."""
    worst = 6 * (-math.log1p(-lipschitz) - sum(lipschitz**k / k for k in range(1, terms + 1)))
    bound = PowerSeries(terms=terms).truncation_bound(6, lipschitz)
    assert worst <= bound <= worst / (1 - lipschitz)
    assert RussianRoulette().truncation_bound(6, lipschitz) == 0


def test_the_generator_alone_decides() -> None:
    state = torch.get_rng_state()
    x = torch.randn(2, 3, 4, generator=seeded(7))
    values = [RussianRoulette(p=0.9, generator=seeded(8))(torch.tanh, x)[1] for _ in range(2)]
    assert torch.equal(*values)
    assert torch.equal(torch.get_rng_state(), state)


X = torch.randn(8, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MATRIX = 0.4 * torch.tensor([[1.0, -0.5], [0.7, 0.3]], dtype=torch.float64)


def branch(x: Tensor) -> Tensor:
    return torch.tanh(x @ MATRIX)


def make(kind: str, *, probe: str, seed: int, shard: Shard) -> LogDetEstimator:
    generator = torch.Generator().manual_seed(seed)
    if kind == "series":
        return PowerSeries(terms=4, probes=2, probe=probe, generator=generator, shard=shard)
    return RussianRoulette(exact_terms=1, p=0.7, probes=3, probe=probe, generator=generator, shard=shard)


@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
@pytest.mark.parametrize("kind", ["series", "roulette"])
@pytest.mark.parametrize("parts", [2, 4])
def test_parts_draw_the_probes_of_the_whole_batch(kind: str, probe: str, parts: int) -> None:
    for seed in range(4):  # the roulette's number of terms differs between seeds, and must not between parts
        _, whole = make(kind, probe=probe, seed=seed, shard=Shard())(branch, X)
        found = [
            make(kind, probe=probe, seed=seed, shard=Shard(part, parts))(branch, rows)[1]
            for part, rows in enumerate(X.chunk(parts))
        ]
        torch.testing.assert_close(torch.cat(found), whole, rtol=1e-12, atol=1e-12)


def test_parts_have_different_probes() -> None:
    values = [make("series", probe="gaussian", seed=0, shard=Shard(part, 2))(branch, X[:4])[1] for part in range(2)]
    assert bool((values[0] != values[1]).all())


def test_a_part_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and parts - 1 = 1; got 2"):
        Shard(2, 2)
