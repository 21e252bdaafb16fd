"""The paper's Sec. 2.3.1 and App. A: every lemma, tried where it is hardest, in the L1, L2 and Frobenius norms.

The norms are the paper's (App. A.1, A.3): of a matrix, the largest column sum of moduli, the largest singular value,
and the root of the sum of squares. They are written out here and share nothing with the library.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from invattn.lipschitz import theorem_1

from .registry import seeded

Norm = Callable[[Tensor], Tensor]


def one(matrix: Tensor) -> Tensor:
    return matrix.abs().sum(dim=0).amax()


def two(matrix: Tensor) -> Tensor:
    largest: Tensor = torch.linalg.svdvals(matrix)[0]
    return largest


def frobenius(matrix: Tensor) -> Tensor:
    return matrix.square().sum().sqrt()


def largest_entry(matrix: Tensor) -> Tensor:
    """No norm of the paper: not sub-multiplicative, the wrong variant that the tests must catch."""
    return matrix.abs().amax()


NORMS: dict[str, Norm] = {"L1": one, "L2": two, "Frobenius": frobenius}
ROUND = 1 + 1e-12  # relative rounding of a few hundred float64 operations
M, N = 4, 5


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


def hard_matrices(rows: int, columns: int) -> list[Tensor]:
    """Random ones at all scales, and those on which some step of a proof is an equality."""
    ones = torch.ones(rows, columns, dtype=torch.float64)
    checker = ones * (-1.0) ** (torch.arange(rows)[:, None] * torch.arange(columns))
    single, column, row = (torch.zeros_like(ones) for _ in range(3))
    single[1, 2], column[:, 1], row[-1] = 1.0, 1.0, 1.0
    eye = torch.eye(rows, columns, dtype=torch.float64)
    random = [10.0**power * normal(rows, columns, seed=seed) for seed, power in enumerate((-8, -1, 0, 0, 1, 8))]
    return [*random, ones, checker, single, column, row, eye, torch.zeros_like(ones)]


def largest_product_ratio(norm: Norm, *, seed: int = 0, vector: bool = False) -> float:
    """Climb |G F| / (|G| |F|) over G and F, or over a matrix and a vector, from the hard starts."""
    best = 0.0
    columns = 1 if vector else N
    starts = [normal(M, M, seed=seed), torch.ones(M, M, dtype=torch.float64)]
    for start in starts:
        left = start.clone().requires_grad_()
        right = normal(M, columns, seed=seed + 1).requires_grad_()
        optimizer = torch.optim.Adam([left, right], lr=0.05)
        for _ in range(100):
            ratio = norm(left @ right) / (norm(left) * norm(right))
            best = max(best, float(ratio.detach()))
            optimizer.zero_grad()
            (-ratio).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return best


@pytest.mark.parametrize("name", ["L1", "L2"])
def test_lemma_2_1_and_lemma_3_1(name: str) -> None:
    """Lemma 2.1: |A v|_1 <= |A|_1 |v|_1. Lemma 3.1: |A v|_2 <= |A|_2 |v|_2. For any matrix and vector."""
    norm = NORMS[name]
    for matrix in hard_matrices(M, N):
        vectors = [*hard_matrices(N, 3), torch.linalg.svd(matrix)[2].mT]
        for vector in torch.cat(vectors, dim=1).mT[:, :, None]:
            assert norm(matrix @ vector) <= norm(matrix) * norm(vector) * ROUND + 1e-300
    assert 0.999 <= largest_product_ratio(norm, vector=True) <= ROUND  # tight
    assert largest_product_ratio(largest_entry, vector=True) > 1.5  # another "norm" is caught


def test_the_last_line_of_the_proof_of_lemma_2_1_is_an_inequality() -> None:
    """Printed: sum_j |v_j| |A_j|_1 = |A|_1 |v|_1. Equal only where the columns weigh the same; <= is what holds."""
    matrix, vector = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([1.0, 1.0])
    left = float((vector.abs() * matrix.abs().sum(dim=0)).sum())
    right = float(one(matrix) * one(vector[:, None]))
    assert (left, right) == (3.0, 4.0)
    for matrix in hard_matrices(M, N):
        weights = normal(N, seed=9).abs()
        assert (weights * matrix.abs().sum(dim=0)).sum() <= one(matrix) * weights.sum() * ROUND


@pytest.mark.parametrize("name", NORMS)
def test_corollaries_2_2_3_2_and_3_3(name: str) -> None:
    """Corollaries 2.2, 3.2, 3.3: |G F| <= |G| |F| in the L1, L2 and Frobenius norms."""
    norm = NORMS[name]
    for left in hard_matrices(M, M):
        for right in hard_matrices(M, N):
            assert norm(left @ right) <= norm(left) * norm(right) * ROUND + 1e-300
    assert 0.999 <= largest_product_ratio(norm) <= ROUND
    assert largest_product_ratio(largest_entry) > 1.5


def test_lemma_3_2() -> None:
    """Lemma 3.2: |A|_2 <= |A|_F. Equal for rank 1, and |A|_F = sqrt(rank) |A|_2 at most."""
    for matrix in hard_matrices(M, N):
        assert two(matrix) <= frobenius(matrix) * ROUND
        assert frobenius(matrix) <= math.sqrt(M) * two(matrix) * ROUND
    rank_one = normal(M, 1, seed=1) @ normal(1, N, seed=2)
    assert float(two(rank_one)) == pytest.approx(float(frobenius(rank_one)), rel=1e-12)
    with pytest.raises(AssertionError):  # the other way round is false
        assert frobenius(torch.eye(M)) <= two(torch.eye(M))


def test_the_inner_step_of_corollary_3_3() -> None:
    """|G F|_F <= |G|_2 |F|_F, which its proof passes through: the better bound, the one that attention can use."""
    for left in hard_matrices(M, M):
        for right in hard_matrices(M, N):
            assert frobenius(left @ right) <= two(left) * frobenius(right) * ROUND + 1e-300
    eye = torch.eye(M, dtype=torch.float64)
    right = normal(M, N, seed=3)
    assert float(frobenius(eye @ right) / (two(eye) * frobenius(right))) == pytest.approx(1)
    assert float(frobenius(eye) * frobenius(right) / frobenius(eye @ right)) == pytest.approx(math.sqrt(M))


@dataclass(frozen=True)
class Maps:
    """R and F of Theorem 1 with constants for which its conditions hold."""

    response: Callable[[Tensor], Tensor]
    features: Callable[[Tensor], Tensor]
    mu_r: float
    c_f: float
    mu_f: float
    c_r: float

    def constant(self) -> float:
        return theorem_1(self.mu_r, self.c_f, self.mu_f, self.c_r)

    def ratio(self, norm: Norm, x: Tensor, y: Tensor) -> Tensor:
        """|A(x) - A(y)| / |x - y| for A = R F; x and y are columns."""
        change = self.response(x) @ self.features(x) - self.response(y) @ self.features(y)
        return norm(change) / norm(x - y)


def random_maps(norm: Norm, *, terms: int, channels: int, seed: int) -> Maps:
    """Sums of tanh(a . x + b) E: |E| bounds each value, and the dual norm of a times |E| each slope."""

    def draw(columns: int, first: int) -> tuple[Callable[[Tensor], Tensor], float, float]:
        slopes = normal(terms, channels, seed=first)
        shifts, matrices = normal(terms, seed=first + 1), normal(terms, M, columns, seed=first + 2)
        dual = slopes.abs().amax(dim=1) if norm is one else slopes.square().sum(dim=1).sqrt()
        sizes = torch.stack([norm(matrix) for matrix in matrices])

        def apply(x: Tensor) -> Tensor:
            return torch.einsum("t,tmn->mn", torch.tanh(slopes @ x[:, 0] + shifts), matrices)

        return apply, float(sizes.sum()), float((dual * sizes).sum())

    response, mu_r, c_r = draw(M, 10 * seed)
    features, mu_f, c_f = draw(N, 10 * seed + 5)
    return Maps(response, features, mu_r, c_f, mu_f, c_r)


def tight_maps() -> Maps:
    """R and F grow along one direction up to their bounds, 2 and 5 at x_1 = 0, with slopes 7 and 3 just below it."""
    left, right = torch.zeros(M, M, dtype=torch.float64), torch.zeros(M, N, dtype=torch.float64)
    left[0, 0] = right[0, 0] = 1.0
    return Maps(
        response=lambda x: left * (2 + 7 * x[0, 0]).clamp(-2, 2),
        features=lambda x: right * (5 + 3 * x[0, 0]).clamp(-5, 5),
        mu_r=2.0,
        c_f=3.0,
        mu_f=5.0,
        c_r=7.0,
    )


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("terms", [1, 3])
def test_theorem_1_holds_for_random_maps_and_adversarial_pairs(name: str, terms: int) -> None:
    """Theorem 1 (2.3, A.3): with conditions 1-4 in one norm, A(x) = R(x) F(x) has constant mu_R c_F + mu_F c_R."""
    norm = NORMS[name]
    reached = []
    for seed in range(4):
        maps = random_maps(norm, terms=terms, channels=1 + seed, seed=seed)
        x, step = normal(1 + seed, 1, seed=seed).requires_grad_(), normal(1 + seed, 1, seed=seed + 50).requires_grad_()
        optimizer = torch.optim.Adam([x, step], lr=0.05)
        for _ in range(30):
            ratio = maps.ratio(norm, x, x + step)
            assert float(ratio.detach()) <= maps.constant() * ROUND
            optimizer.zero_grad()
            (-ratio).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        reached.append(float(ratio.detach()) / maps.constant())
    assert max(reached) > 0.05 / terms  # the pairs saw the maps at work; constants of sums add what does not align


@pytest.mark.parametrize("name", NORMS)
def test_theorem_1_is_attained_and_neither_term_can_be_dropped(name: str) -> None:
    maps = tight_maps()
    x = torch.zeros(3, 1, dtype=torch.float64)
    y = x.clone()
    y[0] = -1e-9
    ratio = float(maps.ratio(NORMS[name], x, y))
    assert maps.constant() == 41
    assert ratio <= maps.constant() * (1 + 1e-6)  # 1e-9 apart: the quotient has 7 digits
    assert ratio == pytest.approx(41, rel=1e-6)
    for wrong in (maps.mu_r * maps.c_f, maps.mu_f * maps.c_r, max(6, 35), maps.mu_r * maps.c_r + maps.mu_f * maps.c_f):
        assert ratio > wrong * 1.1


@dataclass(frozen=True)
class Broken:
    """Scalar maps (m = n = 1) for which one condition does not hold, and points at which A is steep."""

    condition: int
    response: Callable[[Tensor], Tensor]
    features: Callable[[Tensor], Tensor]
    points: Callable[[float], Tensor]


BROKEN = [
    # F is not Lipschitz, though bounded.
    Broken(1, torch.ones_like, lambda x: torch.sin(x.square()), lambda size: torch.tensor([size])),
    # R is not Lipschitz, though bounded.
    Broken(2, lambda x: torch.sin(x.square()), torch.ones_like, lambda size: torch.tensor([size])),
    # R is not bounded, F is a bounded Lipschitz map.
    Broken(3, lambda x: x, torch.sin, lambda size: torch.tensor([size])),
    # F is linear, as the paper's 1x1 convolution: not bounded. "The fourth condition naturally holds" is an assumption.
    Broken(4, torch.sin, lambda x: x, lambda size: torch.tensor([size])),
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: f"condition-{broken.condition}")
def test_without_any_one_of_its_conditions_theorem_1_is_false(broken: Broken) -> None:
    """The other three hold with constants of at most 1, and yet A has slopes beyond any given number."""
    for size in (10.0, 1e3, 1e5):
        points = (size + torch.linspace(0, 7, 200, dtype=torch.float64)).requires_grad_()
        product = broken.response(points) * broken.features(points)
        (slopes,) = torch.autograd.grad(product.sum(), points)
        assert float(slopes.abs().max()) > 0.5 * size


@pytest.mark.parametrize("tokens", [2, 16, 64])
def test_conditions_in_different_norms_do_not_make_a_bound(tokens: int) -> None:
    """Sec. 2.4 has columns that sum to 1 (|R|_1 = 1), Lip(F) = Lip(W_L) = 0.9 in L2: no product of these is a bound.

    Already with a constant R (c_R = 0), all columns in one row: |R|_1 = 1, but |R|_2 = sqrt(N), which is attained.
    """
    response = torch.zeros(tokens, tokens, dtype=torch.float64)
    response[0] = 1.0
    assert float(one(response)) == 1.0
    assert float(two(response)) == pytest.approx(math.sqrt(tokens), rel=1e-12)
    change = torch.ones(tokens, 1, dtype=torch.float64)
    stretched = float(two(0.9 * (response @ (0.9 * change))) / two(change))
    assert stretched == pytest.approx(0.81 * math.sqrt(tokens), rel=1e-12)
    assert stretched > 1 > 0.81
    # In the norm of the condition (L1), 0.81 is right.
    assert float(one(0.9 * (response @ (0.9 * change))) / one(change)) == pytest.approx(0.81, rel=1e-12)


@pytest.mark.parametrize("tokens", [2, 16, 64])
def test_the_k_between_the_norms_of_eq_5_grows_with_the_tokens(tokens: int) -> None:
    """Sec. 2.3.2 calls k "the constant bound between L1 and L2 norm". For N x C matrices it is sqrt(N C), attained.

    |A|_2 <= sqrt(C) |A|_1 and |A|_1 <= sqrt(N) |A|_2 turn an L1 constant into an L2 one.
    """
    channels = 3
    for matrix in hard_matrices(tokens, channels):
        assert two(matrix) <= math.sqrt(channels) * one(matrix) * ROUND
        assert one(matrix) <= math.sqrt(tokens) * two(matrix) * ROUND
    column = torch.zeros(tokens, channels, dtype=torch.float64)
    column[:, 0] = 1.0
    row = torch.zeros_like(column)
    row[0] = 1.0

    def function(x: Tensor) -> Tensor:
        """Linear with L1-Lipschitz constant 1: the sum of the first column times a matrix of L1-norm 1."""
        return x[:, 0].sum() * row

    for x in hard_matrices(tokens, channels):
        assert one(function(x)) <= one(x) * ROUND
    ratio = float(two(function(column)) / two(column))
    assert ratio == pytest.approx(math.sqrt(tokens * channels), rel=1e-12)
