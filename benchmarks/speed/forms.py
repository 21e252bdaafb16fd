"""What is computed in the rows on attention: forms, operations, and the variants that are compared."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from backend_thresholds import CHOSEN, FORMULA, OPERATIONS, Case
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

FORMS = {
    "exp-row": "row softmax",
    "exp-column": "column softmax",
    "elu+1-row": "dot product, ELU + 1, rows",
    "elu+1-row-sum": "concatenation, ELU + 1, rows",
}
"""Kernel-normalisation, with -sum for additive scores -> its name in words."""

SDPA = "sdpa"
__all__ = ["CHOSEN", "FORMS", "FORMULA", "OPERATIONS", "SDPA", "run_of", "variants_of"]


def variants_of(case: Case, operation: str) -> dict[str, Callable[[], object]]:
    """Return ours (what the table chooses), the formula, and torch's kernel where it can do the same."""
    names = [CHOSEN, FORMULA]
    if case.form == "exp-row" and operation in ("value", "gradient"):
        names.append(SDPA)
    return {name: run_of(case, operation, name) for name in names}


def run_of(case: Case, operation: str, name: str) -> Callable[[], object]:
    """Return one operation of one variant, ready to be called."""
    apply = _sdpa if name == SDPA else case.function(name)
    return partial(OPERATIONS[operation], apply, *case.draw())


def _sdpa(x: Tensor, weights: list[Tensor]) -> Tensor:
    query, key, value = (x @ weight for weight in weights)
    return scaled_dot_product_attention(query, key, value, scale=1.0)
