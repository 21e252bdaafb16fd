"""What the gradients through an inverse cost and respect; that they are right is a law."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from invattn import ConvergenceError, invertible_attention
from invattn.bijections import Bijection, Inverse
from invattn.lipschitz import ConstrainedLinear
from invattn.norms import token_sum_norm
from invattn.solvers import Adaptive, ImplicitAdjoint, InverseGradient, NewtonKrylov, Picard, Solver, Unrolled
from invattn.solvers.linearisation import explicit_branch

TOKENS, CHANNELS = 3, 4


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def made(kind: str = "embedded_gaussian", recipe: str = "certified", **options: object) -> Bijection:
    torch.manual_seed(1)
    block = invertible_attention(CHANNELS, kind=kind, recipe=recipe, layout="tokens", **options)  # type: ignore[arg-type]
    return block.double().eval()


@pytest.mark.parametrize(
    ("make", "name"), [(lambda: ImplicitAdjoint(max_steps=-1), "max_steps"), (lambda: Unrolled(0), "steps")]
)
def test_numbers_out_of_range_are_refused(make: Callable[[], InverseGradient], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must"):
        make()


def peak_bytes(work: Callable[[], object]) -> int:
    """The largest number of bytes that were live at a time and were allocated within ``work``."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    assert recorded.profiler is not None
    events = recorded.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return int(torch.tensor([nbytes for _, nbytes in changes]).cumsum(0).max())


def backward_peak(solver: Solver, gradient: InverseGradient) -> int:
    block = invertible_attention(8, layout="tokens", solver=solver, inverse_gradient=gradient)
    z = normal(4, 16, 8).float().requires_grad_()
    return peak_bytes(lambda: block.inverse(z).square().sum().backward())


def test_memory_does_not_grow_with_the_steps_of_the_solver() -> None:
    few, many = (Picard(max_steps=steps, early_stop=False, atol=1.0) for steps in (10, 200))
    assert backward_peak(many, ImplicitAdjoint()) <= 1.02 * backward_peak(few, ImplicitAdjoint())
    assert backward_peak(few, Unrolled(steps=30)) > 2 * backward_peak(few, Unrolled(steps=10)) > 0


def test_nothing_but_the_value_and_the_weights_is_kept_for_the_backward() -> None:
    block, z = made("concatenation"), normal(2, TOKENS, CHANNELS).requires_grad_()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
        x = block.inverse(z)
    weights = sum(parameter.numel() for parameter in block.parameters())
    assert sum(tensor.numel() for tensor in kept) == x.numel() + weights


