"""Measure the tables of image densities: one resumable command each.

    python benchmarks/density_tables.py digits --output runs/digits
    python benchmarks/density_tables.py celeba16 --data-root DATA --output runs/celeba16
    python benchmarks/density_tables.py cifar32 --data-root DATA --output runs/cifar32

Run it with one thread (OMP_NUM_THREADS=1): the CPU seconds of a row are those of its training. Every cell, a row and a
seed, is kept with a hash of code and options, so that the same command goes on where it was stopped. When all are done
the table is written to docs/results as Markdown and JSON (numbers only).
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import density_peers
import torch
from density_data import ImageSet, celeba16, cifar32, digits
from density_markdown import write_table
from torch import Tensor

from invattn.bijections import Bijection, Composed
from invattn.checkpoints.certificate import hash_json
from invattn.evaluation import block_radii, inverse_errors, measure_likelihood, refusal
from invattn.experiments.density_presets import DensityPreset, get_preset
from invattn.experiments.source_hash import hash_sources, source_hash
from invattn.flows import Flow, StandardNormal, front_of, start_from_data
from invattn.logdet import PowerSeries
from invattn.records import read_json, write_json
from invattn.training import MaximumLikelihood, ResumableLoader, SilentProgress, derive_seed, fit

PEER_SECONDS = 40.0
_PEER_STEPS = 20_000  # more than any makes in that time
INVERTED = 100
ATTENTION = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: Of its cells.
        title: For the reader.
        kind: ``flow`` (ours), ``front`` (what is fitted of ours, alone), ``peer``, ``peer_behind_front``, ``gaussian``.
        preset: Of ours.
        peer: Name of the peer.
        seeds: How many trainings.
    """

    name: str
    title: str
    kind: str
    preset: DensityPreset
    peer: str = ""
    seeds: int = 1

    def key(self, data: ImageSet, seed: int) -> str:
        """Return the hash of everything that the numbers depend on."""
        own = {
            "kind": self.kind,
            "peer": self.peer,
            "seed": seed,
            "preset": _plain(self.preset),
            "torch": torch.__version__,
        }
        code = {"code": source_hash(), "benchmark": hash_sources(Path(__file__).parent)}
        pixels = hash_json([data.train.sum().item(), data.test.sum().item(), list(data.train.shape)])
        return hash_json(own | code | {"pixels": pixels})


def digits_rows(preset: DensityPreset) -> list[Row]:
    rows = [Row("gaussian", "full-covariance Gaussian", "gaussian", preset)]
    rows += [Row(name, density_peers.TITLES[name], "peer", preset, name) for name in density_peers.PEERS]
    rows += [
        Row(
            f"{name}-front", f"{density_peers.TITLES[name]}, behind our fitted front", "peer_behind_front", preset, name
        )
        for name in ("normflows-residual", "normflows-spline")
    ]
    rows.append(Row("front", "ours: histograms and whitening alone, nothing trained", "front", preset))
    rows.append(Row("none", "ours: 6 certified residual blocks behind that", "flow", preset, seeds=3))
    return rows


def celeba_rows(preset: DensityPreset) -> list[Row]:
    rows = [
        Row("gaussian", "full-covariance Gaussian", "gaussian", preset),
        Row("front", "whitening and splines alone, as fitted", "front", preset),
    ]
    titles = {"none": "no attention", "convolution": "extra convolution", "pointwise": "P = I"}
    for name in ("none", "convolution", "pointwise", *ATTENTION):
        title = titles.get(name, f"certified attention, {name.replace('_', ' ')}")
        rows.append(Row(name, title, "flow", preset.with_attention(name), seeds=3))
    return rows


