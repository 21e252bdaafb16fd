"""Elementwise activations with the least Lipschitz constants they have, none above 1."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invattn._errors import check_name
from invattn.functional._transforms import plain_autograd

DIVISOR = 1.1


def lip_swish(x: Tensor, sharpness: Tensor) -> Tensor:
    """Return x sigmoid(b x) / 1.1.

    Args:
        x: Any shape.
        sharpness: b > 0, a scalar.
    """
    if not plain_autograd():
        return _formula(x, sharpness)
    result: Tensor = _Value.apply(x, sharpness)  # type: ignore[no-untyped-call]
    return result


def lip_swish_slope(x: Tensor, sharpness: Tensor) -> Tensor:
    """Return the derivative by x, (sigmoid(b x) + b x sigmoid'(b x)) / 1.1."""
    u = x * sharpness
    s = torch.sigmoid(u)
    return (1 - s).mul_(u).add_(1).mul_(s).mul_(1 / DIVISOR)


def _formula(x: Tensor, sharpness: Tensor) -> Tensor:
    return F.silu(sharpness * x) * (1 / (DIVISOR * sharpness))


class _Value(torch.autograd.Function):
    """(x, b) to x sigmoid(b x) / 1.1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sharpness: Tensor) -> Tensor:
        value = F.silu(x * sharpness, inplace=True).mul_(1 / (DIVISOR * sharpness))
        ctx.save_for_backward(x, sharpness, value)
        return value

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> Any:
        x, sharpness, value = ctx.saved_tensors
        by_x = incoming * _Slope.apply(x, sharpness)  # type: ignore[no-untyped-call]
        by_sharpness = None
        if ctx.needs_input_grad[1]:
            by_sharpness = ((by_x * x).sum() - (incoming * value).sum()) / sharpness
        return by_x, by_sharpness


class _Slope(torch.autograd.Function):
    """(x, b) to the derivative of the value by x, h(b x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sharpness: Tensor) -> Tensor:
        ctx.save_for_backward(x, sharpness)
        return lip_swish_slope(x, sharpness)

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> Any:
        x, sharpness = ctx.saved_tensors
        u = x * sharpness
        s = torch.sigmoid(u)
        # h'(u) = s (1 - s) (2 + u (1 - 2 s)) / 1.1
        if torch.is_grad_enabled():  # a third derivative may follow
            by_u = incoming * (s * (1 - s) * (2 + u * (1 - 2 * s)) / DIVISOR)
        else:
            by_u = torch.rsub(s, 0.5).mul_(u).add_(1).mul_(s).mul_(s.neg_().add_(1)).mul_(incoming).mul_(2 / DIVISOR)
        return by_u * sharpness, (by_u * x).sum() if ctx.needs_input_grad[1] else None


SWISH_SLOPE = 1.099839320128867
"""The largest slope of x sigmoid(x): 1/2 + u/4 at u tanh(u/2) = 2 (rounded up); x sigmoid(b x) has it for every b."""

GELU_SLOPE = 0.5 * (1 + math.erf(1.0)) + math.exp(-1.0) / math.sqrt(math.pi)
"""The largest slope of x Phi(x), 1.1289: Phi(x) + x phi(x) at x = sqrt(2)."""


_LEAST_SHARPNESS = 1e-12
"""Of b in LipSwish, so that 1 / b stays finite."""


class Activation(nn.Module, ABC):
    """A function of one number, applied to every entry."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of every entry, shape of x."""

    def __call__(self, x: Tensor) -> Tensor:
        result: Tensor = super().__call__(x)
        return result

    @torch.no_grad()
    def derivative(self, x: Tensor) -> Tensor:
        """Return the derivative at every entry, shape of x, without a graph."""
        value, back = torch.func.vjp(self, x)  # type: ignore[misc]
        slopes: Tensor = back(torch.ones_like(value))[0]
        return slopes

    @property
    @abstractmethod
    def lipschitz(self) -> float:
        """The least upper bound of the modulus of the slope, whatever the parameters are."""


class Elementwise(Activation):
    """A function without parameters.

    Args:
        function: The function, of tensors.
        lipschitz: A proven bound of the modulus of its slope.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], *, lipschitz: float = 1.0) -> None:
        super().__init__()
        self.function = function
        self._lipschitz = lipschitz

    @property
    def lipschitz(self) -> float:
        return self._lipschitz

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return f"{getattr(self.function, '__name__', self.function)}, lipschitz={self.lipschitz:.6g}"


class LipSwish(Activation):
    """x sigmoid(b x) / 1.1 with b = softplus(beta) > 0 learned; beta is 0.5 at the start.

    The slope is s(b x) with s(u) = sigmoid(u) + u sigmoid'(u), so b does not matter; |s| is largest where its
    derivative 2 sigmoid' + u sigmoid'' vanishes, u tanh(u/2) = 2, where it is 1.09984.

    References:
        Chen et al. 2019, Sec. 3.3.
    """

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(0.5))

    @property
    def lipschitz(self) -> float:
        return SWISH_SLOPE / DIVISOR

    def forward(self, x: Tensor) -> Tensor:
        return lip_swish(x, self._sharpness())

    @torch.no_grad()
    def derivative(self, x: Tensor) -> Tensor:
        return lip_swish_slope(x, self._sharpness())

    def _sharpness(self) -> Tensor:
        return F.softplus(self.beta).clamp_min(_LEAST_SHARPNESS)


class LeakyReLU(Activation):
    """x for x >= 0, slope x below.

    Args:
        slope: The slope below 0, of modulus at most 1.
    """

    def __init__(self, slope: float = 0.01) -> None:
        super().__init__()
        if not abs(slope) <= 1:
            raise ValueError(f"the slope must lie between -1 and 1; got {slope}.")
        self.slope = slope

    @property
    def lipschitz(self) -> float:
        return 1.0

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.slope)

    def extra_repr(self) -> str:
        return f"slope={self.slope}"


def softplus(x: Tensor) -> Tensor:
    """Return log(1 + exp(x)). torch's own threshold of 20 would leave a jump of 2e-9 there, against any constant."""
    return F.softplus(x, threshold=40.0)


def scaled_gelu(x: Tensor) -> Tensor:
    """Return x Phi(x) / 1.1289, of which the largest slope is 1; squares of large x would spoil second derivatives."""
    result: Tensor = x * torch.special.erfc(x.clamp(-40, 40) / -math.sqrt(2)) / (2 * GELU_SLOPE)
    return result


def scaled_silu(x: Tensor) -> Tensor:
    """Return x sigmoid(x) / 1.0998, of which the largest slope is 1."""
    return F.silu(x) / SWISH_SLOPE


ACTIVATIONS: dict[str, Callable[[], Activation]] = {
    "lipswish": LipSwish,
    "elu": lambda: Elementwise(F.elu),
    "softplus": lambda: Elementwise(softplus),
    "tanh": lambda: Elementwise(torch.tanh),
    "sin": lambda: Elementwise(torch.sin),
    "relu": lambda: Elementwise(F.relu),
    "leaky_relu": LeakyReLU,
    "gelu": lambda: Elementwise(scaled_gelu),
    "silu": lambda: Elementwise(scaled_silu),
}
"""How to make each activation, by name. "gelu" and "silu" are divided by their largest slopes."""


def make_activation(name: str) -> Activation:
    """Return a new activation of this name.

    Raises:
        ValueError: If there is none; the message names the nearest.
    """
    return ACTIVATIONS[check_name(name, list(ACTIVATIONS), what="activation")]()
