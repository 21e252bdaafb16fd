"""8-bit images as the network sees them."""

from __future__ import annotations

from torch import Tensor

from invattn.data import dequantise


class DequantisedImages:
    """Draws the dequantisation noise of any subset of images, in any order, the same each time.

    Args:
        images: uint8, with shape (n, 3, H, W).
        seed: Decides the noise.
    """

    def __init__(self, images: Tensor, *, seed: int) -> None:
        self._images = images
        self._seed = seed

    def __len__(self) -> int:
        return self._images.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self._images.shape[-2], self._images.shape[-1]

    def pixels(self, index: Tensor) -> Tensor:
        """Return the 8-bit images of an index, with shape (B, 3, H, W)."""
        return self._images[index]

    def __call__(self, index: Tensor, epoch: int = 0) -> Tensor:
        """Return the images of an index in [-0.5, 0.5), with shape (B, 3, H, W), with the noise of an epoch."""
        return dequantise(self._images[index], seed=self._seed, step=epoch, index=index)
