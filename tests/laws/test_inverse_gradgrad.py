"""First and second derivatives of the inverse, by z and by every parameter, against finite differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from invattn import KINDS, RECIPES
from invattn.bijections import Inverse
from invattn.solvers import Adaptive, ImplicitAdjoint, InverseGradient, Unrolled

from .registry import EVERY_RECIPE_AND_KIND, PLAIN_CERTIFIED, SOME_CERTIFIED, BlockCase, random_tokens, seeded

# Every kind with a certificate, and one of each recipe without.
SOME = [*PLAIN_CERTIFIED, *(BlockCase(kind, recipe) for kind, recipe in zip(KINDS, RECIPES[1:], strict=False))]
EXACT = Adaptive(atol=1e-13, rtol=1e-13)


def inverse_of(
    case: BlockCase, *, gradient: InverseGradient | None = None, lipschitz: float = 0.9, tokens: int = 2
) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """Return f^{-1} as a function of z and the parameters, and a point at which g contracts.

    An uncertified branch contracts where its tokens and weights are small.
    """
    torch.manual_seed(0)  # estimates of norms start from the weights that a new block is given
    block = case.block(grid=(tokens,), seed=1, lipschitz=lipschitz, solver=EXACT)
    if not block.certified:
        with torch.no_grad():
            for parameter in block.parameters():
                parameter.mul_(0.3)
    block.inverse_gradient = ImplicitAdjoint() if gradient is None else gradient
    names = [f"bijection.{name}" for name, _ in block.named_parameters()]

    def function(z: Tensor, *values: Tensor) -> Tensor:
        state = dict(zip(names, values, strict=True))
        result: Tensor = torch.func.functional_call(Inverse(block), state, (z,))
        return result

    z = block(random_tokens(1, tokens, seed=3, scale=1.0 if block.certified else 0.3))
    return function, tuple(part.detach().clone().requires_grad_() for part in (z, *block.parameters()))


@pytest.mark.parametrize("case", [SOME[0], SOME[1], SOME[3], SOME[5]], ids=str)
def test_first_and_second_derivatives(case: BlockCase) -> None:
    function, point = inverse_of(case)
    assert torch.autograd.gradcheck(function, point, fast_mode=True, rtol=1e-3, atol=1e-6)
    assert torch.autograd.gradgradcheck(function, point, fast_mode=True, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*EVERY_RECIPE_AND_KIND, *SOME_CERTIFIED[5:]], ids=str)
def test_every_entry_of_the_first_and_second_derivatives(case: BlockCase) -> None:
    function, point = inverse_of(case)
    assert torch.autograd.gradcheck(function, point, rtol=1e-4, atol=1e-6, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, point, rtol=1e-3, atol=1e-6)


def test_third_derivatives() -> None:
    """Nothing ends at two: each linear equation's backward is the other one."""
    function, (z, *values) = inverse_of(BlockCase("embedded_gaussian"))

    def gradient(t: Tensor) -> Tensor:
        (result,) = torch.autograd.grad(function(t, *values).pow(3).sum(), t, create_graph=True)
        return result

    assert torch.autograd.gradgradcheck(gradient, (z,), fast_mode=True, rtol=1e-3, atol=1e-6)


def test_forward_mode() -> None:
    function, point = inverse_of(BlockCase("concatenation"))
    tangents = tuple(torch.randn(part.shape, dtype=part.dtype, generator=seeded(4)) for part in point)
    fixed = tuple(part.detach() for part in point)
    _, pushed = torch.func.jvp(function, fixed, tangents)  # type: ignore[misc]
    step = 1e-5
    ahead, behind = (function(*(p + s * t for p, t in zip(fixed, tangents, strict=True))) for s in (step, -step))
    torch.testing.assert_close(pushed, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-7)
    _, pushed = torch.func.jvp(lambda z: function(z, *fixed[1:]), fixed[:1], tangents[:1])  # type: ignore[misc]
    _, pull = torch.func.vjp(lambda z: function(z, *fixed[1:]), fixed[0])  # type: ignore[misc]
    torch.testing.assert_close((pushed * tangents[0]).sum(), (pull(tangents[0])[0] * tangents[0]).sum())


def test_second_derivatives_under_torch_func_are_those_of_autograd() -> None:
    function, (z, *values) = inverse_of(BlockCase("dot_product"))

    def loss(t: Tensor, first: Tensor) -> Tensor:
        total: Tensor = function(t, first, *values[1:]).pow(3).sum()
        return total

    found = torch.func.hessian(loss, argnums=(0, 1))(z.detach(), values[0].detach())
    outer = torch.func.jacrev(torch.func.jacrev(loss, argnums=(0, 1)), argnums=(0, 1))(z.detach(), values[0].detach())
    wanted = torch.autograd.functional.hessian(loss, (z.detach(), values[0].detach()))
    for i in range(2):
        for j in range(2):
            torch.testing.assert_close(found[i][j], wanted[i][j], rtol=1e-9, atol=1e-10)
            torch.testing.assert_close(outer[i][j], wanted[i][j], rtol=1e-9, atol=1e-10)


