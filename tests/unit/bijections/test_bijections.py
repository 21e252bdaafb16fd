"""Chains, squeezing, layouts: reports merged, bounds carried, refusals."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from invattn import CertificateError, Solution, Status, invertible_attention
from invattn.bijections import (
    ActNorm,
    Bijection,
    ClassAffine,
    ClosedForm,
    Composed,
    HistogramNormal,
    ImageLayout,
    Inverse,
    Linear1x1,
    Logit,
    MonotoneSpline,
    Reshape,
    ResidualBijection,
    Squeeze,
    Whitening,
)
from invattn.lipschitz import BiLipschitz, isometry
from invattn.logdet import PowerSeries
from invattn.solvers import Adaptive, Picard, Solver


class Scripted(Bijection):
    """The identity with a report that was given."""

    def __init__(self, report: Solution, constant: float | None) -> None:
        super().__init__()
        self.report = report
        self.constant = constant

    @property
    def certified(self) -> bool:
        return self.constant is not None

    def bi_lipschitz(self, shape: Sequence[int], *, norm: str | None = None) -> BiLipschitz:
        if self.constant is None:
            raise CertificateError("nothing is known.")
        return BiLipschitz(1 / self.constant, 3.0, norm or "inf,2", norm or "inf,2", ("scripted",))

    def forward(self, x: Tensor) -> Tensor:
        return x

    def solve(self, z: Tensor, *, start: Tensor | None = None) -> Solution:
        return self.report.with_value(z)

    def inverse(self, z: Tensor) -> Tensor:
        return z

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x.new_zeros(x.shape[0])

    def inverse_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward_and_log_det(z)


def report(status: list[int], residual: list[float], steps: list[int], bound: list[float] | None) -> Solution:
    codes = torch.tensor(status)
    return Solution(
        value=torch.zeros(len(status), 1, 1),
        converged=codes == 0,
        residual=torch.tensor(residual),
        num_steps=torch.tensor(steps),
        error_bound=None if bound is None else torch.tensor(bound),
        status=codes,
    )


def block(kind: str = "embedded_gaussian", solver: Solver | None = None, **options: float) -> Bijection:
    torch.manual_seed(1)
    made = invertible_attention(4, kind=kind, layout="tokens", solver=solver, **options).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return made


def test_reports_of_a_chain_are_merged() -> None:
    first = Scripted(report([0, 0, 3, 1], [1.0, 2.0, 3.0, 4.0], [1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4]), 10.0)
    last = Scripted(report([0, 2, 0, 3], [5.0, 1.0, 1.0, 1.0], [5, 5, 5, 5], [1.0, 1.0, 1.0, 1.0]), 7.0)
    solution = Composed([first, last]).solve(torch.zeros(4, 1, 1))
    # The inverse goes through the last part first: its failure comes first.
    assert solution.status.tolist() == [0, 2, 3, 3]
    assert solution.converged.tolist() == [True, False, False, False]
    assert solution.residual.tolist() == [5.0, 2.0, 3.0, 4.0]
    assert solution.num_steps.tolist() == [6, 7, 8, 9]
    assert solution.error_bound is not None
    torch.testing.assert_close(solution.error_bound, torch.tensor([10.1, 10.2, 10.3, 10.4]))
    assert Composed([first, last]).bi_lipschitz((1, 1)).lower == pytest.approx(1 / 70)
    with pytest.raises(CertificateError, match=r"part 1 of the chain: nothing is known\."):
        Composed([first, Scripted(first.report, None)]).bi_lipschitz((1, 1))
    assert Composed([]).bi_lipschitz((1, 1)) == isometry("inf,2")


@pytest.mark.parametrize("missing", ["bound", "constant"])
def test_a_part_without_a_bound_leaves_the_chain_without_one(missing: str) -> None:
    known = Scripted(report([0], [0.0], [1], [0.1]), 2.0)
    unknown = Scripted(report([0], [0.0], [1], None if missing == "bound" else [0.1]), None)
    assert Composed([unknown, known]).solve(torch.zeros(1, 1, 1)).error_bound is None
    assert Composed([known, known]).solve(torch.zeros(1, 1, 1)).error_bound is not None


@pytest.mark.parametrize("steps", [0, 1, 2, 5, 20])
def test_the_error_bound_of_a_chain_holds_wherever_its_solvers_stop(steps: int) -> None:
    chain = Composed([block(kind, Picard(max_steps=steps)) for kind in ("gaussian", "pointwise", "concatenation")])
    x = torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        solution = chain.solve(chain(x))
    error = (solution.value - x).norm(dim=-1).amax(dim=-1)
    assert solution.error_bound is not None
    assert (error <= solution.error_bound).all()
    if steps == 0:
        assert (error > 0).all()


def test_a_sample_that_is_not_finite_is_reported_through_the_whole_chain() -> None:
    chain = Composed([Squeeze(2), invertible_attention(4, kind="gaussian", layout="image")])
    z = chain(torch.randn(3, 1, 4, 4)).detach()
    z[1, 0, 0, 0] = torch.nan
    solution = chain.solve(z)
    assert solution.status.tolist() == [0, int(Status.NON_FINITE), 0]
    assert solution.converged.tolist() == [True, False, True]
    assert solution.value[[0, 2]].isfinite().all()
    exact = Squeeze(2).solve(z)
    assert exact.status.tolist() == [0, int(Status.NON_FINITE), 0]
    assert exact.residual.isnan().tolist() == [False, True, False]


def test_a_chain_is_certified_if_every_part_is() -> None:
    proven, not_proven = block(), invertible_attention(4, recipe="paper", layout="tokens")
    assert Composed([proven, proven]).certified
    assert not Composed([proven, not_proven]).certified
    assert Inverse(proven).certified
    assert not Inverse(not_proven).certified
    image = invertible_attention(4)
    assert image.certified
    assert Composed([Squeeze(2), image]).certified
    with pytest.raises(ValueError, match="Squeeze is not a single residual block"):
        _ = ImageLayout(Squeeze(2)).branch


class Squared(ClosedForm):
    """x^2, which is no bijection."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x

    def inverse(self, z: Tensor) -> Tensor:
        return z.sqrt()

    def log_det(self, x: Tensor) -> Tensor:
        return (2 * x).abs().log().flatten(1).sum(dim=1)


