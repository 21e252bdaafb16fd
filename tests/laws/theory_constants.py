"""The numbers of docs/theory.md, each computed from first principles: nothing here uses the formula it is to confirm.

A check is a function named as in the page's comments; what follows a colon there are its arguments.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from decimal import Context, Decimal, localcontext
from itertools import pairwise

import torch
from torch import Tensor

import invattn
from invattn.functional import spectral, squash
from invattn.functional.spectral import gram_norm
from invattn.lipschitz import ROUNDING, BiLipschitz, isometry
from invattn.solvers import driver

CHECKS: dict[str, Callable[..., float]] = {}


def check(function: Callable[..., float]) -> Callable[..., float]:
    """Register a check under its own name."""
    CHECKS[function.__name__] = function
    return function


def grid(first: float, last: float, points: int) -> Tensor:
    return torch.linspace(first, last, points, dtype=torch.float64)


# Kernels and the squash


@check
def softplus_kappa(limit: float) -> float:
    """The steepest log softplus within +-limit, by autograd."""
    scores = grid(-limit, limit, 2001).requires_grad_()
    (slopes,) = torch.autograd.grad(torch.nn.functional.softplus(scores).log().sum(), scores)
    return float(slopes.abs().amax())


@check
def squash_radial_exponent() -> float:
    """Twice the exponent p of the radial eigenvalue (1 - tau^2)^p, at several lengths."""
    found = []
    for size in (0.3, 1.0, 4.0):
        z = size * torch.tensor([0.6, 0.8], dtype=torch.float64)
        eigenvalues = torch.linalg.eigvalsh(torch.func.jacrev(squash)(z))
        found.append(2 * float(eigenvalues[0].log() / (1 - squash(z).square().sum()).log()))
    assert max(found) - min(found) < 1e-9
    return found[0]


# Theorem R and H


def climbed(value: float, response: float) -> float:
    """The largest V (1 - U) + R sqrt(U) over U in [0, 1]."""
    share = grid(0, 1, 200_001)
    return float((value * (1 - share) + response * share.sqrt()).amax())


@check
def theorem_r_four() -> float:
    """The k of F = V + R^2 / (k V), from the maximum itself."""
    found = [response**2 / (value * (climbed(value, response) - value)) for value, response in ((1, 1), (2, 0.7))]
    assert abs(found[0] - found[1]) < 1e-6
    return found[0]


@check
def theorem_r(ratio: float) -> float:
    return climbed(1.0, ratio)


def _most_sensitive(along: Tensor) -> Tensor:
    """The largest |D sigma(z) u| over z with u . sigma(z) = w: over all tau >= w."""
    tau = along + (1 - along) * grid(0, 1, 2001)[:, None]
    rest = 1 - tau.square()
    sensitive: Tensor = (rest * (1 - 2 * along.square() + (along * tau).square())).clamp_min(0).sqrt().amax(dim=0)
    return sensitive


@check
def two_cluster_gap() -> float:
    """The largest F over what two clusters of keys attain, V = 1, over R: logits move by R on one, -R on the other.

    A share p of the weights is on values with w = a, the rest on w = -b. The sum is separate in a and b.
    """
    along = grid(0, 1, 1001)
    sensitive = _most_sensitive(along)
    share = grid(0.02, 0.5, 241)[:, None]

    def attained(ratio: float) -> float:
        covariance = 2 * ratio * share * (1 - share) * along
        first, second = share * sensitive + covariance, (1 - share) * sensitive + covariance
        return float((first.amax(dim=1) + second.amax(dim=1)).amax())

    return max(climbed(1.0, 1 + 0.01 * step) / attained(1 + 0.01 * step) for step in range(13))


@check
def heads_root(heads: float) -> float:
    """Each head moves by 1 in its own direction, |W_L| = 1: the length of what they make together."""
    output = torch.eye(int(heads), dtype=torch.float64)
    return float((output @ torch.ones(int(heads), dtype=torch.float64)).norm())


@check
def paper_coefficient() -> float:
    return float(inspect.signature(invattn.invertible_attention).parameters["lipschitz"].default)


@check
def exact_norm_side() -> float:
    """The largest side at which a matrix is decomposed: one more and Gram iteration leaves its margin."""

    def excess(side: int) -> float:
        return float(spectral.spectral_norm(torch.eye(side, dtype=torch.float64))) - 1

    return next(side for side in range(60, 80) if abs(excess(side)) < 1e-13 < excess(side + 1))


@check
def single_key_norm(tokens: float) -> float:
    """|J|_2 where every output is 0.9 times one and the same token."""
    jacobian = torch.zeros(int(tokens), int(tokens), dtype=torch.float64)
    jacobian[:, 0] = 0.9
    return float(torch.linalg.svdvals(jacobian)[0])


# Consequences and composition


@check
def rounding_constant() -> float:
    return float(driver.ROUNDING_CONSTANT)


@check
def picard_steps(tolerance: float) -> float:
    """Steps of x <- z - g(x) for the slowest g, -0.9 x, until the error is `tolerance` times the first step."""
    z, x, steps = 1.0, 0.0, 0
    solution = z / (1 - 0.9)
    first = z
    while abs(x - solution) > tolerance * first:
        x, steps = z + 0.9 * x, steps + 1
    return steps


@check
def series_terms(bits: float) -> float:
    """Terms until the bound of the rest, per dimension and in bits, is below `bits` at L = 0.9."""
    terms = 1
    while 0.9 ** (terms + 1) / ((terms + 1) * (1 - 0.9)) / math.log(2) > bits:
        terms += 1
    return terms


def _chain(blocks: float) -> BiLipschitz:
    total = isometry("inf,2")
    for _ in range(int(blocks)):
        total = total.then(BiLipschitz(1 - 0.9, 1 + 0.9, "inf,2", "inf,2"), tokens=7)
    return total


@check
def chain_upper(blocks: float) -> float:
    """What x + 0.9 x does, block after block; and what the library says of it."""
    size = 1.0
    for _ in range(int(blocks)):
        size += 0.9 * size
    assert math.isclose(_chain(blocks).upper, size)
    return size


@check
def chain_inverse(blocks: float) -> float:
    """What the inverse of x - 0.9 x does."""
    size = 1.0
    for _ in range(int(blocks)):
        size /= 1 - 0.9
    assert math.isclose(_chain(blocks).inverse().upper, size)
    return size


# The failure of the relaxed block: N = 2, C = 1, columns normalised

_DIGITS = Context(prec=40)  # the page prints all that float64 holds


def _phi(score: Decimal) -> Decimal:
    """elu + 1."""
    return score + 1 if score > 0 else _DIGITS.exp(score)


_RESPONSES: dict[str, Callable[[Decimal, Decimal], Decimal]] = {
    "gaussian": lambda a, b: _DIGITS.exp(a * b),
    "embedded_gaussian": lambda a, b: _DIGITS.exp((2 * a) * (-2 * b)),
    "dot_product": lambda a, b: _phi((2 * a) * (-2 * b)),
    "concatenation": lambda a, b: _phi(-2 * a - b),
}


def _relaxed(kind: str, tokens: list[Decimal]) -> list[Decimal]:
    """f(x) of the paper's block, printed formula by printed formula."""
    response = [[_RESPONSES[kind](a, b) for b in tokens] for a in tokens]
    sums = [sum(column, Decimal(0)) for column in zip(*response, strict=True)]
    output = Decimal("-0.9") if kind == "gaussian" else Decimal("0.9")
    return [
        token
        + output * sum((r / s * Decimal("0.9") * x for r, s, x in zip(row, sums, tokens, strict=True)), Decimal(0))
        for token, row in zip(tokens, response, strict=True)
    ]


