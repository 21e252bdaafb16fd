"""More numbers of docs/theory.md: the paper's Theorem 1, other normalisations, convolutions and activations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .theory_constants import check, climbed, grid

# The paper's Theorem 1


def _strict_over_r(ratio: float) -> float:
    """(V + R + R) / F(V, R) at V = 1: both paths of strength R are added, or the larger one is climbed."""
    return (1 + ratio + ratio) / climbed(1.0, ratio)


@check
def strict_ratio(ratio: float) -> float:
    return _strict_over_r(ratio)


@check
def strict_gain() -> float:
    return max(_strict_over_r(float(ratio)) for ratio in grid(0.05, 6, 400))


@check
def one_key_growth() -> float:
    """k of |dP|_F = sqrt(N / k): all queries look at two keys alike, the logit of one of them moves."""
    found = []
    for tokens in (4, 32):
        logits = torch.full((tokens, tokens), -1e4, dtype=torch.float64)
        logits[:, :2] = 0.0
        moved = torch.zeros_like(logits)
        moved[:, 0] = 1.0
        _, change = torch.func.jvp(lambda one: one.softmax(dim=-1), (logits,), (moved,))
        found.append(tokens / float(change.square().sum()))
    assert abs(found[0] - found[1]) < 1e-9
    return found[0]


@check
def mixed_norms(tokens: float) -> float:
    """0.9 R (0.9 x) for the R with columns that sum to 1 and the x that it stretches most, in L2."""
    response = torch.zeros(int(tokens), int(tokens), dtype=torch.float64)
    response[0] = 1.0
    return float(torch.linalg.svdvals(0.9 * response * 0.9)[0])


def _lemma_2_1() -> tuple[Tensor, Tensor]:
    return torch.diag(torch.tensor([1.0, 2.0])), torch.tensor([1.0, 1.0])


@check
def lemma_2_1_left() -> float:
    """sum_j |v_j| |A_j|_1."""
    matrix, vector = _lemma_2_1()
    return sum(abs(float(vector[j])) * float(matrix[:, j].abs().sum()) for j in range(2))


@check
def lemma_2_1_right() -> float:
    """|A|_1 |v|_1."""
    matrix, vector = _lemma_2_1()
    return max(float(matrix[:, j].abs().sum()) for j in range(2)) * float(vector.abs().sum())


# Other normalisations


@check
def column_growth(limit: float, tokens: float) -> float:
    """C_N: N times the largest 2 R (1 - R) over the shares one query can have of a column."""
    smallest, largest = (math.exp(a) / (math.exp(a) + (tokens - 1) * math.exp(-a)) for a in (-limit, limit))
    shares = grid(smallest, largest, 200_001)
    return float((tokens * 2 * shares * (1 - shares)).amax())


@check
def column_attained(tokens: float) -> float:
    """sum_i |dg_i / dq_1| for k_j = v_j = 1, q_1 = 1, other queries -1, alpha = log(N - 1) / 2."""
    count = int(tokens)
    alpha = math.log(count - 1) / 2
    others = -torch.ones(count - 1, dtype=torch.float64)

    def outputs(first: Tensor) -> Tensor:
        logits = alpha * torch.cat([first[None], others])[:, None].expand(count, count)
        return logits.softmax(dim=0).sum(dim=1)

    return float(torch.func.jacfwd(outputs)(torch.ones((), dtype=torch.float64)).abs().sum())


# Convolutions


@check
def line(form: str) -> float:
    """The norm of y_i = x_i - x_{i+1}: on 3 pixels with zeros around, and on circles, by dense decompositions."""
    size, turn, joined = {
        "zero": (3, 1, False),
        "circle": (3, 1, True),
        "padded": (5, 1, True),
        "twisted": (4, -1, True),
    }[form]
    matrix = torch.eye(size, dtype=torch.float64) - torch.diag(torch.ones(size - 1, dtype=torch.float64), 1)
    if joined:
        matrix[-1, 0] -= turn
    return float(torch.linalg.svdvals(matrix)[0])


@check
def sampling_factor(samples: float) -> float:
    """The worst case of both axes: a polynomial cos(t) each, with its maximum half-way between two samples; d = 1."""
    places = 2 * math.pi * torch.arange(int(samples), dtype=torch.float64) / samples + math.pi / samples
    seen = places.cos().amax()  # of |K|^2 along one axis
    return float((1 / (seen * seen)).sqrt())


# Activations


@check
def swish_slope() -> float:
    """The steepest x sigmoid(x), by autograd on a fine grid."""
    places = grid(-10, 10, 400_001).requires_grad_()
    (slopes,) = torch.autograd.grad((places * places.sigmoid()).sum(), places)
    return float(slopes.abs().amax())


@check
def lipswish() -> float:
    return swish_slope() / 1.1


@check
def gelu_slope() -> float:
    places = grid(-10, 10, 400_001).requires_grad_()
    (slopes,) = torch.autograd.grad((places * (1 + torch.erf(places / math.sqrt(2))) / 2).sum(), places)
    return float(slopes.abs().amax())
