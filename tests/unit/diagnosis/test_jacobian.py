from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from invattn import ATTENTION_KINDS, KINDS, invertible_attention
from invattn.branches import Branch
from invattn.diagnosis import dominant_eigenvalue, spectral_norm_estimate, spectral_radius
from invattn.recipes import Certified
from invattn.testing import dense_jacobian

TOKENS, CHANNELS = 5, 4
SIZE = TOKENS * CHANNELS


class LinearBranch(Branch):
    """g(x) = M vec(x) for one dense matrix M."""

    def __init__(self, matrix: Tensor, *, tokens: int) -> None:
        super().__init__()
        self.channels = matrix.shape[0] // tokens
        self.matrix = nn.Parameter(matrix)

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.matrix.T).view_as(x)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


def strong_branch(kind: str, recipe: str) -> Branch:
    block = invertible_attention(CHANNELS, kind=kind, recipe=recipe, key_channels=2, layout="tokens").double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(normal(*parameter.shape, seed=3))
    return block.branch.eval()


@pytest.mark.parametrize("recipe", ["certified", "paper", "released", "unconstrained"])
@pytest.mark.parametrize("kind", KINDS)
def test_exact_when_the_search_space_is_everything(kind: str, recipe: str) -> None:
    branch, x = strong_branch(kind, recipe), normal(3, TOKENS, CHANNELS, seed=1)
    jacobian = dense_jacobian(branch, x)
    found = dominant_eigenvalue(branch, x, steps=SIZE, generator=seeded(0))
    expected = torch.linalg.eigvals(jacobian).abs().amax(dim=-1)
    assert torch.allclose(found.value.abs(), expected, rtol=1e-8, atol=1e-12)
    assert bool((found.residual <= 1e-10 * (1 + expected)).all())
    norm = spectral_norm_estimate(branch, x, steps=SIZE, generator=seeded(0))
    assert torch.allclose(norm, torch.linalg.matrix_norm(jacobian, 2), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_few_steps_come_close_and_the_norm_stays_below(kind: str) -> None:
    branch, x = strong_branch(kind, "paper"), normal(3, TOKENS, CHANNELS, seed=2)
    jacobian = dense_jacobian(branch, x)
    radius = torch.linalg.eigvals(jacobian).abs().amax(dim=-1)
    norm = torch.linalg.matrix_norm(jacobian, 2)
    assert torch.allclose(spectral_radius(branch, x, steps=12, generator=seeded(0)), radius, rtol=0.05)
    few = spectral_norm_estimate(branch, x, steps=3, generator=seeded(0))
    more = spectral_norm_estimate(branch, x, steps=8, generator=seeded(0))
    assert bool((few <= more * (1 + 1e-12)).all())
    assert bool((more <= norm * (1 + 1e-12)).all())
    assert torch.allclose(more, norm, rtol=0.05)


def test_complex_pair_of_a_scaled_rotation_among_smaller_eigenvalues() -> None:
    """Eigenvalues 1.1 e^{+-0.7i} in a random basis, all others below 0.9: not normal, so the norm is larger."""
    angle = torch.tensor(0.7, dtype=torch.float64)
    block = torch.diag(torch.linspace(-0.9, 0.9, 12, dtype=torch.float64))
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    block[:2, :2] = 1.1 * turn
    basis = normal(12, 12, seed=4)
    matrix = basis @ block @ torch.linalg.inv(basis)
    branch, x = LinearBranch(matrix, tokens=3), normal(2, 3, 4, seed=5)
    found = dominant_eigenvalue(branch, x, steps=12, generator=seeded(1))
    assert torch.allclose(found.value.real, 1.1 * angle.cos().expand(2), rtol=1e-8)
    assert torch.allclose(found.value.imag.abs(), 1.1 * angle.sin().expand(2), rtol=1e-8)
    norm = spectral_norm_estimate(branch, x, steps=12, generator=seeded(1))
    assert torch.allclose(norm, torch.linalg.matrix_norm(matrix, 2).detach().expand(2), rtol=1e-8)
    assert bool((norm > 1.2).all())


def test_residual_is_that_of_the_vector_and_falls() -> None:
    matrix = normal(30, 30, seed=6) / 30**0.5
    branch, x = LinearBranch(matrix, tokens=5), normal(1, 5, 6, seed=7)
    residuals = [float(dominant_eigenvalue(branch, x, steps=s, generator=seeded(2)).residual) for s in (5, 20, 30)]
    assert residuals[0] > 1e-2
    assert residuals[2] < 1e-10
    few = dominant_eigenvalue(branch, x, steps=20, generator=seeded(2))
    shifted = matrix.to(torch.complex128) - few.value * torch.eye(30)
    assert float(torch.linalg.svdvals(shifted)[-1]) <= float(few.residual) + 1e-12  # an eigenvalue of a matrix as near


@pytest.mark.parametrize("matrix", [torch.zeros(6, 6), torch.diag(torch.ones(5), 1), -0.5 * torch.eye(6)])
def test_invariant_spaces_end_the_iteration_without_noise(matrix: Tensor) -> None:
    """Zero, nilpotent and multiple eigenvalues: the Krylov space closes early."""
    branch, x = LinearBranch(matrix.double(), tokens=2), normal(2, 2, 3, seed=8)
    expected = torch.linalg.eigvals(matrix.double()).abs().max()
    radius = spectral_radius(branch, x, steps=50, generator=seeded(3))
    # A nilpotent matrix of order 6 answers a rounding error u by an eigenvalue of up to u^(1/6).
    assert torch.allclose(radius, expected.expand(2), atol=1e-2 if matrix[0, 1] else 1e-12)
    norm = spectral_norm_estimate(branch, x, steps=50, generator=seeded(3))
    assert torch.allclose(norm, torch.linalg.matrix_norm(matrix.double(), 2).expand(2), atol=1e-7)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("kind", KINDS)
def test_eigenvalues_of_a_certified_branch_lie_within_its_bound(kind: str, scale: float) -> None:
    branch, x = strong_branch(kind, "certified"), scale * normal(4, TOKENS, CHANNELS, seed=9)
    radius = spectral_radius(branch, x, steps=SIZE, generator=seeded(4))
    assert float(radius.max()) <= branch.lipschitz_bound().value


def test_the_euclidean_norm_of_a_certified_branch_may_exceed_one() -> None:
    """All tokens read token 0: |J|_2 = sqrt(N) |W_L W_V|, above 1, while no eigenvalue leaves the bound."""
    tokens = 16
    mask = torch.zeros(tokens, tokens, dtype=torch.bool)
    mask[:, 0] = True
    block = invertible_attention(3, recipe=Certified(ratio=1e-3), mask=mask, layout="tokens").double()
    with torch.no_grad():
        for linear in (block.branch.value, block.branch.output):
            linear.weight.copy_(torch.eye(3))
            linear.bias.zero_()
    x = torch.zeros(1, tokens, 3, dtype=torch.float64)
    bound = block.lipschitz_bound().value
    norm = float(spectral_norm_estimate(block.branch, x, generator=seeded(5)))
    assert norm == pytest.approx(math.sqrt(tokens) * 0.9, rel=1e-3)
    assert float(spectral_radius(block.branch, x, generator=seeded(5))) <= bound < 1


def test_samples_do_not_see_each_other() -> None:
    branch, x = strong_branch("dot_product", "paper"), normal(3, TOKENS, CHANNELS, seed=10)
    together = spectral_radius(branch, x, steps=SIZE, generator=seeded(6))
    alone = torch.cat([spectral_radius(branch, x[i : i + 1], steps=SIZE, generator=seeded(7)) for i in range(3)])
    assert torch.allclose(together, alone, rtol=1e-8)
    broken = x.clone()
    broken[1, 0, 0] = torch.nan
    found = spectral_radius(branch, broken, steps=SIZE, generator=seeded(6))
    assert found.isnan().tolist() == [False, True, False]
    assert torch.allclose(found[[0, 2]], together[[0, 2]], rtol=1e-8)
    assert spectral_norm_estimate(branch, broken).isnan().tolist() == [False, True, False]


def test_the_branch_and_its_input_stay_as_they_were() -> None:
    """In training mode a forward refines the stored vectors; an estimate must not."""
    block = invertible_attention(CHANNELS, kind="dot_product", recipe="released", layout="tokens").double()
    branch, x = block.branch.train(), normal(2, TOKENS, CHANNELS, seed=11).requires_grad_()
    before, copy = {k: v.clone() for k, v in branch.state_dict().items()}, x.detach().clone()
    radius = spectral_radius(branch, x, generator=seeded(8))
    norm = spectral_norm_estimate(branch, x, generator=seeded(8))
    assert not radius.requires_grad
    assert not norm.requires_grad
    assert all(torch.equal(before[k], v) for k, v in branch.state_dict().items())
    assert branch.training
    assert all(module.training for module in branch.modules())
    assert torch.equal(x.detach(), copy)
    assert x.grad is None


def test_single_precision_one_token_and_reproducible() -> None:
    branch = strong_branch("concatenation", "paper").float()
    x = torch.randn(2, 1, CHANNELS, generator=seeded(9))
    first, second = (spectral_radius(branch, x, generator=seeded(10)) for _ in range(2))
    assert first.dtype == torch.float32
    assert torch.equal(first, second)
    expected = torch.linalg.eigvals(dense_jacobian(branch, x)).abs().amax(dim=-1)
    assert torch.allclose(first, expected, rtol=1e-3)
    assert dominant_eigenvalue(branch, x).value.dtype == torch.complex64


def test_bad_arguments_are_refused() -> None:
    branch = strong_branch("gaussian", "paper")
    with pytest.raises(ValueError, match="steps must be at least 1"):
        spectral_radius(branch, normal(1, 2, CHANNELS, seed=0), steps=0)
    with pytest.raises(ValueError, match=r"tokens must have shape \(B, N, 4\)"):
        spectral_norm_estimate(branch, normal(1, 2, 3, seed=0))
