"""Squeeze as a bijection."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from invattn.bijections.rearrangement import Rearrangement
from invattn.functional import squeeze, unsqueeze
from invattn.lipschitz import BiLipschitz


class Squeeze(Rearrangement):
    """Trade each factor x factor patch for channels: (B, C, H, W) to (B, factor^2 C, H / factor, W / factor).

    A permutation of the entries: its log-determinant is 0 and its inverse exact.

    Args:
        factor: The side of a patch in pixels, at least 1.

    References:
        Dinh et al. 2017; the channel order (row, column, channel) is the one of the authors' released code.
    """

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        if factor < 1:
            raise ValueError(f"the factor must be at least 1; got {factor}.")
        self.factor = factor

    def bi_lipschitz(self, shape: Sequence[int], *, norm: str | None = None) -> BiLipschitz:
        """Return 1 and 1 in |.|_2; 1 and factor in |.|_{inf,2}, where factor^2 pixels become one token."""
        name = "inf,2" if norm is None else norm
        upper = 1.0 if name == "2" else float(self.factor)
        return BiLipschitz(1.0, upper, name, name, (f"squeeze by {self.factor}: [1, {upper:g}]",))

    def output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        channels, height, width = shape
        return channels * self.factor**2, height // self.factor, width // self.factor

    def input_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        channels, height, width = shape
        return channels // self.factor**2, height * self.factor, width * self.factor

    def forward(self, x: Tensor) -> Tensor:
        return squeeze(x, self.factor)

    def inverse(self, z: Tensor) -> Tensor:
        return unsqueeze(z, self.factor)

    def extra_repr(self) -> str:
        return f"factor={self.factor}"
