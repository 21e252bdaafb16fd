"""Use a bijection of tokens on images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from invattn.bijections.base import Bijection, LogDetReport
from invattn.branches import Branch
from invattn.lipschitz import BiLipschitz, LipschitzBound
from invattn.solvers import Solution


class ImageLayout(Bijection):
    """Apply a bijection of tokens (B, H W, C) to images (B, C, H, W), pixels in row-major order.

    Args:
        tokens: The bijection of tokens.
    """

    def __init__(self, tokens: Bijection) -> None:
        super().__init__()
        self.tokens = tokens

    @property
    def branch(self) -> Branch:
        return self.tokens.branch

    def to_branch(self, x: Tensor) -> Tensor:
        return to_tokens(x)

    def from_branch(self, value: Tensor, like: Tensor) -> Tensor:
        return from_tokens(value, like)

    @property
    def certified(self) -> bool:
        return self.tokens.certified

    @property
    def norm(self) -> str | None:
        return self.tokens.norm

    def bi_lipschitz(self, shape: Sequence[int], *, norm: str | None = None) -> BiLipschitz:
        channels, height, width = shape
        return self.tokens.bi_lipschitz((height * width, channels), norm=norm)

    def lipschitz_bound(self) -> LipschitzBound:
        return self.tokens.lipschitz_bound()

    def forward(self, x: Tensor) -> Tensor:
        return from_tokens(self.tokens(to_tokens(x)), x)

    def solve(self, z: Tensor, *, start: Tensor | None = None) -> Solution:
        """Invert and report for each sample.

        Args:
            z: What to invert.
            start: Where to start, shape of z: the inverse of a target close by; None leaves it to the map inside.
        """
        tokens = to_tokens(z)
        solution = self.tokens.solve(tokens) if start is None else self.tokens.solve_from(tokens, to_tokens(start))
        return solution.with_value(from_tokens(solution.value, z))

    def solve_from(self, z: Tensor, start: Tensor) -> Solution:
        return self.solve(z, start=start)

    def inverse(self, z: Tensor) -> Tensor:
        return from_tokens(self.tokens.inverse(to_tokens(z)), z)

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = self.tokens.forward_and_log_det(to_tokens(x))
        return from_tokens(z, x), log_det

    def forward_and_log_det_report(self, x: Tensor) -> tuple[Tensor, LogDetReport]:
        z, report = self.tokens.forward_and_log_det_report(to_tokens(x))
        return from_tokens(z, x), report

    def inverse_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = self.tokens.inverse_and_log_det(to_tokens(z))
        return from_tokens(x, z), log_det


def to_tokens(image: Tensor) -> Tensor:
    """Turn (B, C, H, W) into (B, H W, C).

    Raises:
        ValueError: If the tensor has another rank.
    """
    if image.dim() != 4:
        raise ValueError(
            f"images must have shape (B, C, H, W); got {tuple(image.shape)}. For tokens (B, N, C) use layout='tokens'."
        )
    return image.flatten(2).transpose(1, 2)


def from_tokens(tokens: Tensor, like: Tensor) -> Tensor:
    """Turn (B, H W, C) into the shape of an image (B, C, H, W)."""
    return tokens.transpose(1, 2).reshape(like.shape)
