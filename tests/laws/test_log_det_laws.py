"""Every estimator has the right value and the right gradient, against slogdet of the dense Jacobian."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from invattn.branches import Branch
from invattn.logdet import Exact, PowerSeries
from invattn.testing import check_log_det_estimator, dense_jacobian

from .registry import (
    BRANCHES,
    CHAINS,
    ESTIMATORS,
    PLAIN_CERTIFIED,
    SOME_CHAINS,
    TOKENS,
    AnyCase,
    BlockCase,
    EstimatorCase,
    random_tokens,
    seeded,
)

BIAS = 1e-3  # d L^13 / (13 (1-L)) is 2e-4 for the 12 terms of the registry, d = 12 and L = 0.5


@pytest.mark.parametrize("case", [*PLAIN_CERTIFIED, *SOME_CHAINS], ids=str)
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_estimator(estimator: EstimatorCase, case: AnyCase) -> None:
    bias = 0.0 if estimator.draws == 1 else BIAS
    branch = case.branch(seed=1, tokens=3, lipschitz=0.5)
    check_log_det_estimator(estimator.estimator(), branch, case.inputs(3, 3), draws=estimator.draws, bias=bias)


@pytest.mark.parametrize("case", [case for case in BRANCHES if case.sees in ("all", "causal")], ids=str)
def test_exact_on_every_kind_and_recipe(case: BlockCase) -> None:
    check_log_det_estimator(Exact(), case.branch(seed=2, tokens=2), random_tokens(2, 2), tolerance=1e-7)


@pytest.mark.parametrize("case", [*PLAIN_CERTIFIED, *CHAINS], ids=str)
def test_exact_gradient_by_finite_differences(case: AnyCase) -> None:
    branch = case.branch(seed=3, tokens=2)
    x = case.inputs(1, 2).requires_grad_()
    parameters = list(branch.parameters())

    def log_det(*tensors: Tensor) -> Tensor:
        names = [name for name, _ in branch.named_parameters()]
        values = dict(zip(names, tensors[1:], strict=True))
        return Exact()(lambda tokens: torch.func.functional_call(branch, values, (tokens,)), tensors[0])[1]

    assert torch.autograd.gradcheck(log_det, (x, *parameters), fast_mode=True)


@pytest.fixture
def basis_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let 8 successive Rademacher probes be the rows of a Hadamard matrix: the mean of v v^T is the identity.

    The estimate is then the truncated series itself, for 2 tokens of 4 channels, and nothing is random.
    """
    hadamard = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(3):
        hadamard = torch.cat([torch.cat([hadamard, hadamard]), torch.cat([hadamard, -hadamard])], dim=1)
    rows: Iterator[Tensor] = iter(hadamard.repeat(20, 1))
    monkeypatch.setattr(PowerSeries, "_draw", lambda self, x: next(rows).view(2, 4).expand(x.shape))


@pytest.mark.usefixtures("basis_probes")
@pytest.mark.parametrize("case", PLAIN_CERTIFIED, ids=str)
def test_power_series_over_a_basis_equals_exact_in_value_and_every_gradient(case: BlockCase) -> None:
    branch, x = case.branch(seed=4, tokens=2, lipschitz=0.3), random_tokens(2, 2)
    check_log_det_estimator(PowerSeries(terms=20, probes=8), branch, x, tolerance=1e-9)


