"""Send images through a model and back, and measure what returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from invattn.bijections import Bijection
from invattn.experiments.kit.data.dequantise import to_pixels
from invattn.experiments.kit.progress import Progress, SilentProgress


class CleanPixels(NamedTuple):
    """Cleaned pixels, and how many of each image were not numbers.

    Attributes:
        values: Pixels on the 0-255 scale, with shape (B, C, H, W).
        non_finite: Count of NaN or infinite values of each image before cleaning, with shape (B,), int64.
    """

    values: Tensor
    non_finite: Tensor


def clean_pixels(pixels: Tensor, *, clip: bool) -> CleanPixels:
    """Count non-finite pixels and, for uncertified models, set them to 0 and clip the rest to [0, 255].

    A model without a certificate may return values far outside of every image, or none at all. Clipping is lenient to
    such a model: it bounds the error of a pixel by 255. A certified model is compared as it is (``clip=False``), so
    that a failure cannot hide.

    Args:
        pixels: Values on the 0-255 scale, with shape (B, C, H, W).
        clip: Whether to replace and clip; the count is the same either way.

    Returns:
        The pixels and the count of non-finite values per image.
    """
    finite = torch.isfinite(pixels)
    non_finite = (~finite).flatten(1).sum(dim=1)
    if not clip:
        return CleanPixels(pixels, non_finite)
    return CleanPixels(torch.where(finite, pixels, pixels.new_zeros(())).clamp(0.0, 255.0), non_finite)


def visible_pixels(pixels: Tensor) -> NDArray[np.uint8]:
    """Return images with shape (B, C, H, W) on the 0-255 scale as pictures with shape (B, H, W, C), cleaned."""
    levels = clean_pixels(pixels.double(), clip=True).values.floor().to(torch.uint8)
    pictures: NDArray[np.uint8] = levels.permute(0, 2, 3, 1).numpy()
    return pictures


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


@dataclass(frozen=True)
class InversionReport:
    """What was measured of each image; every tensor but ``kept`` has shape (n,).

    Attributes:
        mse: Mean squared error on the 0-255 scale, float64.
        ssim: Structural similarity, float64; NaN for images that are too small for it.
        converged: Whether the solver reached its tolerance, bool.
        evaluations: Evaluations of the residual branch, int64.
        non_finite: Number of pixel values that were not finite, int64.
        kept: Returned pixels of the images that were asked for, on the 0-255 scale, with shape (k, 3, H, W), float64.
    """

    mse: Tensor
    ssim: Tensor
    converged: Tensor
    evaluations: Tensor
    non_finite: Tensor
    kept: Tensor


@torch.no_grad()
def invert_images(
    model: Bijection,
    sample: Callable[[Tensor], Tensor],
    *,
    count: int,
    batch_size: int,
    clip: bool,
    keep: Sequence[int] = (),
    progress: Progress | None = None,
    task: str = "invert",
) -> InversionReport:
    """Compute ``z = f(x)``, solve ``f(y) = z`` for y, and compare y with x on the 0-255 scale, without rounding.

    With ``clip`` both images are clipped to [0, 255] first, so that an exact inverse has no error, and pixels of y that
    are not finite become 0.

    Args:
        model: f; it is put in eval mode.
        sample: Returns the images x in [-0.5, 0.5), with shape (B, 3, H, W), of an index with shape (B,).
        count: Number of images n, at least 1.
        batch_size: Images that go through the model together.
        clip: Whether the returned images are cleaned; for models without a certificate.
        keep: Numbers of the images whose returned pixels are wanted.
        progress: Is told of every batch.
        task: Name of the task for ``progress``.

    Returns:
        The measurements of every image, in order, on the CPU.
    """
    model.eval()
    progress = SilentProgress() if progress is None else progress
    reports = []
    progress.begin(task, total=count)
    try:
        for start in range(0, count, batch_size):
            index = torch.arange(start, min(start + batch_size, count))
            local = [number - start for number in keep if start <= number < start + len(index)]
            reports.append(_invert_batch(model, sample(index), clip=clip, keep=local))
            progress.advance(len(index))
    finally:
        progress.end()
    merged = _concatenate(reports)
    # The batches kept their images in ascending order; return them in the order asked for.
    ascending = sorted(keep)
    order = [ascending.index(number) for number in keep]
    return InversionReport(**{**vars(merged), "kept": merged.kept[order]})


def _invert_batch(model: Bijection, batch: Tensor, *, clip: bool, keep: list[int]) -> InversionReport:
    solution = model.solve(model(batch))
    cleaned = clean_pixels(to_pixels(solution.value.double()), clip=clip)
    original = clean_pixels(to_pixels(batch.double()), clip=clip).values
    return InversionReport(
        mse=mse_per_image(cleaned.values, original),
        ssim=ssim_per_image(cleaned.values, original),
        converged=solution.converged,
        evaluations=solution.evaluations.long(),
        non_finite=cleaned.non_finite,
        kept=cleaned.values[sorted(keep)],
    )


def _concatenate(reports: list[InversionReport]) -> InversionReport:
    names = vars(reports[0])
    return InversionReport(**{name: torch.cat([getattr(report, name) for report in reports]).cpu() for name in names})
