"""The Frechet distance between generated and real images, by a feature extractor from a local file."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from invattn._errors import DataError

_BATCH = 50

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
        for part in torch.split(images, _BATCH):
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
