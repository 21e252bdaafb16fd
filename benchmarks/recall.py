"""Measure what a proof costs in expressive power: associative recall by one block, with and without.

    python benchmarks/recall.py [--steps 500 --seeds 3] [--results docs/results]

Each of 16 tokens holds a query, a key and a value. A block is to add to every token 0.3 times the value of the token
whose key equals its query, which needs a response that is sharp and a W_L that is long. Writes recall.md and
recall.json.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

import invattn
from invattn._files import atomic_write, write_json
from invattn.bijections import Bijection
from invattn.recipes import Certified, Paper, Recipe, Strict

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
TOKENS, WIDTH = 16, 4  # a query, a key and a value of 4 channels each
KEY_LENGTH = 2.0
SIZE = 0.3  # of what is asked for, in units of the value
BATCH = 64
LR = 3e-3
TEST = 512

ROWS: tuple[tuple[str, Recipe], ...] = (
    ("`certified` (Theorem R)", Certified()),
    ("`Strict()` (Theorem 1)", Strict()),
    ('`Paper(normalize="row")`', Paper(normalize="row")),
    ("`paper` (columns)", Paper()),
)


def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return tokens (n, 16, 12) and the values they ask for (n, 16, 4)."""
    key = torch.randn(count, TOKENS, WIDTH, generator=generator)
    key = KEY_LENGTH * key / key.norm(dim=-1, keepdim=True)
    value = torch.randn(count, TOKENS, WIDTH, generator=generator)
    asked = torch.rand(count, TOKENS, generator=generator).argsort(dim=1)[..., None].expand(-1, -1, WIDTH)
    return torch.cat([key.gather(1, asked), key, value], dim=-1), value.gather(1, asked)


def relative_error(block: Bijection, x: Tensor, wanted: Tensor) -> Tensor:
    """Return the squared error over that of adding nothing."""
    added = block.branch(x)[..., :WIDTH]
    return (added - SIZE * wanted).square().mean() / (SIZE * wanted).square().mean()


@dataclass(frozen=True)
class Measured:
    """One trained block.

    Attributes:
        error: Squared error of fresh inputs over that of adding nothing.
        right_weight: Mean weight that a token gives to the one it asks for; 1/16 is no attention.
        inverted: Share of fresh inputs that the default solver recovers to 1e-3.
        bound: The proven bound of Lip(g); None without one.
    """

    error: float
    right_weight: float
    inverted: float
    bound: float | None


def train(recipe: Recipe, *, steps: int, seed: int) -> Bijection:
    """Return an embedded Gaussian block after Adam on fresh batches."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    block = invattn.invertible_attention(
        3 * WIDTH, kind="embedded_gaussian", recipe=recipe, key_channels=WIDTH, layout="tokens"
    )
    optimizer = torch.optim.Adam(block.parameters(), lr=LR)
    for _ in range(steps):
        loss = relative_error(block, *draw(BATCH, generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return block.eval()


@torch.no_grad()
def measure(block: Bijection, *, seed: int) -> Measured:
    """Test a block on fresh inputs."""
    x, wanted = draw(TEST, torch.Generator().manual_seed(10_000 + seed))
    matches = (x[..., None, :WIDTH] == x[:, None, :, WIDTH : 2 * WIDTH]).all(dim=-1)
    weights = invattn.attention_map(block, x)[:, 0]
    found = block.solve(block(x)).value
    worst = (found - x).abs().flatten(1).amax(dim=1)
    bound = block.lipschitz_bound().value if block.branch.certified else None
    return Measured(
        error=float(relative_error(block, x, wanted)),
        right_weight=float((weights * matches).sum(dim=-1).mean()),
        inverted=float((worst <= 1e-3).float().mean()),
        bound=bound,
    )


def markdown(rows: Sequence[tuple[str, Sequence[Measured]]], command: str) -> str:
    """Return the page."""
    lines = [
        "# What a proof costs: associative recall",
        "",
        f"One embedded Gaussian block, c = 0.9, {TOKENS} tokens of a query, a key and a value ({WIDTH} channels each). "
        f"It learns to add {SIZE:g} times the value of the token whose key equals the query. Median of the seeds "
        "(range).",
        "",
        "| recipe | error, relative to adding nothing | weight on the right token | recovered by the inverse | bound |",
        "|---|---|---|---|---|",
    ]
    for title, runs in rows:
        cells = [
            _spread([run.error for run in runs]),
            _spread([run.right_weight for run in runs]),
            _spread([run.inverted for run in runs]),
            "none" if runs[0].bound is None else f"{max(run.bound or 0.0 for run in runs):.4f}",
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Recovered: share of {TEST} fresh inputs that the default solver finds again to 1e-3. A block without a proof "
        "can make its response as sharp as it likes, and is then not always invertible. The proofs charge for "
        "sharpness; how much: [strength.md](strength.md), [the theory page](../theory.md).",
        "",
        f"Command: `{command}`; torch {torch.__version__}, python {platform.python_version()}, one thread.",
        "",
    ]
    return "\n".join(lines)


def _spread(numbers: Sequence[float]) -> str:
    return f"{statistics.median(numbers):.3f} ({min(numbers):.3f}-{max(numbers):.3f})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and measure every row, then write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table goes")
    options = parser.parse_args(arguments)
    rows = []
    for title, recipe in ROWS:
        runs = [measure(train(recipe, steps=options.steps, seed=seed), seed=seed) for seed in range(options.seeds)]
        rows.append((title, runs))
        print(f"{title}: {_spread([run.error for run in runs])}", flush=True)
    command = f"python benchmarks/recall.py --steps {options.steps} --seeds {options.seeds}"
    options.results.mkdir(parents=True, exist_ok=True)
    content = {"schema_version": 1, "command": command, "torch": torch.__version__, "invattn": invattn.__version__}
    table = [{"recipe": title, "runs": [asdict(run) for run in runs]} for title, runs in rows]
    write_json(options.results / "recall.json", content | {"rows": table})
    atomic_write(options.results / "recall.md", markdown(rows, command).encode())
    print(f"table: {options.results / 'recall.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