@pytest.mark.usefixtures("basis_probes")
@pytest.mark.parametrize("terms", [1, 2, 5])
def test_power_series_over_a_basis_is_the_truncated_series_and_so_is_its_gradient(terms: int) -> None:
    branch, x = BlockCase("embedded_gaussian").branch(seed=5, tokens=2), random_tokens(2, 2).requires_grad_()
    _, value = PowerSeries(terms=terms, probes=8)(branch, x)
    jacobian = dense_jacobian(branch, x, create_graph=True)
    power, series = torch.eye(8, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for k in range(1, terms + 1):
        power = power @ jacobian
        series = series - (-1) ** k * power.diagonal(dim1=-2, dim2=-1).sum(dim=-1) / k
    torch.testing.assert_close(value, series, rtol=1e-10, atol=1e-10)
    inputs = [x, *branch.parameters()]
    weights = torch.tensor([1.0, -2.0], dtype=torch.float64)
    found = torch.autograd.grad((weights * value).sum(), inputs, materialize_grads=True)
    wanted = torch.autograd.grad((weights * series).sum(), inputs, materialize_grads=True)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("basis_probes")
def test_weights_of_samples_reach_their_own_sample() -> None:
    """Residual-flow code scales the whole batch by sample 0's weight: with 0 there, no gradient would be left."""
    branch = BlockCase("concatenation").branch(seed=6, tokens=2, lipschitz=0.3)
    x = random_tokens(4, 2).requires_grad_()
    weights = torch.tensor([0.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    grads = []
    for estimator in (PowerSeries(terms=20, probes=8), Exact()):
        _, value = estimator(branch, x)
        grads.append(torch.autograd.grad((weights * value).sum(), [x, *branch.parameters()], materialize_grads=True))
    assert float(grads[0][0][0].abs().max()) == 0
    assert float(grads[0][0][1].abs().max()) > 0
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("terms", [1, 3, 8])
@pytest.mark.parametrize("case", [*PLAIN_CERTIFIED, *CHAINS], ids=str)
def test_truncation_and_powers_stay_within_the_proven_bounds(case: AnyCase, terms: int) -> None:
    """The series of a certified block: |error| <= d L^(n+1) / ((n+1) (1-L)), |J^k|_F <= sqrt(d) L^k."""
    branch = case.branch(seed=7, tokens=4)
    lipschitz = branch.lipschitz_bound().value
    jacobian = dense_jacobian(branch, case.inputs(3, 4))
    size = jacobian.shape[-1]
    exact = torch.linalg.slogdet(torch.eye(size, dtype=torch.float64) + jacobian).logabsdet
    series, power = torch.zeros_like(exact), torch.eye(size, dtype=torch.float64).expand_as(jacobian)
    for k in range(1, terms + 1):
        power = power @ jacobian
        assert (torch.linalg.matrix_norm(power) <= math.sqrt(size) * lipschitz**k * (1 + 1e-9)).all()
        series = series + (-1) ** (k + 1) * power.diagonal(dim1=-2, dim2=-1).sum(dim=-1) / k
    limit = size * lipschitz ** (terms + 1) / ((terms + 1) * (1 - lipschitz))
    assert ((series - exact).abs() <= limit).all()


@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
def test_the_standard_deviation_of_a_probe_stays_within_its_bound(probe: str) -> None:
    branch, x = BlockCase("embedded_gaussian").branch(seed=8, tokens=4), random_tokens(1, 4)
    lipschitz = branch.lipschitz_bound().value
    with torch.no_grad():
        _, value = PowerSeries(terms=30, probe=probe, generator=seeded(0))(branch, x.repeat(2000, 1, 1))
    assert 0 < float(value.std()) <= math.sqrt(2 * x.numel()) * -math.log1p(-lipschitz)


def test_the_standard_deviation_falls_with_the_root_of_the_probes() -> None:
    branch, x = BlockCase("dot_product").branch(seed=9, tokens=3), random_tokens(1, 3).repeat(3000, 1, 1)
    with torch.no_grad():
        spread = [
            float(PowerSeries(terms=8, probes=probes, generator=seeded(1))(branch, x)[1].std()) for probes in (1, 16)
        ]
    assert spread[0] / spread[1] == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
def test_the_generator_alone_decides_the_probes(probe: str) -> None:
    branch, x = BlockCase("gaussian").branch(seed=10), random_tokens()
    state = torch.get_rng_state()

    def draw(generator: torch.Generator | None) -> Tensor:
        with torch.no_grad():
            return PowerSeries(probe=probe, generator=generator)(branch, x)[1]

    assert torch.equal(draw(seeded(3)), draw(seeded(3)))
    assert not torch.equal(draw(seeded(3)), draw(seeded(4)))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    first = draw(None)
    assert not torch.equal(draw(None), first)
    torch.manual_seed(5)
    assert torch.equal(draw(None), first)


@pytest.mark.parametrize("case", [*PLAIN_CERTIFIED, *CHAINS], ids=str)
def test_the_inverse_log_det_belongs_to_the_recovered_point(case: AnyCase) -> None:
    """Minus the forward log-determinant at x = f^{-1}(z): not at z, and with the right sign."""
    block, z = case.block(seed=11, log_det_estimator=Exact()), case.inputs(3)
    with torch.no_grad():
        x, log_det = block.inverse_and_log_det(z)
        _, forward = block.forward_and_log_det(x)
        _, at_output = block.forward_and_log_det(z)
    torch.testing.assert_close(log_det, -forward, rtol=1e-10, atol=1e-10)
    assert float((at_output - forward).abs().min()) > 1e-6
    exact = torch.linalg.slogdet(dense_jacobian(block, x)).logabsdet
    assert float(exact.abs().min()) > 1e-6
    torch.testing.assert_close(log_det, -exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", [*PLAIN_CERTIFIED, *CHAINS], ids=str)
def test_the_gradient_of_the_inverse_log_det_is_that_of_the_whole_chain(case: AnyCase) -> None:
    """d/dz and d/dtheta of -log|det(I + J(x(z, theta), theta))|, x differentiated by the implicit function theorem."""
    block = case.block(grid=(3,), seed=12, log_det_estimator=Exact())
    tensors = [case.inputs(1, 3).requires_grad_(), *block.parameters()]
    _, log_det = block.inverse_and_log_det(tensors[0])
    found = torch.autograd.grad(log_det.sum(), tensors)
    kept = [tensor.detach().clone() for tensor in tensors]
    directions = [torch.randn(tensor.shape, dtype=torch.float64, generator=seeded(13)) for tensor in tensors]
    for moved in ([0], list(range(1, len(tensors)))):
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                for i, tensor in enumerate(tensors):
                    tensor.copy_(kept[i] + step * directions[i] if i in moved else kept[i])
                values.append(float(block.inverse_and_log_det(tensors[0])[1].sum()))
        slope = (values[0] - values[1]) / 2e-5
        expected = sum(float((found[i] * directions[i]).sum()) for i in moved)
        assert slope == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_branch_that_is_linear_has_the_log_det_of_its_matrix() -> None:
    """No autograd in the oracle: log det(I + A (x) I_N) = N log det(I + A)."""
    branch: Branch = BlockCase("pointwise", "unconstrained").branch(seed=14)
    with torch.no_grad():
        branch.get_submodule("value").get_parameter("weight").mul_(0.2)
    matrix = branch.get_submodule("value").get_parameter("weight").detach()
    expected = TOKENS * torch.linalg.slogdet(torch.eye(4, dtype=torch.float64) + matrix).logabsdet
    _, log_det = Exact()(branch, random_tokens(2))
    torch.testing.assert_close(log_det.detach(), expected.expand(2), rtol=1e-11, atol=1e-11)
