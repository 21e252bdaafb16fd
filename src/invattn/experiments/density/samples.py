"""Draw pictures of a stored flow over images: samples, walks, nearest training images, and a Frechet distance."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from invattn._errors import DataError
from invattn._files import atomic_write, read_json, write_json
from invattn.experiments.density.config import SampleOptions
from invattn.experiments.density.data import DequantisedData
from invattn.experiments.density.figures import neighbour_arrays, sample_arrays, to_pictures, walk_arrays
from invattn.experiments.density.sampling import Samples, draw_samples, frechet_distance, load_features
from invattn.experiments.density.stored import StoredData, open_flow, read_stored_data
from invattn.experiments.kit.output import Arrays, make_folder, write_arrays
from invattn.experiments.kit.progress import Progress, task_of
from invattn.experiments.kit.training.loader import derive_seed
from invattn.flows import Flow
from invattn.hub import ImageFlowConfig
from invattn.recipes import make_recipe

WALKS, WALK_STEPS = 8, 11
COMPARED, NEIGHBOURS = 10, 3


@dataclass(frozen=True)
class SampledImages:
    """What was drawn.

    Attributes:
        values: Samples as the flow gives them, shape (T, n, C, H, W).
        arrays: The pictures, by the names of :mod:`invattn.experiments.density.figures`.
        summary: What the page says of them: plain values.
    """

    values: Tensor
    arrays: Arrays
    summary: dict[str, Any]

    def lines(self) -> list[str]:
        """Say of each temperature how many inverses failed, and the Frechet distance if there is one."""
        found = []
        distances = self.summary.get("frechet")
        columns = [self.summary[name] for name in ("temperatures", "failed", "not_finite", "failures")]
        for number, (temperature, failed, lost, why) in enumerate(zip(*columns, strict=True)):
            line = f"temperature {temperature:g}: {self.summary['count']} samples, "
            line += f"{failed} inverses failed ({why})" if failed else "every inverse converged"
            line += f", {lost} not finite" if lost else ", all finite"
            found.append(line if distances is None else f"{line}, Frechet distance {distances[number]:.4g}")
        return found


def is_image_flow(folder: Path) -> bool:
    """Whether a folder says that it holds a flow over images; DataError if it has no readable ``config.json``."""
    plain = read_json(folder / "config.json")
    return isinstance(plain, dict) and plain.get("model") == ImageFlowConfig.model


def sample_images(options: SampleOptions, progress: Progress) -> SampledImages:
    """Draw samples of a stored flow over images, and what else was asked for.

    Returns:
        The samples and pictures. An inverse that fails is no error: its sample is counted in the summary.

    Raises:
        DataError: If the folder holds no flow over images, or images or features cannot be used.
        CertificateError: If the model is not the one that was certified.
    """
    features = None if options.fid_features is None else load_features(options.fid_features)
    flow, config = open_flow(options.model)
    if not isinstance(config, ImageFlowConfig):
        shape = " x ".join(str(side) for side in config.event_shape)
        raise DataError(f"{options.model} is a flow over samples {shape}, not over images.")
    stored = read_stored_data(options.model)
    real, levels = _real_images(options, stored, config), stored.levels
    # Base draws are made on the CPU, wherever they are inverted.
    flow, seed = flow.to("cuda" if torch.cuda.is_available() else "cpu"), derive_seed(options.seed, "samples")
    drawn = []
    for heat in options.temperatures:
        with task_of(progress, f"sample at temperature {heat:g}", total=options.images):
            drawn.append(draw_samples(flow, options.images, seed=seed, temperature=heat, on_batch=progress.advance))
    arrays = sample_arrays(options.temperatures, drawn, levels=levels)
    summary: dict[str, Any] = {
        "model": options.model.name,
        "attention": config.attention,
        "recipe": make_recipe(config.recipe).name,
        "seed": options.seed,
        "count": options.images,
        "temperatures": list(options.temperatures),
        "failed": [int((~part.converged).sum()) for part in drawn],
        "not_finite": [int((~part.finite).sum()) for part in drawn],
        "failures": [part.failures for part in drawn],
    }
    if real is not None:
        arrays |= _compared(flow, options, drawn, real)
        summary |= {"data": {"name": real.name, "train": len(real.images.train), "test": len(real.images.test)}}
        if features is not None:
            summary |= {"frechet": _distances(drawn, real, features, levels)}
    return SampledImages(torch.stack([part.values for part in drawn]).cpu(), arrays, summary)


def _real_images(options: SampleOptions, stored: StoredData, config: ImageFlowConfig) -> DequantisedData | None:
    """Return the images that samples are compared with, None where nothing asks for any."""
    if not options.needs_images:
        return None
    real = stored.images(name=options.data, data_root=options.data_root, image_size=config.image_shape[-1])
    if real.event_shape != config.event_shape:
        found, wanted = (" x ".join(map(str, sides)) for sides in (real.event_shape, config.event_shape))
        raise DataError(f"{real.name} has images of {found} (channels, height, width); the flow takes {wanted}.")
    return real


def _compared(flow: Flow, options: SampleOptions, drawn: list[Samples], real: DequantisedData) -> Arrays:
    arrays: Arrays = {}
    like = next(flow.bijection.parameters())
    if options.interpolate:
        test = real.test()[: 2 * WALKS].to(like)
        arrays |= walk_arrays(flow, test, walks=WALKS, steps=WALK_STEPS, levels=real.levels)
    if options.nearest:
        # Of the samples that are nearest to temperature 1: those of the model itself, if they were asked for.
        place = min(range(len(drawn)), key=lambda number: abs(options.temperatures[number] - 1.0))
        train = (real.images.train.to(like) + 0.5) / real.levels - 0.5
        arrays |= neighbour_arrays(drawn[place].values[:COMPARED], train, count=NEIGHBOURS, levels=real.levels)
    return arrays


def _distances(drawn: list[Samples], real: DequantisedData, features: nn.Module, levels: int) -> list[float]:
    """Return the Frechet distance of the samples at each temperature to the test images."""
    shown = [to_pictures(part.values, levels=levels).movedim(-1, 1) for part in drawn]
    test = to_pictures((real.images.test.double() + 0.5) / levels - 0.5, levels=levels).movedim(-1, 1)
    return [frechet_distance(test, part, features) for part in shown]


def write_sampled_images(output: Path, sampled: SampledImages) -> None:
    """Write ``samples.npy``, ``samples.json`` and the arrays of the pictures; every file whole or not at all."""
    make_folder(output / "artifacts")
    values = io.BytesIO()
    np.save(values, sampled.values.numpy(), allow_pickle=False)
    atomic_write(output / "samples.npy", values.getvalue())
    name = f"{sampled.summary['attention']}-{sampled.summary['recipe']}"
    write_arrays(output / "artifacts" / f"{name}.npz", sampled.arrays)
    write_json(output / "samples.json", sampled.summary)
