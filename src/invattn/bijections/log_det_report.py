"""A log-determinant with what is known of its error."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