def _at(kind: str, gap: Decimal) -> list[Decimal]:
    """f of the tokens S/2 + D/2 and S/2 - D/2."""
    total = Decimal(3 if kind == "gaussian" else 2)
    with localcontext(_DIGITS):
        return _relaxed(kind, [(total + gap) / 2, (total - gap) / 2])


def _gap(kind: str) -> Decimal:
    low, high = Decimal("0.5"), Decimal(4)
    with localcontext(_DIGITS):
        for _ in range(100):
            middle = (low + high) / 2
            first, second = _at(kind, middle)
            low, high = (middle, high) if first < second else (low, middle)
        return high


@check
def collision_gap(kind: str) -> float:
    """D > 0 at which both tokens have one output, by bisection."""
    return float(_gap(kind))


@check
def collision_output(kind: str) -> float:
    """The one output of the pair, of its exchange, and of the middle."""
    gap = _gap(kind)
    images = [image for side in (gap, -gap, Decimal(0)) for image in _at(kind, side)]
    assert max(images) - min(images) < Decimal("1e-25")
    return float(images[0])


@check
def collision_det(kind: str) -> float:
    """By differences: at equal tokens a change of the sum and one of the difference do not mix."""
    step = Decimal("1e-12")
    total = Decimal(3 if kind == "gaussian" else 2)
    with localcontext(_DIGITS):
        centre = total / 2
        moved = [_relaxed(kind, [centre + step, centre]), _relaxed(kind, [centre, centre + step])]
        base = _relaxed(kind, [centre, centre])
        (a, b), (c, d) = [[(one - two) / step for one, two in zip(image, base, strict=True)] for image in moved]
        return float(a * d - b * c)


@check
def collision_slope_four() -> float:
    """The k of the slope 1 + w lambda S^2 / k of f_1 - f_2 in D at 0, Gaussian: w = -0.81, lambda = 1, S = 3."""
    step = Decimal("1e-12")
    first, second = _at("gaussian", step)
    return -0.81 * 9 / float((first - second) / step - 1)


# Rounding


@check
def rounding_margin() -> float:
    return ROUNDING


@check
def float32_roundoff() -> float:
    """log2 u of float32: half of the distance from 1 to the next number."""
    one = torch.ones((), dtype=torch.float32)
    return math.log2(float(torch.nextafter(one, one + 1) - one) / 2)


@check
def rounding_width() -> float:
    """The largest m with (1 + margin)(1 + 2 u sqrt(m) + u) <= 1 + 2 margin."""
    unit = 2.0**-24

    def kept(width: int) -> bool:
        return (1 + ROUNDING) * (1 + 2 * unit * math.sqrt(width) + unit) <= 1 + 2 * ROUNDING

    return next(one for one, two in pairwise(range(1, 10**5)) if kept(one) and not kept(two))


# Gram iteration, which needs the worst matrix


@check
def gram_ratio(side: float, steps: float) -> float:
    """The bound over the truth for the worst matrix, the identity."""
    return float(gram_norm(torch.eye(int(side), dtype=torch.float64), steps=int(steps)))


@check
def gram_steps() -> float:
    return float(inspect.getmodule(gram_norm)._GRAM_STEPS)  # type: ignore[union-attr]
