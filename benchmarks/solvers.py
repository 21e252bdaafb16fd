"""Compare the solvers on certified, paper and released blocks, with random weights and trained on photographs.

    python benchmarks/solvers.py

Writes docs/results/solvers.md and solvers.json (numbers only). The trained blocks follow the reconstruction protocol,
shortened; everything is in a temporary folder. CPU times are taken in turn, solver by solver, and stated as ratios to
Picard's in the same round.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

import invattn
from invattn._files import atomic_write, write_json
from invattn.branches import Branch
from invattn.experiments.kit.data.dequantise import DequantisedImages
from invattn.experiments.kit.data.reading import ImageRequest
from invattn.experiments.kit.data.sets import load_reconstruction_data
from invattn.experiments.kit.page import formatting
from invattn.experiments.kit.terminal import progress_for
from invattn.experiments.kit.training.loader import derive_seed
from invattn.experiments.reconstruction.run import ReconstructionConfig, run
from invattn.functional import squeeze
from invattn.hub import load_model
from invattn.norms import token_norm
from invattn.solvers import Adaptive, Anderson, NewtonKrylov, Picard, Solver

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
SOLVERS: dict[str, Solver] = {
    "Picard": Picard(max_steps=500),
    "Anderson": Anderson(max_steps=500),
    "Adaptive": Adaptive(max_steps=500),
    "NewtonKrylov": NewtonKrylov(),
}
SECONDS = 5.0  # of CPU time for one block, after which it gets no further round
CHANNELS, SIDE, BATCH = 12, 5, 12  # of the blocks with random weights
FORMS = (  # recipe, c, spread of random weights in units of 1 / sqrt(inputs)
    ("certified", 0.5, 2.0),
    ("certified", 0.9, 2.0),
    ("certified", 0.99, 2.0),
    ("paper", 0.9, 0.5),
    ("released", 0.9, 0.5),
    ("paper", 0.9, 2.0),
    ("unconstrained", 0.9, 1.0),
)


@dataclass(frozen=True)
class Case:
    """Inputs of one block.

    Attributes:
        weights: random or trained.
        recipe: The recipe, with the bound of a certified one.
        kind: The attention kind.
        branch: g, in evaluation mode.
        x: Tokens that are sent forward and back.
    """

    weights: str
    recipe: str
    kind: str
    branch: Branch
    x: Tensor


def random_cases(seed: int) -> Iterator[Case]:
    """Yield blocks with normal weights; they are so large that every constraint of a certified block binds."""
    for recipe, lipschitz, spread in FORMS:
        for kind in invattn.KINDS:
            generator = torch.Generator().manual_seed(seed)
            block = invattn.invertible_attention(
                CHANNELS, kind=kind, recipe=recipe, lipschitz=lipschitz, layout="tokens"
            ).eval()
            with torch.no_grad():
                for _, parameter in sorted(block.named_parameters()):
                    width = spread / parameter.shape[-1] ** 0.5
                    parameter.copy_(width * torch.randn(parameter.shape, generator=generator))
            x = torch.randn(BATCH, SIDE * SIDE, CHANNELS, generator=generator)
            yield Case("random", f"{recipe}, {lipschitz}, weights {spread:g}", kind, block.branch, x)


def trained_cases(options: argparse.Namespace, folder: Path) -> Iterator[Case]:
    """Train each recipe and kind on the photographs, and yield the blocks with test images."""
    config = ReconstructionConfig(
        output=folder / "run",
        recipe="certified,paper,released",
        epochs=options.epochs,
        train_size=options.train_size,
        test_size=options.images,
        repeats=1,
        seed=options.seed,
    )
    run(config, progress_for(Console()))
    data = load_reconstruction_data(
        ImageRequest(
            config.data,
            data_root=None,
            train_size=config.train_size,
            test_size=config.test_size,
            image_size=32,
            seed=config.seed,
        )
    )
    images = DequantisedImages(data.test, seed=derive_seed(config.seed, "test noise"))
    for recipe in config.recipe_names():
        for kind in config.attention_names():
            loaded = load_model(config.output / "model" / f"{kind}-{recipe}")
            block = loaded.config.block_of(loaded.model).eval()
            x = block.to_branch(squeeze(images(torch.arange(options.images)), loaded.config.squeeze))
            yield Case("trained", f"{recipe}, {config.lipschitz}", kind, block.branch, x)


@torch.no_grad()
def measure(case: Case, *, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each solver."""
    z = case.x + case.branch(case.x)
    bound = case.branch.lipschitz_bound() if case.branch.certified else None
    lipschitz = None if bound is None else bound.value
    seconds: dict[str, list[float]] = {name: [] for name in SOLVERS}
    solutions = {}
    begin = time.process_time()
    for number in range(rounds):
        if number and time.process_time() - begin > SECONDS:
            break
        for name, solver in SOLVERS.items():
            start = time.process_time()
            solutions[name] = solver.solve(case.branch, z, lipschitz=lipschitz)
            seconds[name].append(time.process_time() - start)
    rows = []
    for name, solution in solutions.items():
        ratios = [own / plain for own, plain in zip(seconds[name], seconds["Picard"], strict=True)]
        error = token_norm(solution.value - case.x)[solution.converged]
        rows.append(
            {
                "weights": case.weights,
                "recipe": case.recipe,
                "kind": case.kind,
                "solver": name,
                "converged": float(solution.converged.double().mean()),
                "evaluations_mean": float(solution.evaluations.double().mean()),
                "evaluations_max": int(solution.evaluations.max()),
                "time_ratio": statistics.median(ratios),
                "worst_error": float(error.max()) if error.numel() else None,
            }
        )
    return rows


