"""Use a bijection of tokens on images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from invattn.bijections.base import Bijection, Block, LogDetReport, as_block
from invattn.branches import Branch
from invattn.lipschitz import BiLipschitz
from invattn.solvers import Solution


class ImageLayout(Block):
    """Apply a bijection of tokens (B, H W, C) to images (B, C, H, W), pixels in row-major order.

    Args:
        tokens: The bijection of tokens.
    """

    def __init__(self, tokens: Bijection) -> None:
        super().__init__()
        self.tokens = tokens

    @property
    def branch(self) -> Branch:
        return as_block(self.tokens).branch

    def to_branch(self, x: Tensor) -> Tensor:
        return _to_tokens(x)

    def from_branch(self, value: Tensor, like: Tensor) -> Tensor:
        return _from_tokens(value, like)

    @property
    def certified(self) -> bool:
        return self.tokens.certified

    @property
    def norm(self) -> str | None:
        return self.tokens.norm

    def bi_lipschitz(self, shape: Sequence[int], *, norm: str | None = None) -> BiLipschitz:
        channels, height, width = shape
        return self.tokens.bi_lipschitz((height * width, channels), norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        return _from_tokens(self.tokens(_to_tokens(x)), x)

    def solve(self, z: Tensor, *, start: Tensor | None = None) -> Solution:
        guess = None if start is None else _to_tokens(start)
        solution = self.tokens.solve(_to_tokens(z), start=guess)
        return solution.with_value(_from_tokens(solution.value, z))

    def inverse(self, z: Tensor) -> Tensor:
        return _from_tokens(self.tokens.inverse(_to_tokens(z)), z)

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = self.tokens.forward_and_log_det(_to_tokens(x))
        return _from_tokens(z, x), log_det

    def forward_and_log_det_report(self, x: Tensor) -> tuple[Tensor, LogDetReport]:
        z, report = self.tokens.forward_and_log_det_report(_to_tokens(x))
        return _from_tokens(z, x), report

    def inverse_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = self.tokens.inverse_and_log_det(_to_tokens(z))
        return _from_tokens(x, z), log_det


def _to_tokens(image: Tensor) -> Tensor:
    """Turn (B, C, H, W) into (B, H W, C).

    Raises:
        ValueError: If the tensor has another rank.
    """
    if image.dim() != 4:
        raise ValueError(
            f"images must have shape (B, C, H, W); got {tuple(image.shape)}. For tokens (B, N, C) use layout='tokens'."
        )
    return image.flatten(2).transpose(1, 2)


def _from_tokens(tokens: Tensor, like: Tensor) -> Tensor:
    """Turn (B, H W, C) into the shape of an image (B, C, H, W)."""
    return tokens.transpose(1, 2).reshape(like.shape)
