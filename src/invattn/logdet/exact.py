"""The log-determinant from the whole Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invattn._conditions import rows_of
from invattn.lipschitz.constrained import held_estimates
from invattn.logdet.base import LogDetEstimate, LogDetEstimator


@dataclass(frozen=True)
class Exact(LogDetEstimator):
    """log|det(I + J)| by automatic differentiation and an LU factorisation; for N C up to a few hundred.

    Cost: N C vector-Jacobian products and O((N C)^3) a sample.
    """

    def estimate(
        self, branch: Callable[[Tensor], Tensor], x: Tensor, *, lipschitz: Callable[[], float | None] | None = None
    ) -> LogDetEstimate:
        size = x[0].numel()

        def single(sample: Tensor, number: Tensor) -> Tensor:
            return rows_of(branch, number[None])(sample[None])[0]

        image = branch(x)
        numbers = torch.arange(x.shape[0], device=x.device)
        jacobian = torch.func.vmap(torch.func.jacrev(single))(x, numbers).reshape(x.shape[0], size, size)
        identity = torch.eye(size, dtype=x.dtype, device=x.device)
        value = torch.linalg.slogdet(identity + jacobian).logabsdet
        return LogDetEstimate(image, value, standard_error=value.detach().new_zeros(x.shape[0]))

    def truncation_bound(self, size: int, lipschitz: float) -> float:
        return 0.0


@dataclass(frozen=True)
class TokenwiseExact(LogDetEstimator):
    """sum_i log|det(I + J_i)|, exact where token i of g(x) depends on token i of x alone.

    The Jacobian then has one C x C block a token. Summing channel c of the image over all tokens and differentiating
    gives row c of every block at once: C vector-Jacobian products in all, whatever the number of tokens.

    References:
        Behrmann et al. 2019 (the power series that this replaces where C is small).
    """

    needs_separate_tokens: ClassVar[bool] = True

    def estimate(
        self, branch: Callable[[Tensor], Tensor], x: Tensor, *, lipschitz: Callable[[], float | None] | None = None
    ) -> LogDetEstimate:
        wanted = torch.is_grad_enabled()
        with nullcontext() if wanted else held_estimates(branch), torch.inference_mode(mode=False), torch.enable_grad():
            point = x if wanted and x.requires_grad else x.detach().clone().requires_grad_()
            image = branch(point)
            rows = [
                torch.autograd.grad(image[..., c].sum(), point, create_graph=wanted, retain_graph=True)[0]
                for c in range(x.shape[-1])
            ]
            value = _log_det(torch.stack(rows, dim=-2)).reshape(x.shape[0], -1).sum(dim=1)
        if not wanted:
            image, value = image.detach(), value.detach()
        return LogDetEstimate(image, value, standard_error=value.detach().new_zeros(x.shape[0]))

    def truncation_bound(self, size: int, lipschitz: float) -> float:
        return 0.0


def _log_det(jacobian: Tensor) -> Tensor:
    """Return log|det(I + J)| of matrices with shape (..., C, C); in closed form for C = 2."""
    size = jacobian.shape[-1]
    if size == 2:
        (a, b), (c, d) = (row.unbind(-1) for row in jacobian.unbind(-2))
        return ((1 + a) * (1 + d) - b * c).abs().log()
    identity = torch.eye(size, dtype=jacobian.dtype, device=jacobian.device)
    logabsdet: Tensor = torch.linalg.slogdet(identity + jacobian).logabsdet
    return logabsdet