def pushed(function: Callable[..., Tensor], along: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    """Return the derivative along tangents, by forward mode, as a function of the point."""

    def derivative(*point: Tensor) -> Tensor:
        _, result = torch.func.jvp(function, point, along)  # type: ignore[misc]
        return result  # type: ignore[no-any-return]

    return derivative


def difference(function: Callable[..., Tensor], point: tuple[Tensor, ...], along: tuple[Tensor, ...]) -> Tensor:
    """Return the derivative along tangents by a central difference, off by 1e-10 times third derivatives."""
    ahead, behind = (tuple(p + s * t for p, t in zip(point, along, strict=True)) for s in (1e-5, -1e-5))
    return (function(*ahead) - function(*behind)) / 2e-5


@pytest.mark.parametrize("kind", ["dot_product", "concatenation"])
def test_forward_mode_of_forward_mode(kind: str) -> None:
    """Torch switches forward mode off within the jvp of an autograd function: terms would be missing, silently."""
    function, inputs = inverse_of(BlockCase(kind))
    point, generator = tuple(part.detach() for part in inputs), seeded(5)
    some = [tuple(torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in point) for _ in range(3)]
    first = pushed(function, some[0])
    second = pushed(first, some[1])
    wanted = difference(first, point, some[1])
    torch.testing.assert_close(second(*point), wanted, rtol=1e-6, atol=1e-7 * float(wanted.abs().max()))
    wanted = difference(second, point, some[2])
    torch.testing.assert_close(
        pushed(second, some[2])(*point), wanted, rtol=1e-6, atol=1e-7 * float(wanted.abs().max())
    )


@pytest.mark.parametrize(
    "case", [BlockCase("concatenation"), BlockCase("gaussian"), BlockCase("embedded_gaussian", "paper")], ids=str
)
def test_forward_mode_twice_of_reverse_mode(case: BlockCase) -> None:
    """The last two have buffers: a copy of one must outlive the transform in which it was made."""
    function, (z, *values) = inverse_of(case)
    cotangent, *along = torch.randn(3, *z.shape, dtype=z.dtype, generator=seeded(6))

    def pulled(t: Tensor) -> Tensor:
        _, pull = torch.func.vjp(lambda u: function(u, *(v.detach() for v in values)), t)  # type: ignore[misc]
        result: Tensor = pull(cotangent)[0]
        return result

    once = pushed(pulled, (along[0],))
    wanted = difference(once, (z.detach(),), (along[1],))
    close = 1e-7 * float(wanted.abs().max())
    torch.testing.assert_close(pushed(once, (along[1],))(z.detach()), wanted, rtol=1e-6, atol=close)


@pytest.mark.parametrize("transform", [torch.func.jacfwd, torch.func.jacrev])
def test_all_second_derivatives_of_a_batch_of_one(transform: Callable[..., Callable[..., Tensor]]) -> None:
    """Its rows are expanded by vmap: forward mode refuses shared memory."""
    function, (z, *values) = inverse_of(BlockCase("concatenation"), tokens=1)
    point = z.detach()

    def by_z(t: Tensor) -> Tensor:
        return function(t, *(value.detach() for value in values))

    u, v = torch.randn(2, point.numel(), dtype=z.dtype, generator=seeded(7))
    found = transform(transform(by_z))(point).reshape(-1, u.numel(), u.numel()) @ u @ v
    wanted = difference(pushed(by_z, (u.view_as(point),)), (point,), (v.view_as(point),))
    torch.testing.assert_close(found, wanted.flatten(), rtol=1e-6, atol=1e-8)


def check_unrolled(case: BlockCase, lipschitz: float, steps: int) -> None:
    """Compare values, first and second derivatives: L^steps is below 1e-9 for a certified case."""
    results = []
    for gradient in (ImplicitAdjoint(), Unrolled(steps=steps)):
        function, point = inverse_of(case, gradient=gradient, lipschitz=lipschitz)
        x = function(*point)
        first = torch.autograd.grad(x.pow(3).sum(), point, create_graph=True, materialize_grads=True)
        second = torch.autograd.grad(first[0].square().sum(), point, materialize_grads=True)
        results.append([x, *first, *second])
    for implicit, unrolled in zip(*results, strict=True):
        torch.testing.assert_close(implicit, unrolled, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("case", SOME, ids=str)
def test_the_implicit_gradient_is_the_unrolled_one(case: BlockCase) -> None:
    check_unrolled(case, 0.5, 40)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*EVERY_RECIPE_AND_KIND, *SOME_CERTIFIED[5:]], ids=str)
def test_the_implicit_gradient_is_the_unrolled_one_where_steps_are_slow(case: BlockCase) -> None:
    check_unrolled(case, 0.9, 300)
