"""Options recommended for each data set; what a user gives takes their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PLANE = {"attention": "none", "blocks": (16,), "hidden_channels": 64, "batch_size": 256, "steps": 1000, "lr": 0.005}

_IMAGES = {
    "attention": "embedded_gaussian,pointwise,none",
    "attention_positions": "interleaved:1",
    "self_logit": 6.0,
    "lipschitz": 0.98,
    "flips": True,
    "blocks": (2, 2),
    "hidden_channels": 32,
    "channel_knots": 8,
    "batch_size": 32,
    "lr": 0.02,
}
_WHOLE = {"whitening_ridge": 2e-6, "whitening_reach": 8.0, "knots": 16}
"""For whitening of whole images: far entries have few samples to tell how they vary together."""

_DIGITS = {
    "image_size": 8,
    "train_size": 1500,
    "test_size": 297,
    "flips": False,
    "attention": "none",
    "attention_positions": "0:-1",
    "histogram": True,
    "whitening": 8,
    "whitening_ridge": 0.01,
    "first_squeeze": 8,
    "blocks": (6,),
    "kernel_sizes": (1, 1, 1),
    "hidden_channels": 128,
    "channel_knots": 0,
    "batch_size": 128,
    "steps": 250,
    "lr": 0.01,
}
"""Squeezed to one pixel, a digit is a vector of 64 channels and a 1 x 1 convolution a matrix of all of it."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "sets": {},
    "two-moons": _PLANE,
    "8-gaussians": _PLANE,
    "checkerboard": _PLANE,
    "digits": _IMAGES | _DIGITS,
    "celeba": _IMAGES | _WHOLE | {"image_size": 16, "train_size": 7000, "whitening": 16, "steps": 300},
    "cifar10": _IMAGES | _WHOLE | {"whitening": 32, "steps": 600},
    "svhn": _IMAGES | {"whitening": 4, "steps": 1000, "flips": False},
    "photos": _IMAGES | {"train_size": 2000, "whitening": 4, "steps": 500},
}
"""Data set -> option -> value; options that are not named have the defaults of the configuration."""

_FOLDER = _IMAGES | {"whitening": 4, "steps": 1000}


def preset(data: str) -> dict[str, Any]:
    """Return the recommended options of a data set; an unknown name is taken for a folder of images."""
    return dict(PRESETS.get(data, _FOLDER))
