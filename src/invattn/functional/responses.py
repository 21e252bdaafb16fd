"""How scores become weights."""

from __future__ import annotations

from dataclasses import dataclass

from invattn._names import check_name
from invattn.functional.kernels import Kernel

NORMALIZATIONS = ("row", "column", "total", "count")


@dataclass(frozen=True)
class Response:
    """How scores become weights.

    Attributes:
        kernel: phi, applied to every score.
        normalize: row (sum over keys is 1), column (sum over queries is 1), total (sum over both is 1)
            or count (divided by the number of keys, as in the paper's Table 1 without a kernel).
        additive: Scores are q_i + k_j of scalars, not q_i . k_j.
        weight_sum: What the normalised weights sum to instead of 1 (the paper's App. C, remedy 4).
        backend: Name of the back end that computes it; None: one is chosen at each call.
    """

    kernel: Kernel
    normalize: str = "row"
    additive: bool = False
    weight_sum: float = 1.0
    backend: str | None = None

    def __post_init__(self) -> None:
        check_name(self.normalize, NORMALIZATIONS, what="normalisation")

    @property
    def is_softmax(self) -> bool:
        """Whether the weights are a softmax of log phi(score): phi is positive, and something is normalised."""
        return self.kernel.log_value is not None and self.normalize != "count"
