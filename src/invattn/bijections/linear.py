"""Invertible linear maps of the channels: learned, and fitted to whiten."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invattn.bijections.affine import DataDependent
from invattn.bijections.closed_form import ChannelMap, channel_axis, positions

_REFINEMENTS = 2  # each squares the error of the inverse matrix, about the condition number times its rounding


class Linear1x1(ChannelMap):
    """z = P L (U + diag(sign exp(log_scale))) x for every token or pixel: Glow's invertible 1 x 1 convolution.

    P is a fixed permutation, L lower triangular with ones, U strictly upper triangular: the map is invertible for all
    parameters, its log-determinant a sum. It starts as a random rotation.

    Args:
        channels: C.
        generator: Where the rotation comes from; None is torch's default generator.

    References:
        Kingma and Dhariwal 2018 (Glow), Sec. 3.2.
    """

    certified = True  # both factors have a diagonal without 0
    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__(channels)
        rotation = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64, generator=generator)).Q
        permutation, lower, upper = torch.linalg.lu(rotation)
        dtype = torch.get_default_dtype()
        self.register_buffer("permutation", permutation.argmax(dim=0))
        self.register_buffer("sign", upper.diagonal().sign().to(dtype))
        self.lower = nn.Parameter(lower.tril(-1).to(dtype))
        self.upper = nn.Parameter(upper.triu(1).to(dtype))
        self.log_scale = nn.Parameter(upper.diagonal().abs().log().to(dtype))

    def matrix(self) -> Tensor:
        """Return the matrix W of z = W x, shape (C, C)."""
        lower, upper = self._factors()
        with torch.autocast(lower.device.type, enabled=False):
            product: Tensor = lower @ upper
        return torch.empty_like(product).index_copy(0, self.permutation, product)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return _apply(x, self.matrix().to(x.dtype))

    def inverse(self, z: Tensor) -> Tensor:
        self.check_input(z)
        lower, upper = (factor.to(z.dtype) for factor in self._factors())
        columns = z.movedim(channel_axis(z), -1)
        flat = columns.reshape(-1, self.channels).mT[self.permutation]
        solved = torch.linalg.solve_triangular(lower, flat, upper=False, unitriangular=True)
        solved = torch.linalg.solve_triangular(upper, solved, upper=True)
        x: Tensor = solved.mT.reshape(columns.shape).movedim(-1, channel_axis(z))
        return x

    def log_det(self, x: Tensor) -> Tensor:
        return (positions(x) * self.log_scale.sum()).to(x.dtype).expand(x.shape[0])

    def stretch(self) -> tuple[float, float]:
        sizes = torch.linalg.svdvals(self.matrix().detach().double())
        return float(sizes[-1]), float(sizes[0])

    def _factors(self) -> tuple[Tensor, Tensor]:
        identity = torch.eye(self.channels, dtype=self.lower.dtype, device=self.lower.device)
        upper = self.upper.triu(1) + torch.diag(self.sign * self.log_scale.exp())
        return self.lower.tril(-1) + identity, upper


@dataclass(frozen=True, kw_only=True)
class PatchTaper:
    """exp(-r^2 / (2 reach^2)), r the distance in pixels, for the entries of squeezed patches.

    Attributes:
        side: Of a patch, in pixels.
        channels: Of a pixel; the order of entries is that of :class:`invattn.bijections.Squeeze`.
        reach: In pixels, > 0.

    Raises:
        ValueError: If a number is out of range.
    """

    side: int
    channels: int
    reach: float

    def __post_init__(self) -> None:
        if self.side < 1 or self.channels < 1 or not self.reach > 0:
            raise ValueError(
                f"side >= 1, channels >= 1 and reach > 0 are needed; got {self.side}, {self.channels} and {self.reach}."
            )

    @property
    def size(self) -> int:
        """Entries of a patch."""
        return self.side**2 * self.channels

    def matrix(self, like: Tensor) -> Tensor:
        """Return the taper with shape (size, size) and the dtype of ``like``; it is positive semidefinite."""
        pixel = torch.arange(self.size, device=like.device) // self.channels
        rows, columns = (pixel // self.side).to(like.dtype), (pixel % self.side).to(like.dtype)
        squares = (rows[:, None] - rows).square() + (columns[:, None] - columns).square()
        return torch.exp(squares / (-2 * self.reach**2))


class Whitening(ChannelMap, DataDependent):
    """z = W (x - mean) with W = (covariance + ridge)^(-1/2), fitted to data and then fixed: ZCA whitening.

    On vectors (B, C) it whitens whole samples; on images the channels of a pixel, and after Squeeze(k) those of
    k x k patches. Before it is fitted it is the identity.

    With as many entries as samples, covariances of far entries are mostly noise. A taper, a positive semidefinite
    matrix with ones on its diagonal, is multiplied with the covariance entry by entry to lower them; the ridge is
    added afterwards.

    Args:
        channels: C.
        ridge: Added to the variance in every direction, in the units of the data squared, > 0.
        taper: How covariances fall with the distance in a patch; None leaves them as they are.

    References:
        Bell and Sejnowski 1997 (ZCA); Furrer and Bengtsson 2007 (tapered covariances).
    """

    certified = True  # the ridge keeps every scale positive
    mean: Tensor
    weight: Tensor
    unweight: Tensor
    log_volume: Tensor

    def __init__(self, channels: int, *, ridge: float = 1e-5, taper: PatchTaper | None = None) -> None:
        super().__init__(channels)
        if not ridge > 0:
            raise ValueError(f"ridge must be positive; got {ridge}.")
        if taper is not None and taper.size != channels:
            raise ValueError(f"the patches of the taper have {taper.size} entries; channels is {channels}.")
        self.ridge = ridge
        self.taper = taper
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("weight", torch.eye(channels))
        self.register_buffer("unweight", torch.eye(channels))
        self.register_buffer("log_volume", torch.zeros(()))
        self.register_buffer("fitted", torch.tensor(False))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Fit mean and covariance to all tokens of a batch.

        Args:
            x: Inputs; the more, the better the covariance. Fewer tokens than channels are allowed, thanks to the ridge.

        Raises:
            ValueError: If x is not finite or has another shape.
        """
        self.check_input(x)
        rows = x.movedim(channel_axis(x), -1).reshape(-1, self.channels).double()
        if len(rows) < 2 or not bool(rows.isfinite().all()):
            raise ValueError("whitening is fitted to at least two finite tokens. Check the data.")
        centred = rows - rows.mean(dim=0)
        covariance = centred.mT @ centred / len(rows)
        if self.taper is not None:
            covariance = covariance * self.taper.matrix(covariance)
        variances, directions = torch.linalg.eigh(covariance)
        scales = (variances.clamp_min(0) + self.ridge).rsqrt()
        self.mean.copy_(rows.mean(dim=0))
        self.weight.copy_(directions * scales @ directions.mT)
        self.unweight.copy_(directions / scales @ directions.mT)
        self.log_volume.copy_(scales.log().sum())
        self.fitted.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return _apply(x - _shift(self.mean, x), self.weight.to(x.dtype))

    def inverse(self, z: Tensor) -> Tensor:
        self.check_input(z)
        weight, unweight = self.weight.to(z.dtype), self.unweight.to(z.dtype)
        x = _apply(z, unweight)
        # Both matrices were rounded, each for itself, to the precision that they were fitted in: without refinement
        # the inverse of a flow that is converted to float64 would be no better than that.
        for _ in range(_REFINEMENTS):
            x = x + _apply(z - _apply(x, weight), unweight)
        return x + _shift(self.mean, z)

    def log_det(self, x: Tensor) -> Tensor:
        return (positions(x) * self.log_volume).to(x.dtype).expand(x.shape[0])

    def stretch(self) -> tuple[float, float]:
        sizes = torch.linalg.svdvals(self.weight.double())
        return float(sizes[-1]), float(sizes[0])


def _apply(x: Tensor, matrix: Tensor) -> Tensor:
    """Multiply the channels of every token or pixel by a matrix, in the precision of x: autocast is for branches."""
    with torch.autocast(x.device.type, enabled=False):
        if x.dim() == 4:
            return F.conv2d(x, matrix[:, :, None, None])
        return F.linear(x, matrix)


def _shift(vector: Tensor, x: Tensor) -> Tensor:
    return (vector[:, None, None] if x.dim() == 4 else vector).to(x.dtype)
