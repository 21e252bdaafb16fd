"""The residual block x + g(x), and what it does near given inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn

from invattn._conditions import bound_values, check_rows, rebind
from invattn.bijections.base import Bijection, Block, LogDetReport, as_block, raise_unless_converged
from invattn.branches import Branch
from invattn.diagnosis import Checks, Diagnosis, diagnose_branch
from invattn.functional._transforms import fold_into_batch
from invattn.lipschitz import BiLipschitz, isometry
from invattn.logdet import LogDetEstimate, LogDetEstimator, PowerSeries
from invattn.norms import count_tokens
from invattn.solvers import Adaptive, ImplicitAdjoint, InverseGradient, Solution, Solver


class ResidualBijection(Block):
    """f(x) = x + g(x) over what g takes: tokens (B, N, C) for attention, images (B, C, H, W) for convolutions.

    Args:
        branch: g. f is a bijection of the whole space where g has a proven Lipschitz constant below 1.
        solver: How to invert; None is :class:`invattn.solvers.Adaptive`.
        log_det_estimator: How to get log|det(I + J)|; None is :class:`invattn.logdet.PowerSeries`.
        inverse_gradient: How gradients go through the inverse; None is :class:`invattn.solvers.ImplicitAdjoint`.

    Raises:
        ValueError: If the estimator is not right for the branch.

    References:
        Zha et al. 2021, Lemma 1, Algorithm 1, App. E; Behrmann et al. 2019.
    """

    def __init__(
        self,
        branch: Branch,
        *,
        solver: Solver | None = None,
        log_det_estimator: LogDetEstimator | None = None,
        inverse_gradient: InverseGradient | None = None,
    ) -> None:
        super().__init__()
        self.g = branch
        self.solver = Adaptive() if solver is None else solver
        self.log_det_estimator = PowerSeries() if log_det_estimator is None else log_det_estimator
        self.inverse_gradient = ImplicitAdjoint() if inverse_gradient is None else inverse_gradient
        if branch.mixes_tokens and self.log_det_estimator.needs_separate_tokens:
            raise ValueError(
                f"{type(self.log_det_estimator).__name__} is right only where each token is mapped by itself; "
                f"{type(branch).__name__} mixes them. Use Exact, PowerSeries or RussianRoulette."
            )

    @property
    def branch(self) -> Branch:
        return self.g

    @property
    def generators(self) -> tuple[torch.Generator, ...]:
        return self.log_det_estimator.generators

    @property
    def certified(self) -> bool:
        return self.g.certified

    @property
    def norm(self) -> str | None:
        return self.g.certificate_norm if self.certified else None

    def bi_lipschitz(self, shape: Sequence[int], *, norm: str | None = None) -> BiLipschitz:
        """Return 1 - L and 1 + L in the norm of L, and what changing to that norm costs."""
        bound = self.lipschitz_bound()
        constants = BiLipschitz(
            lower=1 - bound.value,
            upper=1 + bound.value,
            norm_in=bound.norm,
            norm_out=bound.norm,
            steps=(f"x + g(x): [1 - L, 1 + L] = [{1 - bound.value:.6g}, {1 + bound.value:.6g}]; {bound}",),
        )
        return isometry(norm or bound.norm).then(constants, tokens=count_tokens(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.g(x)

    def solve(self, z: Tensor, *, start: Tensor | None = None) -> Solution:
        """Invert and report for each sample.

        Args:
            z: What to invert.
            start: Where to start, shape of z: the inverse of a target close by; None starts at z.
        """
        self._check(z)
        _check_start(start, z)
        if not self.certified:
            return self.solver.solve(self.g.at_present_weights(), z, start=start)
        branch, bound = self.g.proven_at_present_weights()
        return self.solver.solve(branch, z, start=start, lipschitz=bound.value, norm=bound.norm)

    def inverse(self, z: Tensor) -> Tensor:
        own = self._check(z)
        norm = self.norm or "inf,2"

        def solved(target: Tensor, *values: Tensor) -> Tensor:
            g = rebind(self.g, dict(zip(own, values, strict=True))) if own else self.g
            solution = self.solver.solve(g.at_present_weights(), target, norm=norm)  # without an error bound
            raise_unless_converged(solution, certified=self.certified)
            return solution.value

        found = fold_into_batch(solved, z, *own.values())
        return self.inverse_gradient(self.g, z, found, norm=norm)

    def _check(self, z: Tensor) -> dict[str, Tensor]:
        """Return the values that are bound to the branch, one row a sample of z."""
        self.g.check_input(z)
        own = bound_values(self.g)
        for values in own.values():
            check_rows(len(values), z.shape[0])
        return own

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = self._estimate(x)
        return x + found.image, found.value

    def inverse_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x = self.inverse(z)
        return x, -self._estimate(x).value

    def forward_and_log_det_report(self, x: Tensor) -> tuple[Tensor, LogDetReport]:
        certificate = cache(self._proven)  # for this call
        found = self.log_det_estimator.estimate(self.g, x, lipschitz=certificate)
        proven = certificate()
        bound = None if proven is None else self.log_det_estimator.truncation_bound(x[0].numel(), proven)
        return x + found.image, LogDetReport(found.value, found.standard_error, bound)

    def _estimate(self, x: Tensor) -> LogDetEstimate:
        return self.log_det_estimator.estimate(self.g, x, lipschitz=self._proven)

    def _proven(self) -> float | None:
        return self.lipschitz_bound().value if self.certified else None


def _check_start(start: Tensor | None, z: Tensor) -> None:
    """Raise ValueError unless a start goes with what is to be inverted."""
    if start is not None and (start.shape, start.dtype, start.device) != (z.shape, z.dtype, z.device):
        raise ValueError(
            f"start must be like z, {tuple(z.shape)} {z.dtype} on {z.device}; got {tuple(start.shape)} {start.dtype} "
            f"on {start.device}. Give the input that was found for a close z."
        )


@contextmanager
def inverted_by(module: nn.Module, solver: Solver) -> Iterator[None]:
    """Have every residual block inside a module inverted by this solver instead of its own.

    Args:
        module: Any module.
        solver: The solver to use meanwhile.
    """
    blocks = [part for part in module.modules() if isinstance(part, ResidualBijection)]
    own = [block.solver for block in blocks]
    for block in blocks:
        block.solver = solver
    try:
        yield
    finally:
        for block, previous in zip(blocks, own, strict=True):
            block.solver = previous


def diagnose(
    block: Bijection, x: Tensor, *, checks: Checks | None = None, generator: torch.Generator | None = None
) -> Diagnosis:
    """Look at what a residual block x + g(x) does near given inputs, and whether its inverse can be trusted there.

    For each sample: spectral norm and radius of the Jacobian J_g, the sign of det(I + J_g), the largest local
    Lipschitz ratio found by gradient ascent, and a search for another input with the same image. A sample is flagged
    where the spectral radius at x is above 1 (``repelling``: the fixed-point inverse moves away from x), where it is so
    near 1 at x or on the way from f(x) that the steps do not suffice (``slow``), or where another input with the same
    image was found that the residual points to on a good part of the way (``competing``). No sample is inverted.
    A second preimage that does not compete is reported but not flagged: the inverse is expected to return x, though
    nothing in f(x) tells which of the two was meant.

    A certified block is never flagged: its spectral radius is below its bound and no two inputs share an image. Its
    Euclidean norm |J_g|_2 may still exceed 1, as the bound is stated in |.|_{inf,2}.

    Args:
        block: A block with one residual branch, such as :func:`invattn.invertible_attention` makes; in evaluation mode
            for the time of the call, and otherwise left as it is.
        x: Its inputs, (B, C, H, W) or (B, N, C), float64 for the sharpest results.
        checks: What to look at and how closely; None is the default of :class:`invattn.diagnosis.Checks`.
        generator: Where random first vectors come from; None is torch's default generator.

    Returns:
        Estimates, no bounds, one a sample, and the other inputs that were found, in the layout of x.

    Raises:
        ValueError: If the map is not a single residual block, or x has another shape.

    References:
        docs/failing-blocks.md, "What diagnose measures".

    Example:
        >>> import torch, invattn
        >>> block = invattn.invertible_attention(4, kind="gaussian", layout="tokens")
        >>> report = invattn.diagnose(block, torch.randn(2, 8, 4))
        >>> bool(report.flagged.any())
        False
    """
    own = as_block(block)
    report = diagnose_branch(own.branch, own.to_branch(x), checks=checks, generator=generator)
    return report.with_preimage(own.from_branch(report.preimage, x))
