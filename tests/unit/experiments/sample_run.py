"""A finished reconstruction run as it lies on disk, made of real photographs and of figures of a realistic size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from numpy.typing import NDArray

from invattn._files import write_json
from invattn.experiments.kit.record import published_reconstruction
from invattn.experiments.reconstruction.record import ReconstructionMetrics, ReconstructionRecord, ReconstructionResult

Array = NDArray[Any]
KINDS = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
CONSTANTS = np.array([0.5, 0.7, 0.9, 0.99])


def photographs(count: int, *, height: int, width: int) -> Array:
    """Crops of the photographs that scikit-image ships, at about the scale of the whole picture."""
    pictures = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea(), skimage.data.rocket()]
    generator = np.random.default_rng(7)
    crops = []
    for number in range(count):
        picture = pictures[number % len(pictures)]
        factor = max(1, min(picture.shape[0] // (height * 3 // 2), picture.shape[1] // (width * 3 // 2)))
        rows, columns = (extent // factor for extent in picture.shape[:2])
        small = picture[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor, 3).mean(axis=(1, 3))
        top, left = generator.integers(rows - height + 1), generator.integers(columns - width + 1)
        crops.append(small[top : top + height, left : left + width])
    return np.stack(crops).astype(np.uint8)


def _damaged(originals: Array, *, certified: bool, generator: np.random.Generator) -> tuple[Array, Array]:
    """Reconstructions and the differences behind them: rounding noise, or for some uncertified images real damage."""
    noise = generator.standard_normal(originals.shape) * (2e-5 if certified else 3e-3)
    if not certified:
        lost = generator.random(len(originals)) < 0.25
        count, height, width, _ = originals.shape
        blocks = generator.standard_normal((count, height // 4 + 1, width // 4 + 1, 3))
        coarse = blocks.repeat(4, axis=1).repeat(4, axis=2)[:, :height, :width]
        noise += np.where(lost[:, None, None, None], 25 * coarse, 0)
    recovered = np.clip(originals + noise, 0, 255)
    return np.round(recovered).astype(np.uint8), noise


def _attention(image: Array, *, sharpness: float, queries: Array) -> Array:
    """Softmax attention over 2x2 blocks of pixels by similarity of colour."""
    rows, columns = image.shape[0] // 2, image.shape[1] // 2
    tokens = image[: rows * 2, : columns * 2].reshape(rows, 2, columns, 2, 3).mean(axis=(1, 3)) / 255
    scores = [-sharpness * ((tokens - tokens[row, column]) ** 2).sum(axis=-1) for row, column in queries]
    weights = np.exp(np.stack(scores))
    return (weights / weights.sum(axis=(1, 2), keepdims=True)).astype(np.float32)


def artifact(kind: str, recipe: str, *, height: int = 32, width: int = 32, images: int = 12) -> dict[str, Array]:
    """Every array that a run stores for one attention kind in one recipe."""
    generator = np.random.default_rng([KINDS.index(kind) if kind in KINDS else 9, len(recipe)])
    certified = recipe == "certified"
    originals = photographs(images, height=height, width=width)
    recovered, difference = _damaged(originals, certified=certified, generator=generator)
    steps = np.arange(1, 51)
    rate = 0.25 + 0.05 * KINDS.index(kind) if certified and kind in KINDS else 0.72
    queries = np.array([[3, 4], [height // 4, width // 4], [height // 2 - 4, width // 2 - 3], [height // 4, 2]])
    all_mse = np.exp(generator.normal(-21, 0.6, 200))
    if not certified:
        all_mse = np.where(generator.random(200) < 0.2, np.exp(generator.normal(5, 1.2, 200)), all_mse * 1e5)
    return {
        "originals": originals,
        "reconstructions": recovered,
        "errors": np.abs(difference).max(axis=3).astype(np.float32),
        "image_mse": (difference**2).mean(axis=(1, 2, 3)),
        "image_index": np.arange(images),
        "all_mse": all_mse,
        "residual_steps": steps,
        "residual_median": np.maximum(0.3 * rate**steps, 4e-17),
        "residual_max": np.maximum(0.9 * (rate + 0.1) ** steps, 1e-16) if certified else 0.9 * 0.97**steps + 0.02,
        "curve_c": CONSTANTS,
        "curve_steps": steps,
        "curve_error": np.maximum(0.4 * (0.75 * CONSTANTS[:, None]) ** steps, 1e-16),
        "attention_image": originals[0],
        "attention_query": queries,
        "attention_maps": _attention(originals[0], sharpness=1.5 if certified else 14.0, queries=queries),
        "losses": 1.0 + 0.3 * np.exp(-np.arange(40) / (6 + KINDS.index(kind) if kind in KINDS else 9)),
    }


def result(kind: str, recipe: str, dataset: str, *, image_size: int | str = 32) -> ReconstructionResult:
    """A result whose figures go with the artifact."""
    certified = recipe == "certified"
    metrics = ReconstructionMetrics(
        mse=6.2e-10, mse_max=2.9e-9, mse_std=3.1e-11, ssim=0.9999999, v_score=1.0, converged=1.0, non_finite=0,
        evaluations_mean=8.24, evaluations_max=11,
    )  # fmt: skip
    if not certified:
        share = {"gaussian": 0.964, "embedded_gaussian": 0.985, "dot_product": 0.818}.get(kind, 0.975)
        metrics = replace(
            metrics, mse=41.7, mse_max=5122.4, mse_std=3.6, ssim=0.9871, v_score=share, converged=share - 0.01,
            non_finite=3 if kind == "dot_product" else 0, evaluations_mean=51.0, evaluations_max=51,
        )  # fmt: skip
    return ReconstructionResult(
        attention=kind,
        recipe=recipe,
        dataset=dataset,
        image_size=image_size,
        images=200,
        repeats=3 if certified else 1,
        metrics=metrics,
        certificate={"bound": 0.8999999, "norm": "inf,2"} if certified else None,
        paper=published_reconstruction(dataset, image_size)[kind],
        train_loss=[],
        seconds={"train": 21.4, "test": 0.8 if certified else 2.6},
    )


def record(
    dataset: str = "photos",
    *,
    recipes: tuple[str, ...] = ("certified", "released"),
    kinds: tuple[str, ...] = KINDS,
    image_size: int | str = 32,
) -> ReconstructionRecord:
    """A record of one run over all kinds."""
    return ReconstructionRecord(
        command=f"invattn reconstruct --data {dataset} --attention all --recipe {','.join(recipes)} --output out",
        seed=0,
        versions={"invattn": "0.1.0", "torch": "2.13.0", "lightning": "2.6.1", "numpy": "2.3.4", "python": "3.11.9"},
        data={
            "name": dataset,
            "fingerprint": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "train": 200,
            "test": 200,
            "notes": ["training and test crops come from different photographs", "the fixed target has seed 0"],
        },
        settings={"epochs": 40, "lr": 0.003, "batch_size": 64, "lipschitz": 0.9, "solver": "auto", "iterations": None},
        results=[result(kind, recipe, dataset, image_size=image_size) for recipe in recipes for kind in kinds],
    )


def write_run(folder: Path, run: ReconstructionRecord, *, height: int = 32, width: int = 32, images: int = 12) -> Path:
    """Write ``results.json`` and one artifact for each result."""
    (folder / "artifacts").mkdir(parents=True)
    write_json(folder / "results.json", run.to_json())
    for entry in run.results:
        arrays = artifact(entry.attention, entry.recipe, height=height, width=width, images=images)
        np.savez(folder / "artifacts" / f"{entry.attention}-{entry.recipe}.npz", **arrays)
    return folder
