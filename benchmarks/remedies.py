"""Measure what the paper's six remedies (App. C) do to the block that fails most: released, dot product.

    python benchmarks/remedies.py --data-root DATA --output runs/remedies [--workers 2]

Each row changes one thing. A row that was measured is kept in OUTPUT under a key of its configuration and of the
code, and an interrupted training continues, so the same command goes on where it was stopped. When every row is there,
docs/results/remedies.md and remedies.json are written (numbers only).
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

import invattn
from invattn import diagnosis
from invattn._files import atomic_write, read_json, write_json
from invattn.experiments.kit.data.dequantise import DequantisedImages
from invattn.experiments.kit.data.reading import ImageRequest
from invattn.experiments.kit.data.sets import ImageData, load_reconstruction_data
from invattn.experiments.kit.page import formatting
from invattn.experiments.kit.progress import Progress
from invattn.experiments.kit.sources import source_hash
from invattn.experiments.kit.terminal import progress_for
from invattn.experiments.kit.training.loader import derive_seed
from invattn.experiments.reconstruction.config import Variant
from invattn.experiments.reconstruction.run import ReconstructionConfig, run_variants
from invattn.functional import squeeze
from invattn.hub import load_model
from invattn.hub.certificate import hash_json
from invattn.recipes import Released

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
ATTENTION = "dot_product"
STEPS = 100  # of Picard iteration, as in the paper; the released code's default is 50
SPECTRUM_STEPS = 40  # products J v for each spectral radius
SPECTRUM_BATCH = 16


@dataclass(frozen=True)
class Row:
    """One thing changed.

    Attributes:
        name: Short name, also that of its files.
        number: Number of the remedy in App. C; 0 for the block as released.
        change: What differs from the block as released, for the reader.
        recipe: The recipe.
        options: Options of the experiment that differ.
    """

    name: str
    number: int
    change: str
    recipe: Released = field(default_factory=Released)
    options: Mapping[str, Any] = field(default_factory=dict)


ROWS = (
    Row("released", 0, "as released: lr 0.003, ELU, c = 0.9, rows sum to 1/1.5, response constrained"),
    Row("lr", 1, "learning rate 0.0003", options={"lr": 0.0003}),
    Row("phi-elu-plus-one", 2, "ELU + 1: positive, continuous derivative", Released(phi="elu+1")),
    Row("phi-relu", 2, "contrast: ReLU, derivative with a jump", Released(phi="relu")),
    Row("lipschitz", 3, "c = 0.5 and 200 iterations", options={"lipschitz": 0.5, "iterations": 200}),
    Row("sum", 4, "rows sum to 1/3", Released(column_sum=1 / 3)),
    Row("response-free", 5, "contrast: response maps not constrained", Released(constrain_response=False)),
    Row("total", 6, "all elements of the map sum to 1/1.5", Released(normalize="total")),
)


def experiment(row: Row, options: argparse.Namespace, output: Path) -> ReconstructionConfig:
    """Return the configuration of a row."""
    common: dict[str, Any] = {
        "data": options.data,
        "data_root": options.data_root,
        "attention": ATTENTION,
        "recipe": "released",
        "epochs": options.epochs,
        "train_size": options.train_size,
        "test_size": options.test_size,
        "repeats": 1,
        "iterations": STEPS,
        "seed": options.seed,
        "resume": True,
        "output": output,
    }
    return ReconstructionConfig(**(common | dict(row.options)))


def cell_key(row: Row, options: argparse.Namespace, fingerprint: str) -> str:
    """Return the hash of everything the numbers of a row depend on."""
    config = experiment(row, options, Path("."))
    return hash_json(
        {
            "row": row.name,
            "model": Variant(ATTENTION, row.recipe, row.name).model_config(config).to_json(),
            "settings": config.settings(),
            "spectrum": [options.spectrum_images, SPECTRUM_STEPS],
            "data": fingerprint,
            "code": source_hash("invattn.experiments.reconstruction.run"),
            "torch": torch.__version__,
        }
    )


def measure(row: Row, options: argparse.Namespace, data: ImageData, progress: Progress) -> dict[str, Any]:
    """Train, invert and look at the spectrum, or return what was kept."""
    key = cell_key(row, options, data.fingerprint)
    folder = options.output / f"{row.name}-{key[:16]}"
    kept = folder / "row.json"
    if kept.exists():
        progress.message(f"{row.name}: measured before, skipped")
        return dict(read_json(kept))
    config = experiment(row, options, folder)
    variant = Variant(ATTENTION, row.recipe, row.name)
    (result,) = run_variants(config, [variant], progress).results
    radius, residual = spectral_radii(folder / "model" / variant.name, config, data, options, progress)
    metrics = result.metrics
    content = {
        "key": key,
        "name": row.name,
        "remedy": row.number,
        "change": row.change,
        "lr": config.lr,
        "lipschitz": config.lipschitz,
        "iterations": config.iterations,
        "v_score": metrics.v_score,
        "mse": metrics.mse,
        "mse_max": metrics.mse_max,
        "ssim": metrics.ssim,
        "converged": metrics.converged,
        "non_finite": metrics.non_finite,
        "spectral_radius": radius.tolist(),
        "spectral_radius_residual_max": float(residual.max()),
        "train_loss": result.train_loss[0],
        "stopped_at": result.extra["stopped_at"][0],
        "seconds": result.seconds,
    }
    write_json(kept, content)
    return dict(read_json(kept))  # with null for what is not finite, as a later run reads it


def spectral_radii(
    model_folder: Path, config: ReconstructionConfig, data: ImageData, options: argparse.Namespace, progress: Progress
) -> tuple[Tensor, Tensor]:
    """Estimate the spectral radius of J_g at evenly spread test images, in float64, with the noise of the test.

    Returns:
        The radii and the residuals of their eigenvalues, shape (n,).
    """
    loaded = load_model(model_folder)
    block = copy.deepcopy(loaded.config.block_of(loaded.model)).double()
    images = DequantisedImages(data.test, seed=derive_seed(config.seed, "test noise"))
    count = min(options.spectrum_images, len(images))
    numbers = torch.arange(count) * len(images) // count
    generator = torch.Generator().manual_seed(derive_seed(options.seed, "spectrum"))
    found = []
    progress.begin(f"spectrum {model_folder.name}", total=count)
    try:
        for part in numbers.split(SPECTRUM_BATCH):
            tokens = block.to_branch(squeeze(images(part).double(), loaded.config.squeeze))
            found.append(diagnosis.dominant_eigenvalue(block.branch, tokens, steps=SPECTRUM_STEPS, generator=generator))
            progress.advance(len(part))
    finally:
        progress.end()
    values = torch.cat([one.value.abs() for one in found])
    return values, torch.cat([one.residual for one in found])


def markdown(rows: Sequence[Mapping[str, Any]], head: Mapping[str, Any]) -> str:
    """Return the page."""
    settings = head["settings"]
    lines = [
        "# The paper's remedies for a block that does not invert",
        "",
        f"The dot-product kind of the recipe `released` on {head['data']['name']}, seed {settings['seed']}: "
        f"{head['data']['train']} training images, epochs: {settings['epochs']}; then {head['data']['test']} test "
        f"images inverted by {STEPS} Picard steps (remedy 3: 200). Each row changes one thing (App. C of the paper).",
        "",
        "| remedy | change | V-score | MSE | converged | spectral radius, median | largest | above 1 | training loss |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_line(row) for row in rows),
        "",
        "V-score: share of images with an MSE below 10 on the 0-255 scale. Converged: share of images whose residual "
        "is within the solver's tolerance. Spectral radius: largest modulus of an eigenvalue of the Jacobian of g, "
        f"estimated at {head['spectrum_images']} test images; where it is above 1 the fixed-point iteration is driven "
        "away from the image. Training loss: mean of the last epoch, against one fixed random target: what a remedy "
        "takes from the block shows here.",
        "",
        'None of these rows has a proof. `recipe="certified"` has one; its figures are in [table2.md](table2.md).',
        "",
        f"Command: `{head['command']}`. Data fingerprint {head['data']['fingerprint'][:16]}; "
        + ", ".join(f"{name} {version}" for name, version in head["versions"].items())
        + ".",
        "",
    ]
    return "\n".join(lines)


def _line(row: Mapping[str, Any]) -> str:
    radii = [value for value in row["spectral_radius"] if value is not None]
    above = sum(value > 1 for value in radii) / len(radii) if radii else None
    cells = [
        str(row["remedy"] or "–"),
        str(row["change"]),
        formatting.share(row["v_score"], decimals=1),
        formatting.error(row["mse"]),
        formatting.share(row["converged"], decimals=1),
        formatting.error(statistics.median(radii) if radii else None),
        formatting.error(max(radii, default=None)),
        formatting.share(above, decimals=1),
        _loss(row),
    ]
    return f"| {' | '.join(cells)} |"


def _loss(row: Mapping[str, Any]) -> str:
    last = row["train_loss"][-1] if row["train_loss"] else None
    if row["stopped_at"] is not None:
        return f"not finite at step {row['stopped_at']}"
    return formatting.error(last, digits=4)


def write_table(rows: Sequence[Mapping[str, Any]], options: argparse.Namespace, data: ImageData) -> None:
    """Write remedies.md and remedies.json."""
    settings = {name: getattr(options, name) for name in ("epochs", "train_size", "test_size", "seed")}
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in settings.items())
    root = "" if options.data_root is None else " --data-root DATA"
    head = {
        "schema_version": 1,
        "command": f"python benchmarks/remedies.py --data {options.data}{root} {flags} --output OUT",
        "settings": settings,
        "spectrum_images": min(options.spectrum_images, len(data.test)),
        "spectrum_steps": SPECTRUM_STEPS,
        "versions": {"invattn": invattn.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "train": len(data.train),
            "test": len(data.test),
            "notes": list(data.notes),
        },
    }
    options.results.mkdir(parents=True, exist_ok=True)
    write_json(options.results / "remedies.json", head | {"rows": [dict(row) for row in rows]})
    atomic_write(options.results / "remedies.md", markdown(rows, head).encode())


def measure_apart(row: Row, options: argparse.Namespace) -> int:
    """Measure one row in a process of its own, which writes to a log beside the results."""
    options.output.mkdir(parents=True, exist_ok=True)
    log = options.output / f"{row.name}.log"
    command = [sys.executable, __file__, *options.arguments, "--workers", "1", "--only", row.name]
    with log.open("a") as stream:
        status = subprocess.run(command, stdout=stream, stderr=stream, env=os.environ, check=False).returncode
    print(f"{row.name}: exit status {status} (log: {log})", flush=True)
    return status


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options, with the arguments themselves for the processes of single rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table goes")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--train-size", type=int, default=1000)
    parser.add_argument("--test-size", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--spectrum-images", type=int, default=64)
    parser.add_argument("--only", choices=[row.name for row in ROWS], help="measure this row and write no table")
    parser.add_argument("--workers", type=int, default=1, help="rows measured at a time")
    options = parser.parse_args(arguments)
    options.arguments = list(arguments)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every row, then write the table."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    rows = [row for row in ROWS if options.only in (None, row.name)]
    if options.workers > 1 and options.only is None:
        with ThreadPoolExecutor(options.workers) as pool:
            if any(pool.map(lambda row: measure_apart(row, options), rows)):
                return 1
    data = load_reconstruction_data(
        ImageRequest(
            options.data,
            data_root=options.data_root,
            train_size=options.train_size,
            test_size=options.test_size,
            image_size=32,
            seed=options.seed,
        )
    )
    progress = progress_for(Console())
    measured = [measure(row, options, data, progress) for row in rows]
    if options.only is None:
        write_table(measured, options, data)
        print(f"table: {options.results / 'remedies.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