def markdown(rows: Sequence[dict[str, Any]], head: dict[str, Any]) -> str:
    """Return the page: one table for random weights, one for trained ones; a cell for each solver."""
    lines = [
        "# Solvers, measured",
        "",
        "Inverses in float32 at the default tolerance (1e-6 of the input's scale). Converged: share of samples within "
        "it. Evaluations: of g, mean / largest of a sample; a Jacobian-vector product counts as one. Time: CPU time of "
        "the batch as a ratio to Picard's, median of interleaved rounds. Worst error: largest token of |found - x| "
        "among the converged samples; where an uncertified block maps two inputs to one output it is the distance "
        "between them. What to choose: [docs/solvers.md](../solvers.md).",
    ]
    for weights in ("random", "trained"):
        lines += ["", f"## {head[weights]}", ""]
        lines += [
            "| recipe, c, size of the weights | kind | solver | converged | evaluations | time / Picard | worst error |"
        ]
        lines += ["|---|---|---|---|---|---|---|"]
        lines += [_line(row) for row in rows if row["weights"] == weights]
    versions = ", ".join(f"{name} {version}" for name, version in head["versions"].items())
    return "\n".join([*lines, "", f"Command: `{head['command']}`; {versions}, one thread.", ""])


def _line(row: dict[str, Any]) -> str:
    cells = [
        row["recipe"],
        row["kind"],
        row["solver"],
        formatting.share(row["converged"], decimals=0),
        formatting.mean_and_most(row["evaluations_mean"], row["evaluations_max"]),
        f"{row['time_ratio']:.2f}",
        formatting.error(row["worst_error"], digits=1),
    ]
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--train-size", type=int, default=128)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table goes")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for case in random_cases(options.seed):
            rows += measure(case, rounds=options.rounds)
        for case in trained_cases(options, Path(folder)):
            rows += measure(case, rounds=options.rounds)
    head = {
        "command": f"python benchmarks/solvers.py --epochs {options.epochs} --train-size {options.train_size} "
        f"--images {options.images} --rounds {options.rounds} --seed {options.seed}",
        "random": f"Random weights: {BATCH} samples of {SIDE * SIDE} normal tokens with {CHANNELS} channels",
        "trained": f"Trained on photographs for {options.epochs} epochs of {options.train_size} images, "
        f"{options.images} test images of 256 tokens",
        "versions": {"invattn": invattn.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    options.results.mkdir(parents=True, exist_ok=True)
    write_json(options.results / "solvers.json", {"schema_version": 1, **head, "rows": rows})
    atomic_write(options.results / "solvers.md", markdown(rows, head).encode())
    print(f"table: {options.results / 'solvers.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
