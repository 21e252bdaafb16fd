"""Rows of the density tables that are no run of the command line: what is fitted, alone, and other libraries' flows.

Each is kept with a hash of code and options, and skipped where it is finished.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import density_peers
import torch
from torch import Tensor

from invattn._files import read_json, write_json
from invattn.bijections import Composed, ResidualBijection
from invattn.experiments.density.config import DensityConfig, density_config
from invattn.experiments.density.data import DensityData
from invattn.experiments.density.likelihood import count_outliers, inverse_errors
from invattn.experiments.density.run import open_data
from invattn.experiments.density.training import DensityCell, started_flow
from invattn.experiments.kit.sources import source_hash
from invattn.experiments.kit.training.machines import ALONE
from invattn.flows import StandardNormal
from invattn.hub.certificate import hash_json

PEER_SECONDS = 40.0
PEER_BATCH = 128
INVERTED = 100


def configuration(data: str, *, data_root: Path | None, output: Path) -> DensityConfig:
    """Return the options of the certified flow without attention, with which the others share data and front."""
    return density_config({"data": data, "data_root": data_root, "output": output, "attention": "none"})


def run_front(config: DensityConfig, *, folder: Path) -> dict[str, Any]:
    """Measure the fitted layers before the first residual block, with a standard normal base."""

    def measure() -> dict[str, Any]:
        data = open_data(config)
        front, x = fitted_front(config, data), data.test()
        with torch.no_grad():
            z, log_det = front.forward_and_log_det(x)
        nats = -(StandardNormal(z.shape[1:]).log_prob(z) + log_det)
        error = float(inverse_errors(front, x[:INVERTED]).max())
        return _measured(nats, data, inverse_error=error, parameters=0, cpu_seconds=0.0)

    return _kept(folder / "front.json", config, "front", "what is fitted of ours, alone", measure)


def run_peer(name: str, front: str, config: DensityConfig, *, folder: Path) -> dict[str, Any]:
    """Train and measure a flow of another library.

    Args:
        name: One of ``density_peers.PEERS``.
        front: ``standard``: the data are standardised; ``ours``: behind the fitted front of ours.
        config: Decides data and front.
        folder: Of the cells.
    """

    def measure() -> dict[str, Any]:
        torch.set_num_threads(1)
        data = open_data(config)
        sample, shape = data.training(seed=config.seed), data.event_shape
        images = data.train_size(steps=config.steps, batch_size=PEER_BATCH)
        fitted = fitted_front(config, data) if front == "ours" else None

        def batch(step: int) -> Tensor:
            epoch, position = divmod(step, images // PEER_BATCH)
            order = torch.randperm(images, generator=torch.Generator().manual_seed(epoch))
            return sample(order[position * PEER_BATCH : (position + 1) * PEER_BATCH], epoch).flatten(1)

        found = density_peers.train_and_measure(
            name,
            batch,
            data.first(seed=config.seed, used=0).flatten(1),
            data.test().flatten(1),
            seconds=PEER_SECONDS,
            seed=config.seed,
            front=None if fitted is None else _flat(fitted, shape),
        )
        measured = _measured(found.nats, data, inverse_error=found.inverse_error, parameters=found.parameters)
        return measured | {"cpu_seconds": found.cpu_seconds, "steps": found.steps}

    title = density_peers.TITLES[name] + (", behind the fitted front of ours" if front == "ours" else "")
    return _kept(folder / f"{name}-{front}.json", config, f"{name}-{front}", title, measure)


def fitted_front(config: DensityConfig, data: DensityData) -> Composed:
    """Return the parts of our flow before its first residual block, fitted to the training images."""
    cell = DensityCell(config=config, data=data, attention="none", recipe="certified", repeat=0)
    bijection = started_flow(cell, ALONE).bijection
    return Composed(takewhile(lambda part: not _holds_a_block(part), bijection.parts())).requires_grad_(False)


def _holds_a_block(part: torch.nn.Module) -> bool:
    return any(isinstance(inner, ResidualBijection) for inner in part.modules())


def _flat(front: Composed, shape: tuple[int, ...]) -> density_peers.Front:
    after = front.output_shape(shape)

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = front.forward_and_log_det(x.view(-1, *shape))
        return z.flatten(1), log_det

    return density_peers.Front(forward, lambda z: front.inverse(z.view(-1, *after)).flatten(1))


def _measured(nats: Tensor, data: DensityData, **extra: Any) -> dict[str, Any]:
    per_dim = nats.double() / data.dimensions
    bits = per_dim / math.log(2) + data.unit.offset
    return {"bits": bits.tolist(), "median": float(bits.median()), "outliers": count_outliers(per_dim), **extra}


def _kept(
    file: Path, config: DensityConfig, row: str, title: str, measure: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Return what a file keeps of a cell, or measure it and keep it."""
    own = [Path(module).read_text() for module in (__file__, density_peers.__file__)]
    code = {"code": source_hash(DensityCell.code), "own": own, "torch": torch.__version__}
    key = hash_json(config.settings() | code | {"row": row})
    if file.exists() and (kept := read_json(file)).get("key") == key:
        return dict(kept)
    result = {"key": key, "row": row, "title": title, "seed": config.seed} | measure()
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, result)
    print(f"{row}: {sum(result['bits']) / len(result['bits']):.4f} bits/dim", flush=True)
    return result
