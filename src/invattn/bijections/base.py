"""The base class of bijections."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from invattn._conditions import Condition, bind
from invattn._errors import CertificateError, ConvergenceError
from invattn.branches import Branch
from invattn.functional import Choice
from invattn.lipschitz import BiLipschitz, LipschitzBound
from invattn.solvers import Solution


@dataclass(frozen=True)
class LogDetReport:
    """log|det| of a map at a batch, and how far it may be from the truth.

    Attributes:
        value: The estimate in nats, shape (B,).
        standard_error: Its standard error over the random draws, an estimate, shape (B,); 0 where nothing is random,
            None where fewer than two draws a part cannot tell.
        truncation_bound: A proven bound, in nats, of what cutting series adds to the expected value; 0 where nothing
            is cut, None where a part has no certificate.
    """

    value: Tensor
    standard_error: Tensor | None
    truncation_bound: float | None

    def plus(self, other: LogDetReport) -> LogDetReport:
        """Return the report of two maps in a chain, whose draws are independent."""
        error = None
        if self.standard_error is not None and other.standard_error is not None:
            error = torch.hypot(self.standard_error, other.standard_error)
        bound = None
        if self.truncation_bound is not None and other.truncation_bound is not None:
            bound = self.truncation_bound + other.truncation_bound
        return LogDetReport(self.value + other.value, error, bound)


def exact_report(value: Tensor) -> LogDetReport:
    """Return the report of a log-determinant that is known in closed form."""
    return LogDetReport(value, standard_error=torch.zeros_like(value.detach()), truncation_bound=0.0)


class Bijection(nn.Module, ABC):
    """A map with an inverse and a log-determinant.

    ``log_det`` is always log|det| of the map that is called, at its own input, in nats, shape (B,).

    To add a map whose inverse is a formula, inherit from :class:`invattn.bijections.ClosedForm` and implement
    ``forward``, ``inverse`` and ``log_det``, as below. To add a map that is inverted in another way, inherit from this
    class and implement its five abstract methods. All else has a default that promises nothing; say more where you can
    prove it: ``certified = True`` for a map that is invertible for every input, ``bi_lipschitz`` for error bounds of
    chains, ``output_shape`` and ``input_shape`` for a map that changes shapes.
    :func:`invattn.testing.check_bijection` checks what you wrote.

    Example:
        >>> import torch
        >>> from invattn.bijections import ClosedForm
        >>> from invattn.testing import check_bijection
        >>> class Affine(ClosedForm):
        ...     certified = True  # the scale is positive, whatever the parameters are
        ...
        ...     def __init__(self, channels):
        ...         super().__init__()
        ...         self.shift = torch.nn.Parameter(torch.randn(channels))
        ...         self.log_scale = torch.nn.Parameter(torch.randn(channels))
        ...
        ...     def forward(self, x):
        ...         return self.shift + self.log_scale.exp() * x
        ...
        ...     def inverse(self, z):
        ...         return (z - self.shift) * (-self.log_scale).exp()
        ...
        ...     def log_det(self, x):
        ...         return self.log_scale.sum().expand(len(x))
        >>> check_bijection(Affine(3).double(), torch.randn(2, 3).double(), log_det_tolerance=1e-10)
    """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return z."""

    def __call__(self, x: Tensor) -> Tensor:
        result: Tensor = super().__call__(x)
        return result

    @abstractmethod
    def solve(self, z: Tensor, *, start: Tensor | None = None) -> Solution:
        """Invert and report for each sample; raises only for a wrong shape, dtype or device.

        Args:
            z: What to invert.
            start: A point that is thought to be near the result, with its shape. Maps that do not iterate have no use
                for it.
        """

    @abstractmethod
    def inverse(self, z: Tensor) -> Tensor:
        """Return x with f(x) = z, differentiable in z and in the parameters, as often as the branch is.

        Raises:
            ConvergenceError: If a sample did not reach its tolerance.
        """

    @abstractmethod
    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z and log|det dz/dx| with shape (B,)."""

    @abstractmethod
    def inverse_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return x and log|det dx/dz| at the recovered x, shape (B,)."""

    def forward_and_log_det_report(self, x: Tensor) -> tuple[Tensor, LogDetReport]:
        """Return z and log|det dz/dx| with its standard error and truncation bound.

        Raises:
            ValueError: If the map cannot say how far its log-determinant may be off.
        """
        raise ValueError(f"{type(self).__name__} does not report the errors of its log-determinant.")

    def given(self, context: Tensor | None = None, *, labels: Tensor | None = None) -> Self:
        """Return a view of this map at a context, the same in both directions; it shares the parameters.

        Args:
            context: Real numbers, one row a sample, shape (B, K), for the parts that take a context.
            labels: Classes, shape (B,), for the parts that take labels.

        Returns:
            The view, for batches of B samples; the map itself if no part takes what was given.

        Raises:
            ValueError: If they do not fit.

        Example:
            >>> import torch, invattn
            >>> block = invattn.invertible_attention(4, layout="tokens", context_channels=3)
            >>> at = block.given(torch.randn(2, 3))
            >>> x = torch.randn(2, 5, 4)
            >>> bool((at.inverse(at(x)) - x).abs().max() < 1e-4)
            True
        """
        return bind(self, Condition(context=context, labels=labels))

    @property
    def certified(self) -> bool:
        """Whether every part of the map is proven invertible for every input; nothing is, unless a class proves it."""
        return False

    @property
    def norm(self) -> str | None:
        """The norm that reports about the recovered x are stated in; None where any will do."""
        return None

    def bi_lipschitz(self, shape: Sequence[int], *, norm: str | None = None) -> BiLipschitz:
        """Return proven constants l, u with l |x - y| <= |f(x) - f(y)| <= u |x - y| for all x, y.

        Args:
            shape: Shape of one input, without the batch: (N, C), (C, H, W) or (C,). Only N matters, where norms change.
            norm: Name of the norm of inputs; None is the map's own, else "inf,2".

        Raises:
            CertificateError: If a part of the map has no certificate.

        References:
            docs/theory.md, "Composition".
        """
        raise CertificateError(f"{type(self).__name__} does not say how much it stretches distances.")

    def output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of one output for one input of this shape, both without the batch."""
        return tuple(shape)

    def input_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of one input for one output of this shape, both without the batch."""
        return tuple(shape)

    def parts(self) -> tuple[Bijection, ...]:
        """Return the maps that are applied one after another, the first one first; the map itself if it is no chain."""
        return (self,)

    def around(self, wrap: Callable[[Bijection], Bijection]) -> Self:
        """Return a view of this map in which ``wrap`` was applied to the chain inside it; itself if it holds none.

        For maps that are no chain and yet hold one, such as :class:`invattn.bijections.Split`; parameters are shared.
        """
        return self

    @property
    def generators(self) -> tuple[torch.Generator, ...]:
        """The generators that this map itself draws from, besides torch's default ones and those of maps inside it."""
        return ()


