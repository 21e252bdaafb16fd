"""What every solver is, and what it returns: a value and, per sample, how good it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum

from torch import Tensor


class Status(IntEnum):
    """How a sample's iteration ended; STALLED: no point nearer the solution was found along Newton's direction."""

    CONVERGED = 0
    MAX_STEPS = 1
    DIVERGED = 2
    NON_FINITE = 3
    STALLED = 4


@dataclass(frozen=True)
class Solution:
    """The result of inverting a batch.

    Attributes:
        value: The inputs found, shape of the target.
        converged: Whether the residual is within the tolerance, shape (B,), bool.
        residual: |x + g(x) - z| at the returned x in the certificate's norm, shape (B,).
        num_steps: Updates of x, shape (B,), int: fixed-point steps, or Newton steps.
        error_bound: A proven bound of |value - exact inverse| in the certificate's norm, rounding included, shape
            (B,); None without a certificate.
        status: A :class:`Status` a sample, shape (B,), int.
        further_evaluations: Evaluations of g beyond ``num_steps + 1``, Jacobian-vector products among them, shape
            (B,), int; None is none.
    """

    value: Tensor
    converged: Tensor
    residual: Tensor
    num_steps: Tensor
    error_bound: Tensor | None
    status: Tensor
    further_evaluations: Tensor | None = None

    @property
    def evaluations(self) -> Tensor:
        """Evaluations of g a sample, shape (B,), int; a Jacobian-vector product counts as one."""
        least = self.num_steps + 1
        return least if self.further_evaluations is None else least + self.further_evaluations

    def with_value(self, value: Tensor) -> Solution:
        """Return the same report about a reshaped value."""
        return replace(self, value=value)

    def failures(self) -> str:
        """Count the samples that did not converge, by status, in words; empty where all did."""
        counts = {status: int((self.status == status).sum()) for status in Status if status != Status.CONVERGED}
        return ", ".join(f"{count} {status.name.lower()}" for status, count in counts.items() if count)


class Solver(ABC):
    """A way to solve x + g(x) = z. Solvers are small immutable objects without state between solves."""

    @abstractmethod
    def solve(
        self,
        branch: Callable[[Tensor], Tensor],
        target: Tensor,
        *,
        start: Tensor | None = None,
        lipschitz: float | None = None,
        norm: str = "inf,2",
    ) -> Solution:
        """Solve x + g(x) = z.

        Args:
            branch: g, a function of any subset of the samples, shape (A, ...) to (A, ...).
            target: z with shape (B, ...), floating point: (B, N, C) tokens, (B, C, H, W) images.
            start: Where to start, shape of z; None starts at z.
            lipschitz: A proven bound L < 1 of Lip(g), or None.
            norm: The norm of residuals, tolerances and L: "inf,2" or "2".

        Returns:
            A solution with a report for each sample; it never raises for lack of convergence.
        """
