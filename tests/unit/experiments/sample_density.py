"""A finished density run over images as it lies on disk, with pictures of random colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from invattn._files import write_json
from invattn.experiments.density.record import DensityMetrics, DensityRecord, DensityResult

LEVELS = 256


def result(attention: str, value: float | None, *, recipe: str = "certified", **changes: Any) -> DensityResult:
    metrics = DensityMetrics(
        per_dim=value,
        standard_error=None if value is None else 0.021,
        median=4.9,
        outliers=0,
        estimator_error=0.0003,
        inverse_error_max=4e-6,
        spectral_radius_max=0.44,
        unit="bits",
    )
    settings: dict[str, Any] = {"seed": 0, "cpu_seconds": 61.8, "parameters": 81_516}
    settings |= {"train_loss": [5.2, 5.1, 5.0, 4.95], "certificate": {"bound": 0.97, "norm": "2"}}
    settings |= {"extra": {"attention": attention, "recipe": recipe}}
    return DensityResult(variant=f"{attention}-{recipe}", metrics=metrics, **{**settings, **changes})


def record(*results: DensityResult, name: str = "celeba", side: int = 16, train: int = 2000) -> DensityRecord:
    return DensityRecord(
        command=f"invattn density train --data {name}",
        seed=0,
        versions={"torch": "2"},
        data={
            "name": name,
            "train": train,
            "test": 64,
            "dimensions": 3 * side * side,
            "event_shape": [3, side, side],
            "levels": LEVELS,
            "notes": ["the centre square"],
            "references": {"Full-covariance Gaussian (ridge 0.3)": 5.038},
        },
        settings={"steps": 4},
        results=results,
    )


def arrays(attention: str, *, side: int = 16, seed: int = 0) -> dict[str, Any]:
    generator = np.random.default_rng(seed)

    def pictures(*shape: int) -> Any:
        return generator.integers(0, 256, size=(*shape, side, side, 3), dtype=np.uint8)

    mixes = attention not in ("none", "pointwise", "convolution")
    kinds = ["convolution", f"{attention} attention" if mixes else "convolution"] * 2
    failed = np.zeros((2, 4), dtype=np.uint8)
    failed[1, 2] = attention == "dot_product"
    return {
        "losses": np.array([-2.0, -2.1]),
        "real_images": pictures(4),
        "sample_temperatures": np.array([0.7, 1.0]),
        "sample_images": pictures(2, 4),
        "sample_failed": failed,
        "walk_images": pictures(2, 5),
        "nearest_samples": pictures(3),
        "nearest_images": pictures(3, 1),
        "nearest_distance": np.array([[52.7], [0.04], [np.nan]]),
        "block_kinds": np.array(kinds),
        "block_log_det": np.array([0.01, -0.003, 0.02, np.nan]),
        "block_size": np.array([0.1, 0.2, 0.05, 0.3]),
        "block_change": np.array([0.001, -0.002, 0.02, np.inf]),
        "block_change_error": np.array([0.001, 0.002, 0.003, np.nan]),
        "field_names": np.array(["convolution", "scale", "attention"][: 3 if mixes else 2]),
        "field_maps": np.abs(generator.normal(size=(3 if mixes else 2, 8, 8))) + 4 * np.eye(8),
        "field_place": np.array([4, 4]),
    }


def write_run(folder: Path, written: DensityRecord) -> Path:
    """Write ``results.json`` and the arrays of every variant, and return the folder."""
    (folder / "artifacts").mkdir(parents=True, exist_ok=True)
    write_json(folder / "results.json", written.to_json())
    for number, variant in enumerate(dict.fromkeys(entry.variant for entry in written.results)):
        kind = variant.rpartition("-")[0]
        np.savez(folder / "artifacts" / f"{variant}.npz", **arrays(kind, seed=number))
    return folder
