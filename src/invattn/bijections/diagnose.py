"""Diagnose a block at given inputs, in the block's own layout."""

from __future__ import annotations

import torch
from torch import Tensor

from invattn.bijections.base import Bijection, as_block
from invattn.diagnosis import Checks, Diagnosis, diagnose_branch


def diagnose(
    block: Bijection, x: Tensor, *, checks: Checks | None = None, generator: torch.Generator | None = None
) -> Diagnosis:
    """Look at what a residual block x + g(x) does near given inputs, and whether its inverse can be trusted there.

    For each sample: spectral norm and radius of the Jacobian J_g, the sign of det(I + J_g), the largest local
    Lipschitz ratio found by gradient ascent, and a search for another input with the same image. A sample is flagged
    where the spectral radius at x is above 1 (``repelling``: the fixed-point inverse moves away from x), where it is so
    near 1 at x or on the way from f(x) that the steps do not suffice (``slow``), or where another input with the same
    image was found that the residual points to on a good part of the way (``competing``). No sample is inverted.
    A second preimage that does not compete is reported but not flagged: the inverse is expected to return x, though
    nothing in f(x) tells which of the two was meant.

    A certified block is never flagged: its spectral radius is below its bound and no two inputs share an image. Its
    Euclidean norm |J_g|_2 may still exceed 1, as the bound is stated in |.|_{inf,2}.

    Args:
        block: A block with one residual branch, such as :func:`invattn.invertible_attention` makes; in evaluation mode
            for the time of the call, and otherwise left as it is.
        x: Its inputs, (B, C, H, W) or (B, N, C), float64 for the sharpest results.
        checks: What to look at and how closely; None is the default of :class:`invattn.diagnosis.Checks`.
        generator: Where random first vectors come from; None is torch's default generator.

    Returns:
        Estimates, no bounds, one a sample, and the other inputs that were found, in the layout of x.

    Raises:
        ValueError: If the map is not a single residual block, or x has another shape.

    References:
        docs/failing-blocks.md, "What diagnose measures".

    Example:
        >>> import torch, invattn
        >>> block = invattn.invertible_attention(4, kind="gaussian", layout="tokens")
        >>> report = invattn.diagnose(block, torch.randn(2, 8, 4))
        >>> bool(report.flagged.any())
        False
    """
    own = as_block(block)
    report = diagnose_branch(own.branch, own.to_branch(x), checks=checks, generator=generator)
    return report.with_preimage(own.from_branch(report.preimage, x))
