"""The base classes of solvers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

from invattn.solvers.driver import Plan, iterate
from invattn.solvers.solution import Solution


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


class FixedPointSolver(Solver):
    """A solver that runs in the one loop of fixed-point iterations."""

    @abstractmethod
    def plan(self) -> Plan:
        """Return the rule, the limits and the tolerance of one solve."""

    def solve(
        self,
        branch: Callable[[Tensor], Tensor],
        target: Tensor,
        *,
        start: Tensor | None = None,
        lipschitz: float | None = None,
        norm: str = "inf,2",
    ) -> Solution:
        return iterate(branch, target, plan=self.plan(), start=start, lipschitz=lipschitz, norm=norm)
