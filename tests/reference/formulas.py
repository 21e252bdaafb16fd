"""The printed formulas of Table 1, Eq. 4 and the released code, as loops over plain numbers.

Nothing here comes from the library: only lists of floats and `math`. Token i sends q_i, token j answers with k_j.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Vector = list[float]
Matrix = list[list[float]]


@dataclass(frozen=True)
class Affine:
    """y = W x + b; b may be missing."""

    weight: Matrix
    bias: Vector | None

    def __call__(self, x: Vector) -> Vector:
        result = []
        for o in range(len(self.weight)):
            total = 0.0 if self.bias is None else self.bias[o]
            for c in range(len(x)):
                total += self.weight[o][c] * x[c]
            result.append(total)
        return result


def constrained(weight: Matrix, left: Vector, right: Vector, coefficient: float) -> Matrix:
    """Eq. 4: c W / sigma if c / sigma < 1, else W, with sigma = u . W v of the stored vectors."""
    sigma = 0.0
    for o in range(len(weight)):
        for c in range(len(weight[0])):
            sigma += left[o] * weight[o][c] * right[c]
    factor = coefficient / sigma if sigma > 0 and coefficient / sigma < 1 else 1.0
    return [[factor * entry for entry in row] for row in weight]


def _elu(score: float) -> float:
    return score if score > 0 else math.expm1(score)


PHI: dict[str, Callable[[float], float]] = {
    "exp": math.exp,
    "elu": _elu,
    "elu+1": lambda score: score + 1 if score > 0 else math.exp(score),
    "softplus": lambda score: math.log1p(math.exp(score)),
    "relu": lambda score: max(score, 0.0),
    "none": lambda score: score,
}


@dataclass(frozen=True)
class Response:
    """r(x_i, x_j) of one head: the maps W_1, W_2, W_3 where the kind has them, and phi."""

    kind: str
    phi: str
    first: Affine | None = None
    second: Affine | None = None
    third: Affine | None = None

    def __call__(self, x_i: Vector, x_j: Vector) -> float:
        if self.kind == "gaussian":
            return PHI[self.phi](_dot(x_i, x_j))
        assert self.first is not None
        assert self.second is not None
        if self.kind in ("embedded_gaussian", "dot_product"):
            return PHI[self.phi](_dot(self.first(x_i), self.second(x_j)))
        assert self.kind == "concatenation"
        assert self.third is not None
        return PHI[self.phi](self.third(self.first(x_i) + self.second(x_j))[0])


def _dot(a: Vector, b: Vector) -> float:
    return sum(a[c] * b[c] for c in range(len(a)))


def response_map(response: Response, tokens: list[Vector]) -> Matrix:
    """r_ij for all i and j."""
    return [[response(x_i, x_j) for x_j in tokens] for x_i in tokens]


def normalised(r: Matrix, axis: str) -> Matrix:
    """Divide by the sum over i (first), over j (second), over both, or by the number of j (count).

    A sum of exactly 0, which only relu can give, leaves its weights at 0.
    """
    n = len(r)
    result = [[0.0] * n for _ in range(n)]
    for i in range(n):
        for j in range(n):
            if axis == "first":
                norm = sum(r[k][j] for k in range(n))
            elif axis == "second":
                norm = sum(r[i][k] for k in range(n))
            elif axis == "both":
                norm = sum(r[k][m] for k in range(n) for m in range(n))
            else:
                assert axis == "count"
                norm = float(n)
            result[i][j] = r[i][j] / norm if norm != 0 else 0.0
    return result


def printed_attention(
    tokens: list[Vector], *, responses: list[Response], axis: str, total: float, value: Affine, last: Affine | None
) -> list[Vector]:
    """Eq. 2 and 5: W_L sum_j R_ij F(x_j), the map R scaled to sum to ``total``; head h owns its group of channels."""
    heads = len(responses)
    values = [value(x) for x in tokens]
    width = len(values[0]) // heads
    result = [[0.0] * len(values[0]) for _ in tokens]
    for h in range(heads):
        weights = normalised(response_map(responses[h], _seen(tokens, responses[h], h, heads)), axis)
        for i in range(len(tokens)):
            for j in range(len(tokens)):
                for c in range(h * width, (h + 1) * width):
                    result[i][c] += total * weights[i][j] * values[j][c]
    return result if last is None else [last(row) for row in result]


def released_attention(
    tokens: list[Vector],
    *,
    responses: list[Response],
    axis: str,
    total: float,
    value: Affine,
    gate: Callable[[Vector], Vector],
) -> list[Vector]:
    """The released code: E_ij = total r_ij / sum, out = V E, that is out_j = sum_i V_i E_ij, then the gate."""
    heads = len(responses)
    values = [value(x) for x in tokens]
    width = len(values[0]) // heads
    result = [[0.0] * len(values[0]) for _ in tokens]
    for h in range(heads):
        energy = normalised(response_map(responses[h], _seen(tokens, responses[h], h, heads)), axis)
        for j in range(len(tokens)):
            for i in range(len(tokens)):
                for c in range(h * width, (h + 1) * width):
                    result[j][c] += values[i][c] * total * energy[i][j]
    return [gate(row) for row in result]


def _seen(tokens: list[Vector], response: Response, head: int, heads: int) -> list[Vector]:
    """The Gaussian kind has no maps: head h sees its own group of channels; the others see whole tokens."""
    if response.kind != "gaussian":
        return tokens
    width = len(tokens[0]) // heads
    return [x[head * width : (head + 1) * width] for x in tokens]
