"""Estimators of the log-determinant on blocks that were trained, where the Jacobian is far from zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor

from invattn import ATTENTION_KINDS, invertible_attention
from invattn.bijections import ResidualBijection
from invattn.branches import Branch, CertifiedConvolution, CertifiedMLP, Padding
from invattn.logdet import Exact, LogDetEstimate, LogDetEstimator, PowerSeries, RussianRoulette
from invattn.testing import check_log_det_estimator, check_log_det_mean, dense_jacobian

from .registry import seeded

L = 0.9
NAMES = (*ATTENTION_KINDS, "convolution", "mlp")
SOME = ("embedded_gaussian", "convolution")  # tried with every estimator; the others too by the slow tests
BATCH = 4  # weights 0, 1, 1, 1


def fresh(name: str, side: int) -> tuple[Branch, tuple[int, ...]]:
    """A branch of 4 x side entries a sample, and the shape of one."""
    torch.manual_seed(1)
    if name == "convolution":
        padding = Padding(grid=(2, side // 2))
        made: Branch = CertifiedConvolution(
            channels=4, hidden_channels=6, kernel_sizes=(3, 3), padding=padding, lipschitz=L
        )
        return made, (4, 2, side // 2)
    if name == "mlp":
        return CertifiedMLP(channels=4, hidden_channels=(16,), lipschitz=L), (side, 4)
    return invertible_attention(4, kind=name, key_channels=4, layout="tokens", lipschitz=L).branch, (side, 4)


@cache
def trained(name: str, side: int = 4) -> tuple[Branch, Tensor]:
    """A block after some steps of maximum likelihood on data with large and small directions, and data."""
    branch, shape = fresh(name, side)
    branch = branch.double()
    scale = torch.linspace(0.2, 3.0, 4 * side, dtype=torch.float64).view(shape)
    data = scale * torch.randn(40, *shape, dtype=torch.float64, generator=seeded(2))
    optimiser, draw = torch.optim.Adam(branch.parameters(), lr=0.05), seeded(3)
    for _ in range(25):
        batch = data[torch.randint(len(data), (8,), generator=draw)]
        image, log_det = Exact()(branch, batch)
        loss = (0.5 * (batch + image).flatten(1).square().sum(dim=1) - log_det).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return branch.eval().requires_grad_(), data[:BATCH]


ESTIMATORS: dict[str, Callable[[], LogDetEstimator]] = {
    "rademacher": lambda: PowerSeries(terms=4, generator=seeded(4)),
    "gaussian": lambda: PowerSeries(terms=4, probe="gaussian", generator=seeded(5)),
    "roulette": lambda: RussianRoulette(exact_terms=2, generator=seeded(6)),
}


def terms_of(estimator: str) -> int | None:
    return None if estimator == "roulette" else 4


@pytest.mark.parametrize("name", NAMES)
def test_training_moves_the_jacobian_away_from_zero(name: str) -> None:
    """Else no wrong coefficient beyond the first could be seen; the bound holds all the same."""
    branch, x = trained(name)
    jacobian = dense_jacobian(branch, x)
    square = (jacobian @ jacobian).diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    assert float(square.abs().mean()) > 0.1
    assert 0.25 < float(torch.linalg.eigvals(jacobian).abs().max()) < branch.lipschitz_bound().value <= L


@pytest.mark.parametrize(
    ("name", "estimator"),
    [(name, estimator) for name in NAMES for estimator in ESTIMATORS if estimator == "rademacher" or name in SOME],
)
def test_the_bias_at_4000_probes_is_below_3_standard_errors(name: str, estimator: str) -> None:
    branch, x = trained(name)
    check_log_det_mean(ESTIMATORS[estimator](), branch, x, terms=terms_of(estimator), generator=seeded(7))


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("name", NAMES)
def test_the_bias_is_below_3_standard_errors_at_64_dimensions(name: str, estimator: str) -> None:
    branch, x = trained(name, 16)
    check_log_det_mean(
        ESTIMATORS[estimator](), branch, x, terms=terms_of(estimator), rounds=160, copies=100, generator=seeded(8)
    )


@pytest.mark.parametrize("name", NAMES)
def test_exact_has_the_value_and_the_gradient_of_slogdet(name: str) -> None:
    branch, x = trained(name)
    check_log_det_estimator(Exact(), branch, x, tolerance=1e-8)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("terms", [1, 3, 10, 40])
def test_the_truncation_error_stays_within_its_bound(name: str, terms: int) -> None:
    branch, x = trained(name)
    jacobian = dense_jacobian(branch, x)
    identity, power = torch.eye(jacobian.shape[-1], dtype=x.dtype), jacobian
    series = torch.zeros(BATCH, dtype=x.dtype)
    for k in range(1, terms + 1):
        series = series - (-1) ** k * power.diagonal(dim1=-2, dim2=-1).sum(dim=-1) / k
        power = power @ jacobian
    error = (series - torch.linalg.slogdet(identity + jacobian).logabsdet).abs()
    bound = PowerSeries(terms=terms).truncation_bound(x[0].numel(), branch.lipschitz_bound().value)
    assert bool((error <= bound).all())
    if terms == 1:
        assert float(error.max()) > 1e-2, "nothing was cut"


@pytest.mark.parametrize("name", NAMES)
def test_the_inverse_log_det_has_the_right_sign_and_point(name: str) -> None:
    branch, x = trained(name)
    block = ResidualBijection(branch, log_det_estimator=Exact())
    z, log_det = block.forward_and_log_det(x)
    back, inverse_log_det = block.inverse_and_log_det(z.detach())
    torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=1e-8, atol=1e-8)
    assert float(log_det.detach().abs().min()) > 1e-2
    assert float((block.forward_and_log_det(z.detach())[1] - log_det).detach().abs().max()) > 1e-3


@dataclass(frozen=True)
class Series(LogDetEstimator):
    """The series written out term by term, with its autograd gradient, and perhaps one bug."""

    bug: str = ""
    terms: int = 4
    roulette: float | None = None

    def estimate(
        self, branch: Callable[[Tensor], Tensor], x: Tensor, *, lipschitz: Callable[[], float | None] | None = None
    ) -> LogDetEstimate:
        point = x if x.requires_grad else x.detach().requires_grad_()
        image = branch(point)
        probe = torch.randint(0, 2, x.shape).to(x.dtype) * 2 - 1
        vector, value, survival = probe, x.new_zeros(len(x)), self._survival()
        for k, kept in enumerate(survival, start=1):
            (vector,) = torch.autograd.grad(image, point, vector, create_graph=True)
            value = value + self._coefficient(k, kept) * (vector * probe).flatten(1).sum(dim=1)
        if self.bug == "weight of the first sample for all":
            value = value.detach() + (value[:1] - value[:1].detach()) * len(value)
        if self.bug == "gradient lost":
            value = value.detach()
        if self.bug == "gradient doubled":
            value = 2 * value - value.detach()
        return LogDetEstimate(image, value, None)

    def truncation_bound(self, size: int, lipschitz: float) -> float:
        return 0.0

    def _survival(self) -> Sequence[float]:
        kept = [1.0] * self.terms
        while self.roulette is not None and float(torch.rand(())) < self.roulette:
            kept.append(kept[-1] * self.roulette)
        return kept

    def _coefficient(self, k: int, kept: float) -> float:
        right = (-1) ** (k + 1) / (k * kept)
        wrong = {
            "no 1/k": k * right,
            "1/(k+1)": k / (k + 1) * right,
            "no sign": abs(right),
            "other sign": -right,
            "sign of the second term": -right if k == 2 else right,
            "no 1/P": kept * right,
            "1/P twice": right / kept,
        }
        return wrong.get(self.bug, right)


def check_series(bug: str) -> None:
    """Whether the law accepts a series; bugs of the roulette's weights are looked at where they matter."""
    branch, x = trained("mlp")
    torch.manual_seed(9)
    if "1/P" in bug or bug == "roulette":
        series, terms, rounds = Series(bug, terms=1, roulette=0.6), None, 200
    else:
        series, terms, rounds = Series(bug), 4, 40
    check_log_det_mean(series, branch, x, terms=terms, rounds=rounds, copies=20, generator=seeded(10))


@pytest.mark.parametrize("bug", ["", "roulette"])
def test_the_series_written_out_passes(bug: str) -> None:
    check_series(bug)


@pytest.mark.parametrize(
    ("bug", "message"),
    [
        ("no 1/k", "mean value"),
        ("1/(k+1)", "mean value"),
        ("no sign", "mean value"),
        ("other sign", "mean value"),
        ("sign of the second term", "mean value"),
        ("no 1/P", "mean value"),
        ("1/P twice", "mean value"),
        ("weight of the first sample for all", "weight 0 receives a gradient"),
        ("gradient lost", "mean gradient by"),
        ("gradient doubled", "mean gradient by"),
    ],
)
def test_a_mutated_series_is_rejected_by_the_same_law(bug: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_series(bug)
