"""The squash: its lemma, its derivatives at zero, its extremes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from invattn.functional import squash


def vectors(seed: int, count: int = 20, size: int = 5) -> Tensor:
    """Vectors of length 1e-6 to 1e3, and zero."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(-6, 3, count - 1, dtype=torch.float64)[:, None]
    drawn = torch.randn(count - 1, size, dtype=torch.float64, generator=generator)
    return torch.cat([scales * drawn, torch.zeros(1, size, dtype=torch.float64)])


def jacobian(point: Tensor, radius: float) -> Tensor:
    found = torch.autograd.functional.jacobian(lambda z: squash(z, radius=radius), point)
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize("radius", [0.5, 1.0, 3.0])
def test_the_formula(radius: float) -> None:
    z = vectors(0)
    expected = z / (1 + z.square().sum(dim=-1, keepdim=True) / radius**2).sqrt()
    torch.testing.assert_close(squash(z, radius=radius), expected, rtol=1e-13, atol=1e-300)
    assert (squash(z, radius=radius).norm(dim=-1) < radius).all()


@pytest.mark.parametrize("radius", [0.5, 1.0, 3.0])
def test_lemma_1(radius: float) -> None:
    """|D|_2^2 + |sigma|^2 / r^2 = 1, D symmetric, |D u| <= 1 - (u . sigma / r)^2 for every unit u."""
    generator = torch.Generator().manual_seed(1)
    for z in vectors(2):
        derivative = jacobian(z, radius)
        image = squash(z, radius=radius) / radius
        torch.testing.assert_close(derivative, derivative.mT, rtol=0, atol=1e-14)
        largest = torch.linalg.matrix_norm(derivative, 2)
        assert float(largest**2 + image.square().sum()) == pytest.approx(1, abs=1e-12)
        units = torch.randn(50, 5, dtype=torch.float64, generator=generator)
        units = torch.cat([units, image[None] + 1e-12])
        units = units / units.norm(dim=-1, keepdim=True)
        assert ((units @ derivative).norm(dim=-1) <= 1 - (units @ image).square() + 1e-12).all()


def test_at_zero_it_is_the_identity_to_second_order() -> None:
    zero = torch.zeros(4, dtype=torch.float64)
    assert torch.equal(squash(zero), zero)
    assert torch.equal(jacobian(zero, 1.0), torch.eye(4, dtype=torch.float64))
    hessian = torch.autograd.functional.hessian(lambda z: squash(z).sum(), zero)
    assert isinstance(hessian, Tensor)
    assert not hessian.any()


@pytest.mark.parametrize("scale", [0.0, 0.7, 1.0, 40.0])
def test_first_and_second_derivatives_by_finite_differences(scale: float) -> None:
    """At a largest entry of exactly 1 as well, where the internal scaling sets in."""
    z = (scale * torch.tensor([[1.0, -0.5, 0.25], [0.1, 1.0, -1.0]], dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(squash, (z,))
    assert torch.autograd.gradgradcheck(squash, (z,))


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float32, 1e38), (torch.float64, 1e300), (torch.float32, 1e-38)])
def test_no_finite_input_overflows(dtype: torch.dtype, scale: float) -> None:
    z = (scale * torch.tensor([[1.0, -2.0, 0.5]], dtype=dtype)).requires_grad_()
    image = squash(z)
    image.sum().backward()
    assert float(image.detach().norm()) == pytest.approx(min(1.0, scale), abs=1e-6)
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_it_is_one_lipschitz() -> None:
    generator = torch.Generator().manual_seed(3)
    x, y = (torch.randn(2000, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    assert ((squash(x) - squash(y)).norm(dim=-1) <= (x - y).norm(dim=-1)).all()
