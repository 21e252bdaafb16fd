"""How time grows with the number of tokens."""

from __future__ import annotations

import pytest
from backend_thresholds import Case
from forms import CHOSEN, FORMULA, run_of
from turns import Turns

SORTED_TOKENS = (256, 1024, 4096, 9701, 38804, 131072, 262144)
SQUARE_TOKENS = (256, 1024, 4096, 9701, 38804)
FORMULA_UP_TO = 9701
CASES = [("elu+1-row-sum", "value", tokens) for tokens in SORTED_TOKENS]
CASES += [("elu+1-row-sum", "gradient", tokens) for tokens in SORTED_TOKENS]
CASES += [("elu+1-row-sum", "log-det", tokens) for tokens in SORTED_TOKENS if tokens >= FORMULA_UP_TO]
CASES += [(form, "value", tokens) for form in ("exp-row", "exp-column") for tokens in SQUARE_TOKENS]


@pytest.mark.parametrize(("form", "operation", "tokens"), CASES)
def bench_growth(form: str, operation: str, tokens: int, row: str, turns: Turns) -> None:
    """Ours at every size, the formula up to 9,701 tokens."""
    case = Case(form, tokens, 1)
    names = [CHOSEN, FORMULA] if tokens <= FORMULA_UP_TO and operation == "value" else [CHOSEN]
    variants = {name: run_of(case, operation, name) for name in names}
    turns.measure(row, variants, rounds=5 if tokens < FORMULA_UP_TO else 3, wall_rounds=1)
