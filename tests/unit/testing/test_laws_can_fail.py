"""Mutations: every law that is shipped fails where it should, and says what is wrong.

The mutations are the peers' bugs: a wrong sign, a missing coefficient, a lost gradient, one sample's weight for all,
a log-determinant at the wrong point, a report that is not true.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from invattn import LipschitzBound, Solution, invertible_attention
from invattn.bijections import Bijection, ResidualBijection, Squeeze
from invattn.branches import Branch, CertifiedConvolution, CertifiedMLP, Padding
from invattn.functional import convolution_norm, convolution_token_norm, convolve, power_iteration
from invattn.lipschitz import Elementwise
from invattn.logdet import Exact, LogDetEstimate, LogDetEstimator, PowerSeries
from invattn.recipes import Certified
from invattn.solvers import Adaptive, Picard, Solver
from invattn.testing import check_bijection, check_branch, check_inverse_gradient, check_log_det_estimator, check_solver


def tokens(seed: int = 0) -> Tensor:
    return torch.randn(3, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def good_branch() -> Branch:
    torch.manual_seed(1)
    block = invertible_attention(2, kind="embedded_gaussian", layout="tokens", lipschitz=0.6).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return block.branch


class Changed(Branch):
    """A branch that is g followed by something."""

    def __init__(self, change: Callable[[Branch, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner = good_branch()
        self.change = change
        self.channels = 2
        self.calls = 0

    @property
    def certified(self) -> bool:
        return True

    def lipschitz_bound(self) -> LipschitzBound:
        return self.inner.lipschitz_bound()

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.change(self.inner, x)


def overwrites(g: Branch, x: Tensor) -> Tensor:
    image = g(x)
    x.add_(1)
    return image


class Wobbling(Changed):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1e-9 * self.calls


@pytest.mark.parametrize(
    ("branch", "message"),
    [
        (lambda: Changed(lambda g, x: g(x)[:, :2]), "g.x. has shape"),
        (lambda: Changed(lambda g, x: g(x).float()), "g.x. is torch.float32"),
        (lambda: Changed(lambda g, x: g(x) / 0), "not finite"),
        (lambda: Changed(overwrites), "changed its input"),
        (lambda: Wobbling(lambda g, x: g(x)), "two different values"),
        (lambda: Changed(lambda g, x: g(x) + x.mean(dim=0)), "of a sample alone"),
        (lambda: Changed(lambda g, x: g(x) + 1.5 * x.detach()), "ratio"),
        (lambda: Changed(lambda g, x: g(x) - 1.5 * x), "eigenvalue"),
        (lambda: Changed(lambda g, x: 60 * g(x)), "eigenvalue"),
    ],
)
def test_a_branch(branch: Callable[[], Branch], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_branch(branch(), tokens(), generator=torch.Generator().manual_seed(2))


class WrongTranspose(Changed):
    """A branch whose transpose of J is that at another point, or J itself."""

    def __init__(self, way: Callable[[Branch, Tensor], tuple[Tensor, Callable[[Tensor], Tensor]]]) -> None:
        super().__init__(lambda g, x: g(x))
        self.way = way

    def linearised(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        return self.way(self.inner, x)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        (lambda g, x: (g(x), g.linearised((x + 0.1).detach().requires_grad_())[1]), "transpose of J at x"),
        (lambda g, x: (g(x), lambda v: torch.func.jvp(g, (x.detach(),), (v,))[1].detach()), "transpose of J at x"),
        (lambda g, x: (g(x + 0.1), g.linearised(x)[1]), "the value of g with"),
        (lambda g, x: (g(x), lambda v: torch.autograd.grad(g(x), x, v, create_graph=True)[0]), "returned a graph"),
        (lambda g, x: (g(x), lambda v: g.linearised(x)[1](v.mul_(1 + 1e-12))), "changed its argument"),
        (lambda g, x: (g(x.detach()) + (0.5 * x - 0.5 * x), g.linearised(x)[1]), "the graph of g"),
    ],
)
def test_a_transpose_of_the_derivative(way: Callable[..., Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_branch(WrongTranspose(way), tokens(), generator=torch.Generator().manual_seed(2))


def test_a_bound_that_is_none_and_a_certificate_that_is_none() -> None:
    class Loose(Changed):
        def lipschitz_bound(self) -> LipschitzBound:
            return LipschitzBound(1.5, "inf,2", "")

    class OtherNorm(Changed):
        def lipschitz_bound(self) -> LipschitzBound:
            return LipschitzBound(0.9, "1", "")

    class NotCertified(Changed):
        @property
        def certified(self) -> bool:
            return False

    for kind, message in ((Loose, "not below 1"), (OtherNorm, "norm '1'"), (NotCertified, "returned the bound")):
        with pytest.raises(AssertionError, match=message):
            check_branch(kind(lambda g, x: g(x)), tokens())


class Wrong(CertifiedConvolution):
    """A linear convolution of one channel whose norm is taken in a wrong way."""

    def __init__(self, way: Callable[[Tensor], Tensor], taps: Tensor, *, norm: str = "2") -> None:
        super().__init__(channels=1, kernel_sizes=(3,), padding=Padding(grid=(3, 3)), norm=norm)
        self.way = way
        self.double()
        with torch.no_grad():
            self.layers[0].get_parameter("weight").copy_(taps)

    def _norm(self, weight: Tensor) -> Tensor:
        return self.way(weight)


def few_steps_of_power_iteration(weight: Tensor) -> Tensor:
    """The estimate of many implementations: it is below the norm."""
    basis = torch.eye(9, dtype=torch.float64).view(9, 1, 3, 3)
    matrix = convolve(basis, weight).flatten(1)
    start = torch.linspace(1, 2, 9, dtype=torch.float64)
    left, right = power_iteration(matrix, start / start.norm(), start / start.norm(), steps=2)
    return left @ matrix @ right


DIFFERENCE = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, -1.0], [0.0, 0.0, 0.0]])
SIGNS = torch.tensor([[1.0, -1.0, 1.0], [1.0, 1.0, -1.0], [-1.0, 1.0, 1.0]])


@pytest.mark.parametrize(
    ("way", "taps", "norm"),
    [
        (lambda weight: convolution_norm(weight, padding="circular", grid=(3, 3)), DIFFERENCE, "2"),
        (few_steps_of_power_iteration, SIGNS, "2"),
        (lambda weight: torch.linalg.matrix_norm(weight.flatten(1), ord=2), SIGNS, "2"),  # of the reshaped kernel
        (convolution_norm, SIGNS, "inf,2"),
    ],
    ids=["circular norm of the same grid", "power iteration", "norm of the reshaped kernel", "norm of another norm"],
)
def test_a_convolution_with_a_wrong_norm(way: Callable[[Tensor], Tensor], taps: Tensor, norm: str) -> None:
    x = torch.randn(2, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    good = Wrong(convolution_token_norm if norm == "inf,2" else convolution_norm, taps, norm=norm)
    check_branch(good, x)
    with pytest.raises(AssertionError, match=r"J has norm .* above|an eigenvalue of J"):
        check_branch(Wrong(way, taps, norm=norm), x)


@pytest.mark.parametrize("right", [True, False])
def test_an_activation_whose_constant_was_forgotten(right: bool) -> None:
    """GELU as it is, said to be 1-Lipschitz, where it is steepest."""
    branch = CertifiedMLP(channels=2, hidden_channels=(2,), activation="gelu", norm="2").double()
    if not right:
        branch.activations[0] = Elementwise(torch.nn.functional.gelu)
    with torch.no_grad():
        for layer in branch.layers:
            layer.get_parameter("weight").copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
            layer.get_parameter("bias").fill_(2**0.5)
    x = 1e-3 * torch.randn(2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    if right:
        check_branch(branch, x)
    else:
        with pytest.raises(AssertionError, match=r"an eigenvalue of J|J has norm"):
            check_branch(branch, x)


def test_a_bound_that_is_stated_in_the_wrong_norm() -> None:
    """All tokens look at one: in |.|_2 the branch stretches by sqrt(N) more."""
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:, 0] = True
    torch.manual_seed(5)
    recipe = Certified(ratio=1e-3)
    branch = invertible_attention(2, kind="gaussian", recipe=recipe, layout="tokens", mask=mask).double().branch
    with torch.no_grad():
        for name in ("value", "output"):
            branch.get_submodule(name).get_parameter("weight").copy_(9 * torch.eye(2))
            branch.get_submodule(name).get_parameter("bias").zero_()
    x = 1e-3 * torch.randn(2, 8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    check_branch(branch, x)

    class Euclidean(Changed):
        def lipschitz_bound(self) -> LipschitzBound:
            return replace(branch.lipschitz_bound(), norm="2")

    with pytest.raises(AssertionError, match=r"J has norm .* in \|\.\|_\{2\}"):
        check_branch(Euclidean(lambda g, x: branch(x)), x)


@dataclass(frozen=True)
class Mutated(LogDetEstimator):
    """An estimator with one bug."""

    inner: LogDetEstimator
    bug: str

    def estimate(
        self, branch: Callable[[Tensor], Tensor], x: Tensor, *, lipschitz: Callable[[], float | None] | None = None
    ) -> LogDetEstimate:
        return LogDetEstimate(*self._changed(branch, x), standard_error=None)

    def truncation_bound(self, size: int, lipschitz: float) -> float:
        return 0.0

    def _changed(self, branch: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        image, value = self.inner(branch, x)
        if self.bug == "at the output":
            return image, self.inner(branch, x + image)[1]
        if self.bug == "first weight for all":
            return image, value.detach() + (value.sum() - value.sum().detach()) / len(value)
        changes: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
            "sign": lambda: (image, -value),
            "coefficient": lambda: (image, 1.1 * value),
            "no gradient": lambda: (image, value.detach()),
            "gradient of half": lambda: (image, value / 2 + value.detach() / 2),
            "squeezed": lambda: (image, value.squeeze()),
            "single precision": lambda: (image, value.float()),
            "image": lambda: (image + 1, value),
            "graph": lambda: (image, value + torch.zeros(1, dtype=value.dtype, requires_grad=True)),
            "nan": lambda: (image, value * torch.nan),
        }
        if self.bug == "graph":
            with torch.enable_grad():
                return changes[self.bug]()
        return changes[self.bug]()


MUTATIONS = {
    "sign": "log-determinant",
    "coefficient": "log-determinant",
    "no gradient": "gradient of the log-det",
    "gradient of half": "gradient of the log-det",
    "first weight for all": "gradient of the log-det",
    "at the output": "log-determinant",
    "squeezed": "shape",
    "single precision": "float32",
    "image": "first result",
    "graph": "under no_grad",
    "nan": "not finite",
}


@pytest.mark.parametrize("inner", [Exact(), PowerSeries(terms=10)], ids=["exact", "sampled"])
@pytest.mark.parametrize(("bug", "message"), MUTATIONS.items(), ids=MUTATIONS.keys())
def test_an_estimator(bug: str, message: str, inner: LogDetEstimator) -> None:
    torch.manual_seed(3)
    options: dict[str, Any] = {} if isinstance(inner, Exact) else {"draws": 16 * 30, "bias": 1e-3}
    with pytest.raises(AssertionError, match=message):
        check_log_det_estimator(Mutated(inner, bug), good_branch(), tokens(), **options)


@pytest.mark.parametrize("factor", [0.0, 1.0, 2.0], ids=["right", "doubled", "sign"])
def test_a_series_with_one_wrong_term(factor: float) -> None:
    """The second term, -v^T J^2 v / 2, doubled or with the other sign."""

    class Wrong(PowerSeries):
        def __call__(self, branch: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
            image, value = super().__call__(branch, x)
            with torch.enable_grad():
                point = x.detach().clone().requires_grad_()
                (once,) = torch.autograd.grad(branch(point), point, probe := self._draw(x))
                (twice,) = torch.autograd.grad(branch(point), point, once)
            second = -(twice * probe).sum(dim=(-2, -1)) / 2
            return image, value + (factor if factor < 2 else -factor) * second

    torch.manual_seed(4)
    branch = Changed(lambda g, x: 0.1 * g(x) - 0.5 * x)
    if factor:
        with pytest.raises(AssertionError, match="the mean of the log-determinant"):
            check_log_det_estimator(Wrong(terms=10), branch, tokens(), draws=16 * 50, bias=1e-2)
    else:
        check_log_det_estimator(Wrong(terms=10), branch, tokens(), draws=16 * 50, bias=1e-2)


def test_draws_that_make_no_groups_are_refused() -> None:
    with pytest.raises(AssertionError, match="multiple of 16"):
        check_log_det_estimator(PowerSeries(), good_branch(), tokens(), draws=17)


@dataclass(frozen=True)
class Untrue(Solver):
    """A solver whose report or value is not what it did."""

    change: Callable[[Solution], Solution]
    inner: Solver = Adaptive()  # noqa: RUF009

    def solve(
        self,
        branch: Callable[[Tensor], Tensor],
        target: Tensor,
        *,
        start: Tensor | None = None,
        lipschitz: float | None = None,
        norm: str = "inf,2",
    ) -> Solution:
        return self.change(self.inner.solve(branch, target, start=start, lipschitz=lipschitz, norm=norm))


def all_converged(solution: Solution) -> Solution:
    return replace(solution, converged=torch.ones_like(solution.converged), status=torch.zeros_like(solution.status))


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (Untrue(lambda s: replace(s, residual=s.residual + 1e-9)), "residual is not that"),
        (Untrue(lambda s: replace(s, value=s.value + 1e-6)), "residual is not that"),
        (Untrue(lambda s: replace(s, num_steps=s.num_steps + 1)), "was evaluated"),
        (Untrue(lambda s: replace(s, converged=~s.converged)), "contradict"),
        (Untrue(all_converged), "not reported as non-finite"),
        (Untrue(lambda s: replace(s, error_bound=None)), "no error bound was given"),
        (Untrue(lambda s: replace(s, error_bound=0 * s.residual)), "exceeds its bound"),
        (Untrue(lambda s: replace(s, value=s.value.float())), "another shape or dtype"),
        (Untrue(lambda s: replace(s, error_bound=s.residual), Picard(max_steps=2)), "exceeds its bound"),
    ],
)
def test_a_solver(solver: Solver, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_solver(solver, good_branch(), tokens())


class Careless(Solver):
    """A solver that looks at the whole batch, writes into its target, or invents a bound."""

    def __init__(self, bug: str) -> None:
        self.bug = bug

    def solve(
        self,
        branch: Callable[[Tensor], Tensor],
        target: Tensor,
        *,
        start: Tensor | None = None,
        lipschitz: float | None = None,
        norm: str = "inf,2",
    ) -> Solution:
        solution = Adaptive().solve(branch, target, start=start, lipschitz=lipschitz, norm=norm)
        if self.bug == "writes":
            target.zero_()
        if self.bug == "all or nothing" and not solution.converged.all():
            ones = torch.ones_like(solution.status)
            return replace(solution, converged=ones == 0, status=torch.where(solution.status == 3, 3, ones))
        if self.bug == "bound" and lipschitz is None:
            return replace(solution, error_bound=solution.residual)
        return solution


@pytest.mark.parametrize(
    ("bug", "message"),
    [("writes", "changed its target"), ("all or nothing", "status of another"), ("bound", "without a Lipschitz bound")],
)
def test_a_careless_solver(bug: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_solver(Careless(bug), good_branch(), tokens())


class Broken(Bijection):
    """A good block with one bug."""

    count: Tensor

    def __init__(self, bug: str) -> None:
        super().__init__()
        self.block = ResidualBijection(good_branch(), log_det_estimator=Exact())
        self.bug = bug
        self.register_buffer("count", torch.zeros((), dtype=torch.float64), persistent=bug != "lazy state")
        self.extra = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        z = self.block(x) + (self.count if self.bug == "lazy state" else 0)
        if self.bug == "writes":
            x.mul_(1 + 1e-15).add_(1e-3)
        if self.bug == "random":
            return z + 1e-13 * torch.rand_like(z)
        return z.float() if self.bug == "single precision" else z

    def solve(self, z: Tensor, *, start: Tensor | None = None) -> Solution:
        solution = self.block.solve(z)
        if self.bug == "bound":
            return replace(solution, error_bound=0 * solution.residual)
        if self.bug == "reports failure":
            return replace(solution, converged=~solution.converged, status=solution.status + 1)
        if self.bug == "squeezed report":
            return replace(solution, residual=solution.residual.max())
        if self.bug == "records":
            return solution.with_value(solution.value + 0 * self.extra)
        if self.bug == "solve writes":
            z.add_(1)
        return solution

    def inverse(self, z: Tensor) -> Tensor:
        x = self.block.inverse(z)
        if self.bug == "inexact":
            return x + 1e-6
        return x.detach() if self.bug == "no gradient" else x

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = self.block.forward_and_log_det(x)
        return z, log_det.sum()[None] if self.bug == "summed" else log_det

    def inverse_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = self.block.inverse_and_log_det(z)
        if self.bug == "inverse sign":
            return x, -log_det
        if self.bug == "log det at z":
            return x, -self.block.forward_and_log_det(z)[1]
        return x, log_det


@pytest.mark.parametrize(
    ("bug", "message"),
    [
        ("inexact", r"inverse\(f\(x\)\) is off by 1e-06"),
        ("random", "two different values"),
        ("writes", "two different values|input was changed"),
        ("single precision", "float32"),
        ("bound", "exceeds its proven bound"),
        ("reports failure", "did not converge"),
        ("squeezed report", "one entry a sample"),
        ("records", "recorded gradients"),
        ("solve writes", "solve changed its input"),
        ("summed", "shape"),
        ("inverse sign", "log-determinant of the inverse"),
        ("log det at z", "log-determinant of the inverse"),
        ("lazy state", "fresh instance"),
    ],
)
def test_a_bijection(bug: str, message: str) -> None:
    broken, fresh = Broken(bug), Broken(bug)
    broken.count.fill_(1e-3 if bug == "lazy state" else 0)
    if bug == "lazy state":
        object.__setattr__(broken, "inverse", lambda z: broken.block.inverse(z - broken.count))
        object.__setattr__(broken, "solve", lambda z: broken.block.solve(z - broken.count))
        object.__setattr__(broken, "inverse_and_log_det", lambda z: broken.block.inverse_and_log_det(z - broken.count))
        fresh.count.zero_()
        object.__setattr__(broken, "forward_and_log_det", lambda x: (broken(x), broken.block.forward_and_log_det(x)[1]))
    with pytest.raises(AssertionError, match=message):
        check_bijection(broken, tokens(), log_det_tolerance=1e-9, fresh=fresh)


def test_a_bijection_without_gradient_through_its_inverse() -> None:
    with pytest.raises(AssertionError, match="gradient of the inverse by z"):
        check_inverse_gradient(Broken("no gradient"), tokens())


def test_an_inverse_whose_gradient_is_that_of_its_last_step() -> None:
    class LastStep(Broken):
        def inverse(self, z: Tensor) -> Tensor:
            return z - self.block.branch(self.block.inverse(z).detach())

    with pytest.raises(AssertionError, match="gradient of the inverse by z"):
        check_inverse_gradient(LastStep(""), tokens())


def test_good_ones_pass_and_their_modes_are_put_back() -> None:
    block = ResidualBijection(good_branch(), log_det_estimator=Exact()).train()
    block.branch.get_submodule("value").eval()
    before = [part.training for part in block.modules()]
    check_bijection(block, tokens(), log_det_tolerance=1e-9)
    check_branch(block.branch, tokens())
    check_inverse_gradient(block, tokens())
    check_solver(Adaptive(), block.branch, tokens())
    assert [part.training for part in block.modules()] == before
    check_bijection(Squeeze(2), torch.randn(2, 3, 4, 4, dtype=torch.float64), log_det_tolerance=1e-12)
    check_bijection(block, tokens())  # without a tolerance log-determinants are only looked at