class Block(Bijection):
    """A map x + g(x) with one residual branch g, in the layout of g or in another."""

    @property
    @abstractmethod
    def branch(self) -> Branch:
        """The residual branch g.

        Raises:
            ValueError: If the map is wrapped around something else than a single residual block.
        """

    def to_branch(self, x: Tensor) -> Tensor:
        """Return an input in the layout that the residual branch takes."""
        return x

    def from_branch(self, value: Tensor, like: Tensor) -> Tensor:
        """Return what the residual branch takes or gives in the layout of an input ``like``."""
        return value

    def explain(self, x: Tensor) -> Choice:
        """Return which back end computes the attention of an input x, and why; the choice can be printed.

        Raises:
            ValueError: If the branch is no attention.
        """
        return self.branch.explain(self.to_branch(x))

    def lipschitz_bound(self) -> LipschitzBound:
        """Return the proven bound of the residual branch.

        Raises:
            CertificateError: If there is none.
        """
        return self.branch.lipschitz_bound()


def as_block(bijection: Bijection) -> Block:
    """Return a map that has one residual branch, as such.

    Raises:
        ValueError: If it has not.
    """
    if not isinstance(bijection, Block):
        raise ValueError(f"{type(bijection).__name__} is not a single residual block.")
    return bijection


def raise_unless_converged(solution: Solution, *, certified: bool) -> None:
    """Raise ConvergenceError where a sample did not converge, saying how many and what to try.

    Args:
        solution: What was found.
        certified: Whether the map is proven invertible.
    """
    failed = int((~solution.converged).sum())
    if not failed:
        return
    worst = float(solution.residual.nan_to_num(nan=float("inf")).max())
    if not certified:
        advice = (
            "The block has no certificate and may not be invertible there: use recipe='certified', or a remedy of the "
            "paper's App. C (smaller lipschitz, smaller column_sum, constrain_response=True, normalize='total')"
        )
    else:
        advice = "Allow more max_steps or a larger rtol in the solver, or use float64"
    raise ConvergenceError(
        f"the inverse of {failed} of {solution.converged.numel()} samples did not reach its tolerance "
        f"({solution.failures()}; largest residual {worst:.3g}). {advice}; block.solve(z) returns what was found "
        "with a report for each sample."
    )


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
