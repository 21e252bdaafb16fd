"""The same entries in another shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from invattn.bijections.closed_form import ClosedForm
from invattn.functional import squeeze, unsqueeze
from invattn.lipschitz import BiLipschitz
from invattn.norms import conversion, count_tokens


class Rearrangement(ClosedForm):
    """A permutation of the entries of a sample: its log-determinant is 0 and its inverse exact."""

    certified = True

    def log_det(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0])

    def inverse_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.inverse(z), z.new_zeros(z.shape[0])

    def rounding_bound(self, x: Tensor, z: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0])


class Reshape(Rearrangement):
    """Give every sample another shape; entries stay in row-major order, so the log-determinant is 0.

    Args:
        before: Shape of one input, without the batch.
        after: Shape of one output; None is a vector.

    Raises:
        ValueError: If the shapes hold different numbers of entries.
    """

    def __init__(self, before: Sequence[int], after: Sequence[int] | None = None) -> None:
        super().__init__()
        self.before = tuple(before)
        self.after = (math.prod(self.before),) if after is None else tuple(after)
        if math.prod(self.before) != math.prod(self.after) or min((*self.before, *self.after)) < 1:
            raise ValueError(f"{self.before} and {self.after} must hold the same number of entries.")

    def bi_lipschitz(self, shape: Sequence[int], *, norm: str | None = None) -> BiLipschitz:
        """Return 1 and 1 in |.|_2; in |.|_{inf,2} what going there and back costs."""
        name = "inf,2" if norm is None else norm
        upper = conversion(name, "2", tokens=count_tokens(self.before)) * conversion("2", name, tokens=1)
        back = conversion(name, "2", tokens=count_tokens(self.after)) * conversion("2", name, tokens=1)
        return BiLipschitz(1 / back, upper, name, name, (f"reshape: [{1 / back:g}, {upper:g}]",))

    def output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return self.after

    def input_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return self.before

    def forward(self, x: Tensor) -> Tensor:
        return _reshape(x, self.before, self.after)

    def inverse(self, z: Tensor) -> Tensor:
        return _reshape(z, self.after, self.before)

    def extra_repr(self) -> str:
        return f"{self.before} to {self.after}"


def _reshape(x: Tensor, before: tuple[int, ...], after: tuple[int, ...]) -> Tensor:
    if tuple(x.shape[1:]) != before:
        raise ValueError(f"samples must have shape {before}; got {tuple(x.shape[1:])}.")
    return x.reshape(x.shape[0], *after)


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
