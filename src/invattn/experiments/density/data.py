"""What a density experiment learns from: generated points and sets, and images with whole grey levels."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from invattn.experiments.density.images import flip_half, grey_levels, load_density_images
from invattn.experiments.density.points import GENERATED
from invattn.experiments.density.references import image_references
from invattn.experiments.kit.data.dequantise import dequantise
from invattn.experiments.kit.data.reading import ImageRequest
from invattn.experiments.kit.data.sets import ImageData
from invattn.experiments.kit.training.loader import derive_seed

Sampler = Callable[[Tensor, int], Tensor]
"""Returns the samples, shape (B, *event), of an index with shape (B,) in an epoch, and depends on nothing else."""

FITTED = 256
"""Samples that layers which start from data start from."""

FITTED_IMAGES = 10_000
"""Images, and as many mirrored ones, that layers before the first residual block, such as whitening, are fitted to."""


@dataclass(frozen=True)
class Unit:
    """scale * l + offset, where l is -log p(x) / d in nats per dimension.

    Attributes:
        name: As it is shown, such as ``bits/dim``.
        scale: How many of the unit a nat is.
        offset: What it adds, in the unit, where the data were scaled before.
    """

    name: str
    scale: float = 1.0
    offset: float = 0.0

    def of(self, nats: float) -> float:
        """Return a value in nats per dimension in this unit."""
        return self.scale * nats + self.offset


NATS = Unit("nats/dim")


def bits(*, levels: int = 1) -> Unit:
    """Return bits per dimension of data with whole values, which the flow sees divided by ``levels``.

    p(x) = p(x / levels) / levels^d, so that every dimension costs log2(levels) more bits.

    Args:
        levels: Number of grey levels, such as 256; 1 where data were not scaled.
    """
    return Unit("bits/dim", scale=1 / math.log(2), offset=math.log2(levels))


class DensityData(ABC):
    """A data set of the density experiment.

    Attributes:
        name: As the user gives it.
        event_shape: Of one sample.
        unit: In which -log p / d is reported.
        test_size: Number of test samples.
        seed: Decides the test samples, or their dequantisation noise.
        learned: Whether whole values are spread by noise that is learned with the flow.
    """

    name: str
    event_shape: tuple[int, ...]
    unit: Unit
    test_size: int
    seed: int
    learned: bool = False

    @abstractmethod
    def training(self, *, seed: int) -> Sampler:
        """Return the training samples of a seed."""

    @abstractmethod
    def train_size(self, *, steps: int, batch_size: int) -> int:
        """Return how many training samples there are for so many steps."""

    @abstractmethod
    def first(self, *, seed: int, used: int) -> Tensor:
        """Return samples that layers start from, at least ``FITTED``; a training of the seed uses so many others."""

    @abstractmethod
    def test(self) -> Tensor:
        """Return the test samples, the same for every variant and repeat, shape (n, *event)."""

    @abstractmethod
    def references(self) -> dict[str, float]:
        """Return what other models, and codes, need for the test samples, in the unit."""

    @abstractmethod
    def notes(self) -> list[str]:
        """Say where the samples come from and what was done to them, one sentence each."""

    @property
    def key(self) -> Mapping[str, Any]:
        """What of the data, besides the options of a run, its numbers depend on."""
        return {}

    @property
    def dimensions(self) -> int:
        """Numbers of one sample."""
        return math.prod(self.event_shape)

    def describe(self) -> dict[str, Any]:
        """Return what a stored model must know to be evaluated and sampled on the same data."""
        shape = list(self.event_shape)
        return {"name": self.name, "event_shape": shape, "test_size": self.test_size, "seed": self.seed}

    def record(self, *, steps: int, batch_size: int) -> dict[str, Any]:
        """Return the ``data`` of a record."""
        return {
            "name": self.name,
            "train": self.train_size(steps=steps, batch_size=batch_size),
            "test": self.test_size,
            "dimensions": self.dimensions,
            "event_shape": list(self.event_shape),
            **self.key,
            "references": self.references(),
            "notes": self.notes(),
        }


@dataclass(frozen=True)
class GeneratedData(DensityData):
    """Samples that are new at every step.

    Attributes:
        name: Of :data:`invattn.experiments.density.points.GENERATED`.
        test_size: Number of test samples.
        seed: Decides them.
    """

    name: str
    test_size: int
    seed: int

    unit = NATS

    @property
    def event_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return GENERATED[self.name].event_shape

    def training(self, *, seed: int) -> Sampler:
        return GENERATED[self.name](seed=derive_seed(seed, "training sets"))

    def train_size(self, *, steps: int, batch_size: int) -> int:
        return steps * batch_size

    def first(self, *, seed: int, used: int) -> Tensor:
        return self.training(seed=seed)(torch.arange(used, used + FITTED), 0)

    def test(self) -> Tensor:
        return GENERATED[self.name](seed=derive_seed(self.seed, "test sets"))(torch.arange(self.test_size), 0)

    def references(self) -> dict[str, float]:
        return GENERATED[self.name].references(self.test())

    def notes(self) -> list[str]:
        return [f"{GENERATED[self.name].origin}; every training sample is used once"]


@dataclass(frozen=True)
class DequantisedData(DensityData):
    """Images whose grey levels v are spread uniformly: the flow sees x = (v + u) / levels - 1/2.

    In bits per dimension -log p is that of v + u, (-log p(x) / d + log levels) / log 2: no less on average than that
    of the grey levels themselves. Where the noise is learned, training samples are the grey levels v, and what is
    reported is the evidence lower bound as bits, (-log p(v + u) + log q(u | v)) / (d log 2).

    Attributes:
        images: Training and test images.
        levels: Number of grey levels.
        flips: Whether training images are mirrored at random.
        seed: Decides the noise of the test images.
        learned: Whether the noise is learned with the flow.

    References:
        Theis, van den Oord, Bethge 2016, "A note on the evaluation of generative models", Sec. 3.1.
    """

    images: ImageData
    levels: int
    flips: bool
    seed: int
    learned: bool = False

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.images.name

    @property
    def event_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(self.images.train.shape[1:])

    @property
    def test_size(self) -> int:  # type: ignore[override]
        return len(self.images.test)

    @property
    def unit(self) -> Unit:  # type: ignore[override]
        return bits() if self.learned else bits(levels=self.levels)

    def training(self, *, seed: int) -> Sampler:
        return partial(self._drawn, derive_seed(seed, "training noise"), derive_seed(seed, "flips"))

    def _drawn(self, noise_seed: int, flip_seed: int, index: Tensor, epoch: int) -> Tensor:
        """Return training images with the mirror, and the noise if it is not learned, of an epoch."""
        images = self.images.train[index]
        if self.flips:
            images = flip_half(images, seed=flip_seed, step=epoch, index=index)
        if self.learned:
            return images.float()
        return dequantise(images, seed=noise_seed, step=epoch, index=index, levels=self.levels)

    def train_size(self, *, steps: int, batch_size: int) -> int:
        return len(self.images.train)

    def first(self, *, seed: int, used: int) -> Tensor:
        noise, index = derive_seed(seed, "first samples"), torch.arange(min(FITTED_IMAGES, len(self.images.train)))
        images = self.images.train[: len(index)]
        seen = [images, images.flip(-1)] if self.flips else [images]
        return torch.cat(
            [dequantise(part, seed=noise, step=step, index=index, levels=self.levels) for step, part in enumerate(seen)]
        )

    def test(self) -> Tensor:
        index = torch.arange(self.test_size)
        return dequantise(
            self.images.test, seed=derive_seed(self.seed, "test noise"), step=0, index=index, levels=self.levels
        )

    def references(self) -> dict[str, float]:
        return image_references(
            self.images, levels=self.levels, flips=self.flips, test=self.levels * (self.test().double() + 0.5)
        )

    def notes(self) -> list[str]:
        mirrored = "; training images are mirrored with probability 1/2" if self.flips else ""
        spread = f"v is one of {self.levels} grey levels"
        if self.learned:
            kind = (
                f"bits per dimension are the evidence lower bound, -log2 p(v + u) + log2 q(u | v), where {spread} and "
                "u one draw of learned noise for each image: on average no less than -log2 P(v); the references have "
                "uniform noise"
            )
        else:
            kind = f"bits per dimension of v + u, where {spread} and u uniform on [0, 1)"
        return [*self.images.notes, f"{kind}{mirrored}"]

    @property
    def key(self) -> Mapping[str, Any]:
        return {"fingerprint": self.images.fingerprint, "levels": self.levels}

    def describe(self) -> dict[str, Any]:
        own = {"image_size": self.event_shape[-1], "train_size": len(self.images.train), "flips": self.flips}
        return super().describe() | own | dict(self.key)


def open_images(request: ImageRequest, *, flips: bool, learned: bool = False) -> DequantisedData:
    """Read an image data set; see :func:`invattn.experiments.density.images.load_density_images`."""
    images = load_density_images(request)
    return DequantisedData(images, grey_levels(request.name), flips, request.seed, learned)
