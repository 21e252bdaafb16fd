"""The images of the density tables, dequantised uniformly as a function of seed, pass and index."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from invattn.data import dequantise
from invattn.data.cifar10 import open_cifar10
from invattn.training import derive_seed

DIGITS_TEST = 297
CELEBA_TEST = 500
CELEBA_SIDE, CELEBA_CROP = 16, 74


@dataclass(frozen=True)
class ImageSet:
    """Images of few or many grey levels, split once and for all.

    Attributes:
        train: uint8, shape (n, C, H, W).
        test: uint8, shape (m, C, H, W).
        levels: Grey levels, 0 ... levels - 1.
        flips: Whether images are mirrored at random in training.
    """

    train: Tensor
    test: Tensor
    levels: int
    flips: bool

    def sampler(self, count: int, *, seed: int) -> Callable[..., Tensor]:
        """Return the ``count`` training samples of a run, as a function of their numbers 0 ... count - 1.

        Number k shows image k modulo n in [-0.5, 0.5), each time with new noise, mirrored or not.
        """
        generator = torch.Generator().manual_seed(derive_seed(seed, "flips"))
        mirrored = torch.rand(count, generator=generator) < (0.5 if self.flips else 0.0)
        noise = derive_seed(seed, "noise")

        def sample(number: Tensor, epoch: int = 0) -> Tensor:
            images = self.train[number % len(self.train)]
            images = torch.where(mirrored[number][:, None, None, None], images.flip(3), images)
            return self._spread(images, seed=noise, step=epoch, index=number)

        return sample

    def fitting(self) -> Tensor:
        """Return what whitening and marginals are fitted to: every training image, and its mirror image."""
        index = torch.arange(len(self.train))
        plain = self._spread(self.train, seed=derive_seed(0, "fitting"), step=0, index=index)
        if not self.flips:
            more = [self._spread(self.train, seed=derive_seed(0, "fitting"), step=k, index=index) for k in range(1, 4)]
            return torch.cat([plain, *more])
        return torch.cat([plain, self._spread(self.train.flip(3), seed=derive_seed(0, "fitting"), step=1, index=index)])

    def held_out(self) -> Tensor:
        """Return the test images with one draw of the noise, the same for every row and seed."""
        return self._spread(self.test, seed=derive_seed(0, "test noise"), step=0, index=torch.arange(len(self.test)))

    def _spread(self, images: Tensor, *, seed: int, step: int, index: Tensor) -> Tensor:
        return (dequantise(images, seed=seed, step=step, index=index) + 0.5) * (256 / self.levels) - 0.5


def digits() -> ImageSet:
    """scikit-learn's 1,797 digits, 8 x 8, levels 0 to 16: 297 at random (seed 0) are the test."""
    from sklearn.datasets import load_digits

    images = torch.from_numpy(load_digits().images.astype(np.uint8))[:, None]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return ImageSet(images[order[DIGITS_TEST:]], images[order[:DIGITS_TEST]], levels=17, flips=False)


def celeba16(data_root: Path) -> ImageSet:
    """Centre squares of 74 pixels of the files, box-resized to 16 x 16, integers; the last 500 are the test."""
    folder = data_root / "celeba" / "img_align_celeba"
    paths = sorted(folder.glob("*.jpg"))
    if len(paths) <= CELEBA_TEST:
        raise SystemExit(f"{folder} holds {len(paths)} images; more than {CELEBA_TEST} are needed. Check --data-root.")
    images = torch.stack([_face(path) for path in paths])
    return ImageSet(images[:-CELEBA_TEST], images[-CELEBA_TEST:], levels=256, flips=True)


def cifar32(data_root: Path) -> ImageSet:
    """CIFAR-10: every training image that is there, and up to 500 of the test file."""
    pictures = open_cifar10(data_root, train_size=50_000, test_size=500)
    train, test = (torch.stack([picture.pixels for picture in part]) for part in (pictures.train, pictures.test))
    return ImageSet(train, test, levels=256, flips=True)


def _face(path: Path) -> Tensor:
    with Image.open(path) as file:
        image = file.convert("RGB")
    left, top = (image.width - CELEBA_CROP) // 2, (image.height - CELEBA_CROP) // 2
    box = (left, top, left + CELEBA_CROP, top + CELEBA_CROP)
    small = image.crop(box).resize((CELEBA_SIDE, CELEBA_SIDE), Image.Resampling.BOX)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).contiguous()