def test_nothing_is_certified_unless_its_class_proves_it() -> None:
    assert not Squared().certified
    assert not Composed([Squeeze(2), Squared()]).certified
    assert Squared().solve(torch.ones(2, 3)).error_bound is None
    for proven in (ActNorm(2), ClassAffine((2,), 3), Linear1x1(2), Logit(), MonotoneSpline(2), Whitening(2)):
        assert proven.certified
    assert Reshape((4,)).certified
    assert HistogramNormal(2, levels=4).certified
    assert Composed([Reshape((2, 2, 2)), ActNorm(8)]).certified


def test_the_inverse_of_an_inverse() -> None:
    inner = block(solver=Adaptive())
    turned = Inverse(inner)
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    assert torch.equal(turned.inverse(x), inner(x))
    assert torch.equal(turned(x), inner.inverse(x))
    assert turned.solve(x).error_bound is None
    torch.testing.assert_close(Inverse(turned)(x), inner(x))


def test_defaults_are_the_adaptive_solver_and_the_power_series() -> None:
    made = ResidualBijection(block().branch)
    assert made.solver == Adaptive()
    assert made.log_det_estimator == PowerSeries()
    assert isinstance(invertible_attention(4), ImageLayout)


@pytest.mark.parametrize("call", ["__call__", "inverse", "solve", "forward_and_log_det", "inverse_and_log_det"])
def test_an_image_block_refuses_tokens(call: str) -> None:
    made = invertible_attention(4)
    with pytest.raises(ValueError, match=r"\(B, C, H, W\); got \(2, 5, 4\).*layout='tokens'"):
        getattr(made, call)(torch.zeros(2, 5, 4))
    with pytest.raises(ValueError, match=r"tokens must have shape \(B, N, 4\); got \(2, 9, 3\)"):
        getattr(made, call)(torch.zeros(2, 3, 3, 3))


def test_pixels_are_in_row_major_order() -> None:
    image = torch.arange(24.0).view(1, 2, 3, 4)
    tokens = invertible_attention(2).to_branch(image)
    assert tokens.shape == (1, 12, 2)
    assert tokens[0, 1 * 4 + 2].tolist() == image[0, :, 1, 2].tolist()


@pytest.mark.parametrize("call", ["inverse", "solve", "inverse_and_log_det"])
def test_squeeze_refuses_what_it_did_not_make(call: str) -> None:
    with pytest.raises(ValueError, match="3 channels cannot be unsqueezed by 2"):
        getattr(Squeeze(2), call)(torch.zeros(1, 3, 2, 2))
    with pytest.raises(ValueError, match="the factor must be at least 1; got 0"):
        Squeeze(0)
    assert "factor=2" in repr(Squeeze(2))
