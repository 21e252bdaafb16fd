"""Attention: the back end that the table chooses beside the formula and torch's fused kernel."""

from __future__ import annotations

import pytest
from backend_thresholds import Case
from forms import FORMS, OPERATIONS, variants_of
from turns import Turns

LARGE = 9701  # tokens of a 218 x 178 image after squeezing
SLOW = "log-det"


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("form", FORMS)
def bench_large(form: str, operation: str, row: str, turns: Turns) -> None:
    """One image of 218 x 178 pixels."""
    slow = operation == SLOW
    case = Case(form, LARGE, 1)
    turns.measure(row, variants_of(case, operation), rounds=1 if slow else 3, warm=0 if slow else 1)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("form", FORMS)
def bench_small(form: str, operation: str, row: str, turns: Turns) -> None:
    """64 images of 32 x 32 pixels: nothing that the table chooses may be slower than the formula."""
    turns.measure(row, variants_of(Case(form, 256, 64), operation), rounds=20, wall_rounds=3)
