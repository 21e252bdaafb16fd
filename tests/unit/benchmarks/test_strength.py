"""The table of strengths is what its command writes, and its numbers are those of the printed formulas."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "docs" / "results"


@pytest.fixture(scope="module")
def strength(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return load_benchmark("strength")


def test_the_committed_table_is_the_command_s(strength: ModuleType, tmp_path: Path) -> None:
    assert strength.main(["--results", str(tmp_path)]) == 0
    assert (tmp_path / "strength.md").read_text() == (RESULTS / "strength.md").read_text()
    written, kept = (json.loads((folder / "strength.json").read_text()) for folder in (tmp_path, RESULTS))
    for one, other in zip(written.pop("cells"), kept.pop("cells"), strict=True):
        assert one.pop("certificate") == other.pop("certificate")
        assert one == pytest.approx(other, rel=1e-12)  # the last digits of exp and sqrt are the machine's
    assert written == kept


def formula(name: str, ratio: float, tokens: int) -> float:
    """The constants, from the theory page: V = A = B = 1, alpha = R."""
    share = 1 / (1 + (tokens - 1) * math.exp(-2 * ratio))
    climbed = max(
        (1 - u * u) + reach * u
        for reach in ([2 * ratio] if name == "total" else [ratio])
        for u in (i / 10**4 for i in range(10**4 + 1))
    )
    if name in ("theorem_r", "total"):
        return climbed * (share if name == "total" else 1.0)
    if name == "strict":
        return 1 + (ratio + ratio)
    if name == "theorem_1_frobenius":
        return math.sqrt(tokens) * (1 + ratio / math.sqrt(2) + ratio * math.sqrt(tokens) / 2)
    if name == "theorem_1_columns":
        return 1 + tokens * (ratio + ratio)
    moved = 2 * share * (1 - share) if share < 0.5 else 0.5
    return math.sqrt(1 + ratio**2) + ratio * tokens * moved


def test_every_cell_is_its_formula(strength: ModuleType) -> None:
    cells = strength.compute()
    assert len(cells) == 6 * 3 * 4
    for cell in cells:
        constant = formula(cell.certificate, cell.ratio, cell.tokens)
        assert cell.constant == pytest.approx(constant, rel=1e-7)  # the maximum is taken over a grid
        assert cell.output_norm * constant == pytest.approx(0.9, rel=1e-7)
        per_row = 1 / cell.tokens if cell.certificate == "total" else 1
        assert cell.effective == pytest.approx(cell.output_norm * per_row)
