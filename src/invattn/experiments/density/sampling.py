"""Draw samples of a flow, say of each whether its inverse converged, and compare samples with real images."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from invattn._errors import DataError
from invattn.flows import Flow

_INVERTED, _COMPARED, _SHOWN = 100, 2000, 50
"""Samples that are inverted together, images that are compared together, and images that a network sees together."""


@dataclass(frozen=True)
class Samples:
    """Samples and how their inverses ended.

    Attributes:
        values: Samples with shape (n, *event).
        converged: Whether the inverse of each reached its tolerance, shape (n,), bool.
        failures: The inverses that did not, by status, in words; empty where all did.
    """

    values: Tensor
    converged: Tensor
    failures: str

    @property
    def finite(self) -> Tensor:
        """Whether every entry of a sample is finite, shape (n,), bool."""
        return self.values.isfinite().flatten(1).all(dim=1)


def sample_sets(flow: Flow, count: int, *, seed: int, temperature: float = 1.0) -> Tensor:
    """Return samples with shape (count, *event), drawn from a seed as by :func:`draw_samples`, all at once.

    Raises:
        ConvergenceError: If an inverse did not converge.
    """
    with torch.no_grad():
        return flow.bijection.inverse(_base_draws(flow, count, seed=seed, temperature=temperature))


def draw_samples(
    flow: Flow,
    count: int,
    *,
    seed: int,
    temperature: float = 1.0,
    on_batch: Callable[[int], None] | None = None,
) -> Samples:
    """Invert a flow at draws of its standard normal base; nothing is raised where an inverse fails.

    Base draws come from one generator on the CPU, so that the same seed gives the same draws on any device, and the
    first samples do not depend on how many follow.

    The samples are on the device of the flow. ``temperature``, above 0, is a factor of the base's standard deviation;
    ``on_batch`` is called with the number of samples done, after each batch.
    """
    return invert(flow, _base_draws(flow, count, seed=seed, temperature=temperature), on_batch=on_batch)


def _base_draws(flow: Flow, count: int, *, seed: int, temperature: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    like = next(flow.bijection.parameters())
    z = temperature * torch.randn((count, *flow.base.event_shape), generator=generator, dtype=like.dtype)
    return z.to(like.device)


@torch.no_grad()
def invert(flow: Flow, z: Tensor, *, on_batch: Callable[[int], None] | None = None) -> Samples:
    """Invert a flow at given points of its base, shape (n, *base event), in batches, and report for each."""
    values, converged, statuses = [], [], []
    for part in torch.split(z, _INVERTED):
        solution = flow.bijection.solve(part)
        values.append(solution.value)
        converged.append(solution.converged)
        statuses.append(solution.failures())
        if on_batch is not None:
            on_batch(len(part))
    return Samples(torch.cat(values), torch.cat(converged), ", ".join(filter(None, statuses)))


@torch.no_grad()
def interpolate(flow: Flow, first: Tensor, second: Tensor, *, steps: int) -> Samples:
    """Invert the flow along great circles between the points of the base that belong to pairs of images.

    A great circle keeps the distance from the origin that normal points have; a straight line leaves it.

    Walks begin and end at images with shape (n, ...) and have at least 2 ``steps``, both ends counted.

    Returns:
        n times ``steps`` samples, walk by walk; ends are the images as the inverse gives them back.
    """
    shares = torch.linspace(0.0, 1.0, steps, dtype=first.dtype, device=first.device)
    walks = great_circles(flow.bijection(first), flow.bijection(second), shares)
    return invert(flow, walks.flatten(0, 1))


def great_circles(first: Tensor, second: Tensor, shares: Tensor) -> Tensor:
    """Return sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b, w the angle between a and b.

    a and b have shape (n, ...); the shares t, from 0 to 1, have shape (steps,).

    Returns:
        Shape (n, steps, ...); a straight line where a and b are nearly parallel.
    """
    a, b = first.flatten(1), second.flatten(1)
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=1).clamp(-1.0, 1.0)
    angle = cosine.acos()[:, None]
    t = shares[None]
    sine = angle.sin()
    straight = sine < 1e-3
    divisor = torch.where(straight, torch.ones_like(sine), sine)
    weight_a = torch.where(straight, 1 - t, ((1 - t) * angle).sin() / divisor)
    weight_b = torch.where(straight, t, (t * angle).sin() / divisor)
    walks = weight_a[..., None] * a[:, None] + weight_b[..., None] * b[:, None]
    return walks.view(len(first), len(shares), *first.shape[1:])


@dataclass(frozen=True)
class Neighbours:
    """The nearest images of each sample, nearest first.

    Attributes:
        index: Numbers of the images, shape (n, k), int64.
        distance: Root mean squared difference of their entries, shape (n, k), in the units of the entries.
    """

    index: Tensor
    distance: Tensor


@torch.no_grad()
def nearest_images(samples: Tensor, images: Tensor, *, count: int = 1) -> Neighbours:
    """Find the images with the smallest Euclidean distance to each sample, pixel by pixel.

    Samples have shape (n, ...), images (m, ...); of each sample there are ``count``, or all images if they are fewer.
    """
    flat = samples.flatten(1).double()
    # The exact differences: the expansion |a|^2 - 2ab + |b|^2 loses the distance of a copy to rounding.
    exactly = partial(torch.cdist, flat, compute_mode="donot_use_mm_for_euclid_dist")
    distances = [exactly(part.flatten(1).to(flat)) for part in torch.split(images, _COMPARED)]
    found = torch.cat(distances, dim=1).topk(min(count, images.shape[0]), dim=1, largest=False)
    return Neighbours(index=found.indices, distance=found.values / flat.shape[1] ** 0.5)


_REMEDY = (
    "Give a TorchScript file of a module that maps uint8 images (B, 3, H, W) to features (B, F), as torch.jit.save "
    "writes it."
)


def load_features(path: Path) -> nn.Module:
    """Load a feature extractor that was stored as TorchScript, on the CPU and in eval mode.

    A TorchScript file holds code of its own, which runs: load only files whose source you trust.

    Raises:
        DataError: If the file is missing or is no such module.
    """
    if not path.is_file():
        raise DataError(f"the features file {path} does not exist. {_REMEDY}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            module: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError):
        raise DataError(f"the features file {path} is damaged or no TorchScript module. {_REMEDY}") from None
    return module.eval()


@torch.no_grad()
def frechet_distance(real: Tensor, generated: Tensor, features: nn.Module) -> float:
    """Return |m_1 - m_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^{1/2}) of the features of two sets of images.

    With the features of the usual Inception network this is the FID. It is biased upwards where images are few: compare
    only values from the same numbers of images.

    Args:
        real: uint8, shape (n, C, H, W), C = 1 or 3; a single channel is shown to the network three times.
        generated: uint8, shape (m, C, H, W).
        features: Maps uint8 images (B, 3, H, W) to features (B, F).

    Raises:
        DataError: If the network does not take the images or returns something else, or there are too few images.

    References:
        Heusel et al. 2017, "GANs trained by a two time-scale update rule converge to a local Nash equilibrium".
    """
    if min(len(real), len(generated)) < 2:
        raise DataError(
            f"a Frechet distance needs at least two images on each side; got {len(real)} and {len(generated)}."
        )
    metric = FrechetInceptionDistance(feature=_Checked(features, _colour(real[:1])))
    for images, is_real in ((real, True), (generated, False)):
        for part in torch.split(images, _SHOWN):
            metric.update(_colour(part), real=is_real)
    return float(metric.compute())


class _Checked(nn.Module):
    """A feature extractor that says in one line what is wrong with it."""

    def __init__(self, features: nn.Module, example: Tensor) -> None:
        super().__init__()
        self.features = features
        self.num_features = self(example).shape[1]

    def forward(self, images: Tensor) -> Tensor:
        try:
            found = self.features(images)
        except RuntimeError as error:
            lines = str(error).strip().splitlines()
            reason = lines[-1] if lines else type(error).__name__
            raise DataError(
                f"the features file does not take images with shape {tuple(images.shape)} ({reason}). {_REMEDY}"
            ) from None
        if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != len(images):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise DataError(f"the features file returned {shape} for {len(images)} images. {_REMEDY}")
        if not bool(found.isfinite().all()):
            raise DataError(f"the features file returned values that are not finite. {_REMEDY}")
        return found.double()


def _colour(images: Tensor) -> Tensor:
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