@pytest.mark.parametrize("kind", ["embedded_gaussian", "concatenation", "pointwise"])
def test_the_derivative_is_that_of_the_weights_that_were_inverted(kind: str) -> None:
    """Given in place of the module's own by torch.func: these have gone back when the backward runs."""
    block, z = made(kind), normal(2, TOKENS, CHANNELS)
    other = copy.deepcopy(block)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(3)
    values = {f"bijection.{name}": parameter for name, parameter in other.named_parameters()}
    incoming = normal(2, TOKENS, CHANNELS, seed=2)

    def swapped(target: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(Inverse(block), values, (target,))
        return result

    target = z.clone().requires_grad_()
    wanted = torch.autograd.grad((other.inverse(target) * incoming).sum(), target)[0]
    torch.testing.assert_close(torch.autograd.grad((swapped(target) * incoming).sum(), target)[0], wanted)
    _, pull = torch.func.vjp(swapped, z)  # type: ignore[misc]
    torch.testing.assert_close(pull(incoming)[0], wanted)


def test_estimates_of_norms_stay_as_they_were_at_the_inverse() -> None:
    """A training forward between an inverse and its backward refines them: the derivative must not see that."""
    block = made("embedded_gaussian", "released", solver=Adaptive(atol=0.0, rtol=0.0)).train()
    for part in block.modules():
        if isinstance(part, ConstrainedLinear):
            part.left.copy_(nn.functional.normalize(normal(part.left.numel(), seed=3), dim=0))
            part.power_iterations = 1
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            parameter.mul_(3 if "weight" in name else 1)
    z = (0.1 * normal(2, TOKENS, CHANNELS)).requires_grad_()
    before = {name: buffer.clone() for name, buffer in block.named_buffers()}
    x = block.inverse(z)
    (wanted,) = torch.autograd.grad(x.square().sum(), z, create_graph=True)
    second = torch.autograd.grad(wanted.square().sum(), z, retain_graph=True)[0]
    assert all(torch.equal(before[name], buffer) for name, buffer in block.named_buffers())
    block(z.detach())
    assert any(not torch.equal(before[name], buffer) for name, buffer in block.named_buffers())
    (found,) = torch.autograd.grad(x.square().sum(), z, create_graph=True)
    assert torch.equal(found, wanted)
    assert torch.equal(torch.autograd.grad(found.square().sum(), z)[0], second)


@pytest.mark.parametrize("kind", ["gaussian", "embedded_gaussian", "dot_product", "concatenation", "pointwise"])
def test_the_adjoint_contracts_by_the_bound_in_the_dual_norm(kind: str) -> None:
    """In the norm of the certificate itself it need not: one key that all rows see gets the sum of their errors."""
    block = made(kind, lipschitz=0.8)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.mul_(4)
    bound, x = block.lipschitz_bound(), normal(50, TOKENS, CHANNELS)
    assert bound.norm == "inf,2"
    branch, values = explicit_branch(block.branch, x)
    transposed = branch.transposed(x, values)
    w = normal(50, TOKENS, CHANNELS, seed=5)
    for _ in range(20):
        following = transposed(w)  # the error of w <- v - J^T w becomes -J^T times itself
        assert (token_sum_norm(following) <= bound.value * token_sum_norm(w)).all()
        w = following / token_sum_norm(following)[:, None, None]


def test_gmres_takes_over_where_the_branch_is_no_contraction() -> None:
    """g(x) = A x with eigenvalues 3, -2.5 and 1.5 +- 2i: neither plain nor mixed steps lead to the solution."""
    branch = nn.Linear(4, 4).double()
    with torch.no_grad():
        branch.weight.copy_(
            torch.tensor([[3.0, 1.0, 0.0, 0.0], [0.0, -2.5, 0.0, 1.0], [0.0, 0.0, 1.5, -2.0], [0.0, 0.0, 2.0, 1.5]])
        )
    z = normal(5, 7, 4).requires_grad_()
    inverse = torch.linalg.inv(torch.eye(4, dtype=torch.float64) + branch.weight.detach())
    solution = NewtonKrylov().solve(branch, z)
    assert solution.converged.all()
    torch.testing.assert_close(solution.value, ((z - branch.bias) @ inverse.mT).detach(), rtol=1e-11, atol=1e-11)
    x = ImplicitAdjoint(max_steps=3)(branch, z, solution.value)
    incoming = normal(5, 7, 4, seed=6)
    (found,) = torch.autograd.grad((x * incoming).sum(), z)
    torch.testing.assert_close(found, incoming @ inverse, rtol=1e-10, atol=1e-10)


def test_a_singular_derivative_is_refused_with_a_remedy() -> None:
    branch = nn.Linear(2, 2, bias=False).double()
    with torch.no_grad():
        branch.weight.copy_(torch.tensor([[-1.0, 0.0], [0.0, 0.5]]))
    z = torch.zeros(1, 1, 2, dtype=torch.float64, requires_grad=True)
    x = ImplicitAdjoint()(branch, z, torch.ones_like(z.detach()))
    with pytest.raises(ConvergenceError, match=r"singular .*recipe='certified'"):
        x.sum().backward()


def test_autocast_is_that_of_the_inverse() -> None:
    """The backward runs outside: it must differentiate the map in the precision that was inverted."""
    block = made().float()
    z = normal(2, TOKENS, CHANNELS).float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        branch, values = explicit_branch(block.branch, z)
        image = block.branch(z)
    assert branch(z, *values).dtype == torch.float32
    assert torch.equal(branch(z, *values), image.float())
    assert not torch.equal(branch(z, *values), block.branch(z))