def cifar_rows(preset: DensityPreset) -> list[Row]:
    attention = "embedded_gaussian"
    released = preset.with_attention("dot_product", recipe="released_generative")
    return [
        Row("gaussian", "full-covariance Gaussian", "gaussian", preset),
        Row("front", "whitening and splines alone, as fitted", "front", preset),
        Row("none", "no attention", "flow", preset.with_attention("none")),
        Row("pointwise", "P = I", "flow", preset.with_attention("pointwise")),
        Row(attention, "certified attention, embedded gaussian", "flow", preset.with_attention(attention)),
        Row("released_generative", "released_generative, dot product", "flow", released),
    ]


TABLES: dict[str, Callable[[DensityPreset], list[Row]]] = {
    "digits": digits_rows,
    "celeba16": celeba_rows,
    "cifar32": cifar_rows,
}


def run_cell(row: Row, seed: int, data: ImageSet, output: Path, *, start: Path) -> dict[str, Any]:
    """Measure one cell, or return what is kept of it."""
    file, key = output / "cells" / f"{row.name}-{seed}.json", row.key(data, seed)
    if file.exists() and (kept := read_json(file)).get("key") == key:
        return kept
    began = time.monotonic()
    measure = {"gaussian": _gaussian, "front": _front, "flow": _flow}.get(row.kind, _peer)
    result = measure(row, seed, data, output / "cells" / f"{row.name}-{seed}.ckpt", start)
    result |= {"key": key, "row": row.name, "title": row.title, "seed": seed}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, result)
    file.with_suffix(".ckpt").unlink(missing_ok=True)
    print(f"{row.name}-{seed}: {_mean_bits(result):.4f} bits/dim, {time.monotonic() - began:.0f} s", flush=True)
    return result


def _gaussian(row: Row, seed: int, data: ImageSet, checkpoint: Path, start: Path) -> dict[str, Any]:
    nats = density_peers.full_covariance_gaussian(data.fitting(), data.held_out())
    return _measured(nats, data, parameters=0, cpu_seconds=0.0)


def _front(row: Row, seed: int, data: ImageSet, checkpoint: Path, start: Path) -> dict[str, Any]:
    bijection = _started(row.preset, seed, data, start)
    front = Composed(front_of(bijection))
    x = data.held_out()
    with torch.no_grad():
        z, log_det = front.forward_and_log_det(x)
    nats = -(StandardNormal(z.shape[1:]).log_prob(z) + log_det)
    error = float(inverse_errors(front, x[:INVERTED]).max())
    return _measured(nats, data, parameters=0, cpu_seconds=0.0) | {"inverse_error": error}


def _flow(row: Row, seed: int, data: ImageSet, checkpoint: Path, start: Path) -> dict[str, Any]:
    preset, count = row.preset, row.preset.optimisation.steps * row.preset.batch_size
    module = MaximumLikelihood(
        preset.model.distribution(_started(preset, seed, data, start)),
        optimisation=preset.optimisation,
        seed=derive_seed(seed, "likelihood"),
        run_key=row.key(data, seed),
    )
    loader = ResumableLoader(
        data.sampler(count, seed=seed), num_samples=count, batch_size=preset.batch_size, epochs=1, seed=seed
    )
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    outcome = fit(module, loader, checkpoint=checkpoint, resume=True, progress=SilentProgress(), save_interval=120.0)
    flow = module.average.eval()
    measured = _measure_flow(flow, data, seed=seed)
    return measured | {
        "cpu_seconds": outcome.cpu_seconds,
        "parameters": sum(parameter.numel() for parameter in flow.parameters()),
        "stopped_at": outcome.stopped_at,
    }


