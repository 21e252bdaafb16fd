"""MSE, SSIM and V-score of reconstructed images, per image and in float64."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

V_SCORE_THRESHOLD = 10.0
"""An image counts as inverted when its mean squared error on the 0-255 scale is below this."""

SSIM_SIGMA = 1.5
"""Standard deviation, in pixels, of the Gaussian window of SSIM."""

SSIM_WINDOW = 11
"""Width in pixels of that window; SSIM is not defined for images that are narrower."""

PIXEL_RANGE = 255.0


def _check_pair(reconstruction: Tensor, original: Tensor) -> None:
    if reconstruction.dim() != 4 or reconstruction.shape != original.shape:
        raise ValueError(
            f"both images must have the same shape (B, C, H, W); got {tuple(reconstruction.shape)} and "
            f"{tuple(original.shape)}."
        )


def mse_per_image(reconstruction: Tensor, original: Tensor) -> Tensor:
    """Mean squared error of each image, ``mean_p (a_p - b_p)^2`` over all pixels and channels.

    Args:
        reconstruction: Pixels on the 0-255 scale, with shape (B, C, H, W).
        original: Pixels on the 0-255 scale, with shape (B, C, H, W).

    Returns:
        Squared pixel values, with shape (B,), float64.

    Raises:
        ValueError: If the shapes differ.
    """
    _check_pair(reconstruction, original)
    difference = reconstruction.double() - original.double()
    return difference.square().flatten(1).mean(dim=1)


def ssim_per_image(reconstruction: Tensor, original: Tensor) -> Tensor:
    """Structural similarity of each image: Gaussian window with sigma 1.5, data range 255.

    Args:
        reconstruction: Pixels on the 0-255 scale, with shape (B, C, H, W).
        original: Pixels on the 0-255 scale, with shape (B, C, H, W).

    Returns:
        Similarity, at most 1, with shape (B,), float64; NaN for images with a side below 11 pixels, where the window
        does not fit.

    Raises:
        ValueError: If the shapes differ.

    References:
        Wang, Bovik, Sheikh, Simoncelli: Image quality assessment: from error visibility to structural similarity, 2004.
    """
    _check_pair(reconstruction, original)
    if min(original.shape[-2:]) < SSIM_WINDOW:
        return torch.full((original.shape[0],), torch.nan, dtype=torch.float64, device=original.device)
    similarity = structural_similarity_index_measure(
        reconstruction.double(),
        original.double(),
        gaussian_kernel=True,
        sigma=SSIM_SIGMA,
        data_range=PIXEL_RANGE,
        reduction="none",
    )
    assert isinstance(similarity, Tensor)
    return similarity.reshape(original.shape[0])


def v_score(mse: Tensor, *, threshold: float = V_SCORE_THRESHOLD) -> float:
    """Share of images whose mean squared error is below ``threshold``; an error that is NaN counts as a failure.

    Args:
        mse: Mean squared error of each image on the 0-255 scale, with shape (B,), B >= 1.
        threshold: Squared pixel value; 10 in the paper.

    Returns:
        A share between 0 and 1.

    Raises:
        ValueError: If there is no image.

    References:
        Invertible Attention (arXiv 2106.09003), Section 4.1.
    """
    if mse.numel() == 0:
        raise ValueError("the V-score of no images is not defined; give at least one image.")
    return float((mse < threshold).double().mean())
