"""Camouflaged objects made from real textures: a smooth shape filled with a transformed copy of what surrounds it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from invattn.experiments.camouflage.pairs import MaskedImages
from invattn.experiments.kit.data.dequantise import counter_uniform
from invattn.experiments.kit.data.photos import read_shipped

SOURCES: Mapping[str, tuple[str, ...]] = {
    "train": (
        *("brick.png", "grass.png", "astronaut.png", "ihc.png", "retina.jpg", "motorcycle_left.png", "camera.png"),
        *("rocket.jpg", "coins.png", "moon.png", "cell.png", "page.png", "text.png", "color.png", "clock_motion.png"),
        *("china.jpg", "flower.jpg"),
    ),
    "test": ("gravel.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg"),
}
"""Files that scikit-image and scikit-learn ship; no picture serves both parts."""

_OF_SCIKIT_LEARN = ("china.jpg", "flower.jpg")

LARGEST_SIDE = 360
"""Of an image in pixels: a turned square of this side still fits into the smallest picture, enlarged at most twice."""

_HARMONICS = (2, 3, 4, 5)
_NUMBERS = 24 + 2 * len(_HARMONICS)
_BITS = 32

_ROOM = 0.1
"""How near the mean of a picture may come to black or white."""


class SyntheticCamouflage(MaskedImages):
    """Pairs that are a function of (part, seed, number, side, difficulty) and of nothing else.

    The object is another place of the same picture, turned, with the colours of what surrounds it on average, but
    rescaled and with other brightness, contrast and tint; its outline is a circle with a few random waves, blended over
    some pixels. With the difficulty d, scale, brightness, contrast and tint differ in proportion to 1 - d, and the edge
    gets softer: at d = 0 the object stands out, at d = 1 only a broken texture shows where it is.

    Args:
        part: ``train`` or ``test``: from which pictures.
        count: Number of pairs.
        side: Height and width in pixels.
        difficulty: d, from 0 to 1.
        seed: Decides every pair; more pairs begin with the same ones.

    Raises:
        ValueError: If a number is out of range or the part unknown.
        DataError: If scikit-image or scikit-learn is not installed.
    """

    def __init__(self, part: str, *, count: int, side: int, difficulty: float, seed: int) -> None:
        if part not in SOURCES:
            raise ValueError(f"part must be one of {', '.join(SOURCES)}; got {part!r}.")
        if count < 1 or not 16 <= side <= LARGEST_SIDE or not 0 <= difficulty <= 1:
            raise ValueError(
                f"count must be at least 1, side between 16 and {LARGEST_SIDE} and difficulty between 0 and 1; got "
                f"{count}, {side} and {difficulty}."
            )
        self.name = "synthetic"
        self._part, self._count, self._side, self._difficulty, self._seed = part, count, side, difficulty, seed
        read_source(SOURCES[part][0])

    def __len__(self) -> int:
        return self._count

    def stem(self, number: int) -> str:
        return f"synthetic_{number:05d}"

    def pair(self, number: int) -> tuple[Tensor, Tensor]:
        sources = SOURCES[self._part]
        source = read_source(sources[number % len(sources)])
        step = list(SOURCES).index(self._part)
        drawn = counter_uniform(torch.tensor([number]), seed=self._seed, step=step, count=_NUMBERS, bits=_BITS)
        return blend(source, iter(drawn[0].tolist()), side=self._side, difficulty=self._difficulty)

    def fingerprint(self) -> str:
        values = (self._part, self._count, self._side, self._difficulty, self._seed, SOURCES[self._part])
        digest = hashlib.sha256(repr(values).encode())
        for number in range(min(self._count, len(SOURCES[self._part]))):
            for pixels in self.pair(number):
                digest.update(pixels.numpy().tobytes())
        return digest.hexdigest()


def blend(source: Tensor, uniform: Iterator[float], *, side: int, difficulty: float) -> tuple[Tensor, Tensor]:
    """Make an image, uint8 (3, side, side), and its mask, uint8 (side, side), 0 or 255, out of a picture.

    Args:
        source: The picture, float, shape (3, H, W), 0 to 1.
        uniform: Yields numbers in [0, 1), at least 24 and two for each wave of the outline.
        side: Height and width of the result.
        difficulty: From 0 to 1.
    """
    difference = 1.0 - difficulty
    zoom = _between(uniform, 0.8, 1.4)
    background = _cut(source, uniform, side=side, zoom=zoom)
    rescaled = zoom * math.exp(difference * _signed(uniform, 0.2, 0.6))
    copy = _cut(source, uniform, side=side, zoom=rescaled)
    copy = _recoloured(copy, like=background)
    mean = background.mean(dim=(1, 2), keepdim=True)
    contrast = math.exp(difference * _signed(uniform, 0.15, 0.5))
    brightness = difference * _signed(uniform, 0.08, 0.25)
    if not _ROOM <= float(mean.mean()) + brightness <= 1 - _ROOM:
        brightness = -brightness  # black cannot get darker, nor white lighter
    tint = difference * 0.08 * torch.tensor([2 * next(uniform) - 1 for _ in range(3)])
    copy = (mean + contrast * (copy - mean) + brightness + tint[:, None, None]).clamp(0, 1)
    inside = _depth(uniform, side=side)
    alpha = torch.sigmoid(inside / (0.4 + 1.2 * difficulty))
    image = (alpha * copy + (1 - alpha) * background).clamp(0, 1)
    return (255 * image).round().to(torch.uint8), (255 * (inside > 0)).to(torch.uint8)


def _cut(source: Tensor, uniform: Iterator[float], *, side: int, zoom: float) -> Tensor:
    """Cut a square of ``zoom * side`` pixels, turned by any angle, out of a picture, and resize it to ``side``."""
    height, width = source.shape[-2:]
    reach = min(0.5 * zoom * side, (min(height, width) - 2) / (2 * math.sqrt(2)))
    margin = math.sqrt(2) * reach + 0.5
    left, top = _between(uniform, margin, width - margin), _between(uniform, margin, height - margin)
    angle = _between(uniform, 0.0, 2 * math.pi)
    cos, sin = reach * math.cos(angle), reach * math.sin(angle)
    rows = [[2 * cos / width, -2 * sin / width, 2 * left / width - 1]]
    rows += [[2 * sin / height, 2 * cos / height, 2 * top / height - 1]]
    # What follows is in float64 too, for the same reason as in read_source.
    grid = F.affine_grid(torch.tensor([rows], dtype=torch.float64), [1, 3, side, side], align_corners=False).float()
    found = F.grid_sample(source[None], grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found[0].double()


def _recoloured(copy: Tensor, *, like: Tensor) -> Tensor:
    """Give each channel the mean of another cut, and its spread as far as a factor between 1/2 and 2 does."""
    (spread, mean), (own_spread, own_mean) = (torch.std_mean(cut, dim=(1, 2), keepdim=True) for cut in (like, copy))
    return mean + (spread / own_spread.clamp_min(1e-3)).clamp(0.5, 2.0) * (copy - own_mean)


def _depth(uniform: Iterator[float], *, side: int) -> Tensor:
    """Return r(angle) - distance from the centre in pixels, shape (side, side): positive within the outline r."""
    column, row = side * _between(uniform, 0.3, 0.7), side * _between(uniform, 0.3, 0.7)
    radius = side * _between(uniform, 0.14, 0.28)
    place = torch.arange(side, dtype=torch.float64) + 0.5
    down, right = torch.meshgrid(place - row, place - column, indexing="ij")
    angle, outline = torch.atan2(down, right), torch.ones_like(down)
    for waves in _HARMONICS:
        size, phase = _between(uniform, 0.0, 0.5 / waves), _between(uniform, 0.0, 2 * math.pi)
        outline = outline + size * torch.cos(waves * angle + phase)
    return radius * outline - torch.hypot(down, right)


@cache
def read_source(file: str) -> Tensor:
    """Read a shipped picture as float with shape (3, H, W), 0 to 1, its short side at least 512."""
    pixels = read_shipped(
        file,
        data="synthetic",
        library="scikit-learn" if file in _OF_SCIKIT_LEARN else "scikit-image",
        remedy="install the version of constraints.txt, or use --data DIR",
    )
    pixels = pixels.float() / 255
    short = min(pixels.shape[-2:])
    if short >= 512:
        return pixels
    sides = [round(length * 512 / short) for length in pixels.shape[-2:]]
    # In float64: in float32 the last digit depends on the number of threads, and with it some of the 8 bits of a pixel.
    return F.interpolate(pixels[None].double(), size=sides, mode="bilinear", align_corners=False)[0].float()


def _between(uniform: Iterator[float], low: float, high: float) -> float:
    return low + (high - low) * next(uniform)


def _signed(uniform: Iterator[float], low: float, high: float) -> float:
    """Draw a number of either sign whose size lies between low and high."""
    size = _between(uniform, low, high)
    return size if next(uniform) < 0.5 else -size