def _measure_flow(flow: Flow, data: ImageSet, *, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(derive_seed(seed, "evaluation"))
    x = data.held_out()
    report = measure_likelihood(flow, x, generator=generator)
    radii = block_radii(flow.bijection, x[:INVERTED], generator=generator)
    refused = refusal(flow, radii)
    return _measured(report.nats * x[0].numel(), data) | {
        "estimator_error": report.estimator_error / math.log(2),
        "outliers": report.outliers,
        "inverse_error": float(inverse_errors(flow.bijection, x[:INVERTED]).max()),
        "radius": max(float(radius.max()) for radius in radii.values()),
        "refused": refused,
    }


def _peer(row: Row, seed: int, data: ImageSet, checkpoint: Path, start: Path) -> dict[str, Any]:
    batch = row.preset.batch_size
    sample = data.sampler(_PEER_STEPS * batch, seed=seed)
    front = Composed(front_of(_started(row.preset, 0, data, start))) if row.kind == "peer_behind_front" else None
    shape = data.train.shape[1:]

    def batches(step: int) -> Tensor:
        return sample(torch.arange(step * batch, (step + 1) * batch) % (_PEER_STEPS * batch)).flatten(1)

    found = density_peers.train_and_measure(
        row.peer,
        batches,
        data.fitting().flatten(1),
        data.held_out().flatten(1),
        seconds=PEER_SECONDS,
        seed=seed,
        front=None if front is None else lambda x: _flattened(front, x.view(-1, *shape)),
        front_inverse=None if front is None else lambda z: front.inverse(z.view(-1, *shape)).flatten(1),
    )
    measured = _measured(found.nats, data, parameters=found.parameters, cpu_seconds=found.cpu_seconds)
    return measured | {"inverse_error": found.inverse_error, "steps": found.steps}


@torch.no_grad()
def _flattened(front: Bijection, x: Tensor) -> tuple[Tensor, Tensor]:
    z, log_det = front.forward_and_log_det(x)
    return z.flatten(1), log_det


def _started(preset: DensityPreset, seed: int, data: ImageSet, start: Path) -> Composed:
    """Return a new bijection whose front is fitted; the fit is the same for all rows and seeds, and kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "model"))
        bijection = preset.model.build_with(PowerSeries(terms=preset.terms))
        front = Composed(front_of(bijection))
        fitting = data.fitting()
        if start.exists():
            front.load_state_dict(torch.load(start, weights_only=True))
        else:
            start_from_data(front, fitting)
            start.parent.mkdir(parents=True, exist_ok=True)
            torch.save(front.state_dict(), start)
        start_from_data(bijection, fitting)
    return bijection


def _measured(nats: Tensor, data: ImageSet, **extra: Any) -> dict[str, Any]:
    dimensions = data.test[0].numel()
    bits = nats.double() / math.log(2) / dimensions + math.log2(data.levels)
    return {"bits": bits.tolist(), "dimensions": dimensions, **extra}


def _mean_bits(result: dict[str, Any]) -> float:
    return sum(result["bits"]) / len(result["bits"])


def _plain(preset: DensityPreset) -> dict[str, Any]:
    return {**vars(preset), "model": preset.model.to_json(), "optimisation": vars(preset.optimisation)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--data-root", type=Path, help="folder with celeba and cifar10")
    parser.add_argument("--output", type=Path, required=True, help="folder of the cells")
    parser.add_argument("--only", default="", help="names of rows, separated by commas; no table is written")
    options = parser.parse_args(arguments)
    if options.table != "digits" and options.data_root is None:
        parser.error("this table needs --data-root: the folder with celeba and cifar10.")
    torch.set_num_threads(1)
    data = (
        digits()
        if options.table == "digits"
        else {"celeba16": celeba16, "cifar32": cifar32}[options.table](options.data_root)
    )
    preset = get_preset(options.table)
    rows = TABLES[options.table](preset)
    wanted = options.only.split(",") if options.only else [row.name for row in rows]
    start = options.output / f"front-{hash_json(_plain(replace(preset, batch_size=1)))[:12]}.pt"
    results = [
        run_cell(row, seed, data, options.output, start=start)
        for row in rows
        if row.name in wanted
        for seed in range(row.seeds)
    ]
    if not options.only:
        write_table(options.table, results)


if __name__ == "__main__":
    main()
