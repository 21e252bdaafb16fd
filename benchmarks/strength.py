"""Compute how long W_L may be under each certificate: what a proof takes from a block.

    python benchmarks/strength.py [--results docs/results]

Writes strength.md and strength.json. Nothing is measured or drawn: every number is a proven constant of
invattn.lipschitz, so the files come out the same on every machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from invattn._files import atomic_write, write_json
from invattn.lipschitz import attention_constant, column_constant, exp_spread, total_constant
from invattn.lipschitz.theorems import Conditions

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
LIPSCHITZ = 0.9
TOKENS = (16, 256, 9701)
RATIOS = (0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Certificate:
    """A way to bound one head with |W_V| = |W_Q| = |W_K| = 1, kernel exp and logits of at most ``ratio``.

    Attributes:
        name: Short name, for the JSON file.
        title: What the table calls it.
        norm: The norm it holds in.
        constant: The head's constant from (ratio, tokens).
        row_sum: The mean sum of a row of the map, from tokens.
    """

    name: str
    title: str
    norm: str
    constant: Callable[[float, int], float]
    row_sum: Callable[[int], float] = lambda tokens: 1.0


def _theorem_r(ratio: float, tokens: int) -> float:
    pair = (torch.tensor(number, dtype=torch.float64) for number in (1.0, ratio))
    return float(attention_constant(*pair))


CERTIFICATES = (
    Certificate("theorem_r", "Theorem R (`certified`)", "max over tokens", _theorem_r),
    Certificate(
        "strict",
        "Theorem 1, rows (`recipes.Strict`)",
        "max over tokens",
        lambda ratio, tokens: Conditions.by_rows(value_norm=1.0, logits=2 * ratio).constant,
    ),
    Certificate(
        "theorem_1_frobenius",
        "Theorem 1, rows, App. A.3.2",
        "Frobenius",
        lambda ratio, tokens: Conditions.frobenius(value_norm=1.0, query=ratio, key=ratio, tokens=tokens).constant,
    ),
    Certificate(
        "theorem_1_columns",
        "Theorem 1, columns, Sec. 2.4",
        "sum over tokens",
        lambda ratio, tokens: Conditions.by_columns(value_norm=1.0, logits=2 * ratio, tokens=tokens).constant,
    ),
    Certificate(
        "columns",
        "columns, direct bound",
        "sum over tokens",
        lambda ratio, tokens: column_constant(
            value_norm=1.0, query=ratio, key=ratio, tokens=tokens, spread=exp_spread(ratio)
        ),
    ),
    Certificate(
        "total",
        "whole map (App. C, remedy 6)",
        "max over tokens",
        lambda ratio, tokens: total_constant(
            value_norm=1.0, response_norm=ratio, tokens=tokens, spread=exp_spread(ratio)
        ),
        row_sum=lambda tokens: 1 / tokens,
    ),
)


@dataclass(frozen=True)
class Strength:
    """One cell: the largest |W_L| with which the branch keeps its constant, and what of it reaches the output.

    Attributes:
        certificate: Name of the certificate.
        tokens: N.
        ratio: R / V, which is the largest logit here.
        constant: The head's constant.
        output_norm: c / constant.
        effective: output_norm times the mean sum of a row.
    """

    certificate: str
    tokens: int
    ratio: float
    constant: float
    output_norm: float
    effective: float


def compute() -> list[Strength]:
    """Return every cell, certificate by certificate."""
    cells = []
    for certificate in CERTIFICATES:
        for tokens in TOKENS:
            for ratio in RATIOS:
                constant = certificate.constant(ratio, tokens)
                output = LIPSCHITZ / constant
                effective = output * certificate.row_sum(tokens)
                cells.append(Strength(certificate.name, tokens, ratio, constant, output, effective))
    return cells


def markdown(cells: Sequence[Strength]) -> str:
    """Return the page."""
    head = " | ".join(f"R/V = {ratio:g}" for ratio in RATIOS)
    lines = [
        "# What each certificate leaves of |W_L|",
        "",
        '"If strictly following the sufficient conditions to design invertible attention, the expressive power of such '
        'model is severely limited" (Sec. 2.4 of the paper). This is how severely: the largest strength that the last '
        f"map may have so that Lip(g) <= {LIPSCHITZ:g} is proven, for one head with |W_V| = |W_Q| = |W_K| = 1, the "
        "kernel exp and logits between -R and R.",
        "",
        "Strength is |W_L| times the mean sum of a row of the response map, which is 1 but for the last certificate "
        "(1/N), where |W_L| alone would flatter.",
        "",
        f"| certificate | norm | N | {head} |",
        "|---|---|---|---|---|---|---|",
    ]
    for certificate in CERTIFICATES:
        for tokens in TOKENS:
            own = [cell for cell in cells if (cell.certificate, cell.tokens) == (certificate.name, tokens)]
            numbers = " | ".join(_number(cell.effective) for cell in own)
            lines.append(f"| {certificate.title} | {certificate.norm} | {tokens} | {numbers} |")
    lines += [
        "",
        "R/V is how far the response can reach: with it 0, all queries take one mean. Proofs of every row: "
        '[the theory page](../theory.md), sections "Theorem R", "The paper\'s Theorem 1" and "Other normalisations". '
        "The paper's own blocks have |W_L| = 0.9 and no proof.",
        "",
        "Command: `python benchmarks/strength.py`. Constants and |W_L| in full: [strength.json](strength.json).",
        "",
    ]
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.3f}" if value >= 0.01 else f"{value:.1e}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table goes")
    options = parser.parse_args(arguments)
    cells = compute()
    options.results.mkdir(parents=True, exist_ok=True)
    head = {"schema_version": 1, "command": "python benchmarks/strength.py", "lipschitz": LIPSCHITZ}
    write_json(options.results / "strength.json", head | {"cells": [vars(cell) for cell in cells]})
    atomic_write(options.results / "strength.md", markdown(cells).encode())
    print(f"table: {options.results / 'strength.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
