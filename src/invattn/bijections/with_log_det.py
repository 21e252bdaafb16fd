"""A module whose forward returns the log-determinant too."""

from __future__ import annotations

from torch import Tensor, nn

from invattn._conditions import Condition, bind
from invattn.bijections.base import Bijection


class WithLogDet(nn.Module):
    """(z, log_det) from ``forward``, so that wrappers that only see ``forward`` (DDP) synchronise both gradients.

    Args:
        bijection: The bijection.
    """

    def __init__(self, bijection: Bijection) -> None:
        super().__init__()
        self.bijection = bijection

    def given(self, context: Tensor | None = None, *, labels: Tensor | None = None) -> WithLogDet:
        """Return the same at a context or at labels; see :meth:`Bijection.given`."""
        return bind(self, Condition(context=context, labels=labels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z and log|det dz/dx|, shape (B,)."""
        return self.bijection.forward_and_log_det(x)
