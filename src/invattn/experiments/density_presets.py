"""Options recommended for each data set; what a user gives takes their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PLANE = {"attention": "none", "blocks": (16,), "hidden_channels": 64, "batch_size": 256, "steps": 1000, "lr": 0.005}

_IMAGES = {
    "attention": "dot_product,pointwise,none",
    "attention_positions": "interleaved:1",
    "self_logit": 6.0,
    "lipschitz": 0.97,
    "flips": True,
    "averaging": 0.99,
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "sets": {},
    "two-moons": _PLANE,
    "8-gaussians": _PLANE,
    "checkerboard": _PLANE,
    "digits": _IMAGES
    | {"image_size": 8, "train_size": 1500, "test_size": 297, "flips": False, "whitening": 8, "blocks": (2, 2)}
    | {"hidden_channels": 32, "steps": 400},
    "celeba": _IMAGES
    | {"image_size": 16, "train_size": 7000, "whitening": 16, "blocks": (2, 2, 2), "hidden_channels": 32}
    | {"steps": 400},
    "cifar10": _IMAGES | {"whitening": 4, "blocks": (4, 4, 4), "hidden_channels": 64, "steps": 2000},
    "svhn": _IMAGES | {"whitening": 4, "blocks": (4, 4, 4), "hidden_channels": 64, "steps": 1000, "flips": False},
    "photos": _IMAGES | {"train_size": 2000, "whitening": 4, "blocks": (2, 2, 2), "steps": 500},
}
"""Data set -> option -> value; options that are not named have the defaults of the configuration."""

_FOLDER = _IMAGES | {"whitening": 4, "blocks": (2, 2, 2), "steps": 1000}


def preset(data: str) -> dict[str, Any]:
    """Return the recommended options of a data set; an unknown name is taken for a folder of images."""
    return dict(PRESETS.get(data, _FOLDER))
