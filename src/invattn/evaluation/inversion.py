"""Send images through a model and back, and measure what returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invattn.bijections import Bijection
from invattn.data import to_pixels
from invattn.metrics import clean_pixels, mse_per_image, ssim_per_image


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
    on_batch: Callable[[int], None] | None = None,
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
        on_batch: Called with the number of images done, after each batch.

    Returns:
        The measurements of every image, in order, on the CPU.
    """
    model.eval()
    reports = []
    for start in range(0, count, batch_size):
        index = torch.arange(start, min(start + batch_size, count))
        local = [number - start for number in keep if start <= number < start + len(index)]
        reports.append(_invert_batch(model, sample(index), clip=clip, keep=local))
        if on_batch is not None:
            on_batch(len(index))
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
