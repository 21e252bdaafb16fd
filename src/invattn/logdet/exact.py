"""The log-determinant from the whole Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from invattn._conditions import rows_of
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
