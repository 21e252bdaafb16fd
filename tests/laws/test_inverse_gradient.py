"""The gradient through every inverse equals that of a dense solve."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from invattn import ConvergenceError
from invattn.bijections import Composed, Inverse
from invattn.solvers import ImplicitAdjoint, Picard
from invattn.testing import check_inverse_gradient, dense_jacobian

from .registry import (
    BIJECTIONS,
    CERTIFIED,
    CHAINS,
    SOME_CERTIFIED,
    AnyCase,
    BijectionCase,
    BlockCase,
    random_tokens,
    seeded,
)
from .test_solver_laws import slow_branch


@pytest.mark.parametrize("case", [*CERTIFIED, *CHAINS], ids=str)
def test_block(case: AnyCase) -> None:
    check_inverse_gradient(case.block(seed=1), case.inputs(2), generator=seeded(0))


@pytest.mark.parametrize("case", BIJECTIONS, ids=str)
def test_bijection(case: BijectionCase) -> None:
    bijection = case.make(2)
    check_inverse_gradient(bijection, bijection(case.inputs()).detach(), generator=seeded(0))


@pytest.mark.parametrize("lipschitz", [0.9, 0.99, 0.999])
def test_a_slow_branch(lipschitz: float) -> None:
    """The adjoint contracts by L only: plain steps would need some 30,000 at 0.999."""
    branch, x = slow_branch(lipschitz), random_tokens(2, scale=1e-3)
    z = (x + branch(x)).detach().requires_grad_()
    incoming = torch.randn(x.shape, dtype=torch.float64, generator=seeded(1))
    (found,) = torch.autograd.grad((incoming * ImplicitAdjoint()(branch, z, x)).sum(), z)
    matrix = torch.eye(x[0].numel(), dtype=torch.float64) + dense_jacobian(branch, x).mT
    wanted = torch.linalg.solve(matrix, incoming.flatten(1)[..., None]).view_as(x)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("case", [*SOME_CERTIFIED, *CHAINS], ids=str)
def test_single_precision_comes_near_double(case: AnyCase) -> None:
    z = case.inputs(2)
    grads = []
    for dtype in (torch.float64, torch.float32):
        block = case.block(seed=3, dtype=torch.float64).to(dtype)
        target = z.detach().to(dtype).clone().requires_grad_()
        block.inverse(target).square().sum().backward()
        assert target.grad is not None
        grads.append(target.grad.double())
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-4)


def test_samples_of_very_different_gradients_in_one_batch() -> None:
    """Each sample's adjoint has its own tolerance: a large gradient must not hide a small one's error."""
    block, z = BlockCase("embedded_gaussian").block(seed=4), random_tokens(3).requires_grad_()
    scales = torch.tensor([1e-9, 0.0, 1e9], dtype=torch.float64)[:, None, None]
    (mixed,) = torch.autograd.grad((scales * block.inverse(z).square()).sum(), z)
    (plain,) = torch.autograd.grad(block.inverse(z).square().sum(), z)
    assert float(mixed[1].abs().max()) == 0
    for i in (0, 2):
        torch.testing.assert_close(mixed[i] / scales[i], plain[i], rtol=1e-9, atol=1e-9)


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    block, z = BlockCase("concatenation").block(seed=5), random_tokens(2)
    with torch.no_grad():
        assert not block.inverse(z).requires_grad
    assert block.inverse(z).requires_grad
    block.requires_grad_(False)
    assert not block.inverse(z).requires_grad
    assert block.inverse(z.requires_grad_()).requires_grad


def test_the_value_is_the_solvers() -> None:
    block, z = BlockCase("gaussian").block(seed=6), random_tokens(2)
    torch.testing.assert_close(block.inverse(z).detach(), block.solve(z).value, rtol=1e-15, atol=1e-15)


def test_backward_can_be_repeated_and_accumulates() -> None:
    block, z = BlockCase("gaussian").block(seed=7), random_tokens(2).requires_grad_()
    x = block.inverse(z)
    (first,) = torch.autograd.grad(x.sum(), z, retain_graph=True)
    (second,) = torch.autograd.grad(x.sum(), z)
    assert torch.equal(first, second)
    (x.detach() * block.inverse(z)).sum().backward()
    once = z.grad
    assert once is not None
    once = once.clone()
    (x.detach() * block.inverse(z)).sum().backward()
    torch.testing.assert_close(z.grad, 2 * once)


@pytest.mark.parametrize("case", [*SOME_CERTIFIED, *CHAINS], ids=str)
def test_the_inverse_under_torch_func(case: AnyCase) -> None:
    """vjp, vmap, jacrev and gradients per sample, by z and by the parameters, against the dense inverse of J_f."""
    block, z = case.block(seed=10), case.inputs(3)
    x = block.solve(z).value
    inverse = torch.linalg.inv(dense_jacobian(block, x))
    incoming = torch.randn(z.shape, dtype=torch.float64, generator=seeded(11))
    wanted = (incoming.flatten(1)[:, None] @ inverse)[:, 0].view_as(z)

    def single(sample: Tensor) -> Tensor:
        return block.inverse(sample[None])[0]

    def loss(values: Mapping[str, Tensor], sample: Tensor, weight: Tensor) -> Tensor:
        turned = torch.func.functional_call(Inverse(block), dict(values), (sample[None],))
        total: Tensor = (turned[0] * weight).sum()
        return total

    image, pull = torch.func.vjp(block.inverse, z)  # type: ignore[misc]
    torch.testing.assert_close(image, x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(pull(incoming)[0], wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(torch.func.vmap(single)(z), x, rtol=1e-10, atol=1e-10)
    # The samples as the mapped axis of a batch that is not the first axis.
    stacked = torch.func.vmap(block.inverse, in_dims=1, out_dims=1)(torch.stack([z, z + 1], dim=1))
    torch.testing.assert_close(stacked[:, 0], x, rtol=1e-10, atol=1e-10)
    jacobian = torch.func.vmap(torch.func.jacrev(single))(z).view_as(inverse)
    torch.testing.assert_close(jacobian, inverse, rtol=1e-8, atol=1e-9)
    values = {f"bijection.{name}": parameter for name, parameter in block.named_parameters()}
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(values, z, incoming)
    plain = torch.autograd.grad((block.inverse(z) * incoming).sum(), list(block.parameters()))
    for found, expected in zip(each.values(), plain, strict=True):
        torch.testing.assert_close(found.sum(dim=0), expected, rtol=1e-8, atol=1e-9)


def test_a_failure_to_converge_is_raised_under_vmap_as_well() -> None:
    block = BlockCase("gaussian").block(seed=13, solver=Picard(max_steps=1))
    with pytest.raises(ConvergenceError, match="4 of 4 samples"):
        torch.func.vmap(block.inverse)(random_tokens(4)[:, None])


class Negation(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return -tokens


def test_a_gradient_that_does_not_exist_is_refused() -> None:
    """x + g(x) = 0 for g(x) = -x: every point is solved, and none has an inverse function."""
    z = torch.zeros(1, 2, 4, dtype=torch.float64, requires_grad=True)
    x = ImplicitAdjoint()(Negation(), z, torch.ones(1, 2, 4, dtype=torch.float64))
    with pytest.raises(ConvergenceError, match=r"adjoint .*recipe='certified'"):
        x.sum().backward()


def test_gradients_through_a_chain_reach_every_block() -> None:
    chain = Composed([BlockCase(kind).block(seed=9) for kind in ("gaussian", "pointwise", "concatenation")])
    chain.inverse(random_tokens(2)).square().sum().backward()
    for parameter in chain.parameters():
        assert parameter.grad is not None
        assert float(parameter.grad.abs().max()) > 0
