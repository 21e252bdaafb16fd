"""The residual block x + g(x)."""

from __future__ import annotations

from torch import Tensor

from invattn.bijections.base import Bijection, raise_unless_converged
from invattn.branches import Branch
from invattn.lipschitz import LipschitzBound
from invattn.logdet import LogDetEstimator, PowerSeries
from invattn.solvers import Adaptive, Solution, Solver, attach_gradient, fold_into_batch


class ResidualBijection(Bijection):
    """f(x) = x + g(x) over tokens with shape (B, N, C).

    Args:
        branch: g. f is a bijection of all of R^{N x C} where g has a proven Lipschitz constant below 1.
        solver: How to invert; None is :class:`invattn.solvers.Adaptive`.
        log_det_estimator: How to get log|det(I + J)|; None is :class:`invattn.logdet.PowerSeries`.

    References:
        Zha et al. 2021, Lemma 1, Algorithm 1, App. E; Behrmann et al. 2019.
    """

    def __init__(
        self, branch: Branch, *, solver: Solver | None = None, log_det_estimator: LogDetEstimator | None = None
    ) -> None:
        super().__init__()
        self.g = branch
        self.solver = Adaptive() if solver is None else solver
        self.log_det_estimator = PowerSeries() if log_det_estimator is None else log_det_estimator

    @property
    def branch(self) -> Branch:
        return self.g

    @property
    def certified(self) -> bool:
        return self.g.certified

    @property
    def inverse_lipschitz(self) -> float | None:
        return 1 / (1 - self.lipschitz_bound().value) if self.certified else None

    def lipschitz_bound(self) -> LipschitzBound:
        return self.g.lipschitz_bound()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.g(x)

    def solve(self, z: Tensor) -> Solution:
        self.g.check_tokens(z)
        lipschitz = self.lipschitz_bound().value if self.certified else None
        return self.solver.solve(self.g, z, lipschitz=lipschitz)

    def inverse(self, z: Tensor) -> Tensor:
        return attach_gradient(self.g, z, fold_into_batch(self._solved, z))

    def _solved(self, z: Tensor) -> Tensor:
        solution = self.solve(z)
        raise_unless_converged(solution)
        return solution.value

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        image, log_det = self.log_det_estimator(self.g, x)
        return x + image, log_det

    def inverse_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x = self.inverse(z)
        _, log_det = self.log_det_estimator(self.g, x)
        return x, -log_det
