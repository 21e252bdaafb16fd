"""A linear map whose spectral norm is held below a coefficient by power iteration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invattn._conditions import replaced, view_of
from invattn.functional import power_iteration, spectral_norm
from invattn.functional._transforms import transforms_active

_WARM_START = 50

_Module = TypeVar("_Module", bound=nn.Module)


class ConstrainedLinear(nn.Linear):
    """y = W x + b with W scaled by 1 / max(1, sigma(W) / c), the paper's Lipschitz-constrained convolution.

    sigma is an ESTIMATE from below (power iteration), so c is aimed at and not guaranteed: after 5 steps the true
    norm can exceed it by 15 %. Certified recipes use :func:`invattn.functional.spectral_norm` instead. The two
    singular vectors are refined in a training forward that records gradients: never in an inverse, in a
    log-determinant, or under a torch.func transform.

    Args:
        in_features: Channels of the input.
        out_features: Channels of the output.
        bias: Whether b is learned.
        coefficient: c > 0.
        power_iterations: Steps of each training forward.
        enforce: "forward" scales at every use; "after_step" leaves the weights alone in forward and has
            :meth:`project` called after each optimiser step (App. B of the paper).

    References:
        Zha et al. 2021, Eq. 4, Sec. 2.2, App. B.
    """

    left: Tensor
    right: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        coefficient: float = 0.9,
        power_iterations: int = 5,
        enforce: str = "forward",
    ) -> None:
        super().__init__(in_features, out_features, bias=bias)
        if not coefficient > 0:
            raise ValueError(f"the coefficient must be positive; got {coefficient}.")
        if enforce not in ("forward", "after_step"):
            raise ValueError(f"enforce must be 'forward' or 'after_step'; got {enforce!r}.")
        self.coefficient = coefficient
        self.power_iterations = power_iterations
        self.enforce = enforce
        self.held = False
        self.fixed: Tensor | None = None
        weight = self.weight.detach()
        left, right = power_iteration(
            weight, torch.ones_like(weight[:, 0]), torch.ones_like(weight[0]), steps=_WARM_START
        )
        self.register_buffer("left", left)
        self.register_buffer("right", right)
        if enforce == "after_step":
            self.project()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.scaled_weight(), self.bias)

    def scaled_weight(self) -> Tensor:
        """Return the weight that forward multiplies with, shape (out_features, in_features)."""
        if self.fixed is not None:
            return self.fixed
        if self.enforce == "after_step":
            return self.weight
        if self.training and not self.held and torch.is_grad_enabled() and not transforms_active():
            with torch.no_grad():
                left, right = power_iteration(self.weight, self.left, self.right, steps=self.power_iterations)
                self.left.copy_(left)
                self.right.copy_(right)
        # The vectors are cloned because a second training forward changes them before the first one's backward.
        sigma = torch.dot(self.left.clone(), torch.mv(self.weight, self.right.clone()))
        return self.weight / torch.clamp(sigma / self.coefficient, min=1.0)

    @torch.no_grad()
    def project(self) -> None:
        """Scale the stored weight so that its exact spectral norm is at most the coefficient."""
        scale = torch.clamp(spectral_norm(self.weight) / self.coefficient, min=1.0)
        self.weight.copy_((self.weight.double() / scale).to(self.weight.dtype))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, coefficient={self.coefficient}, enforce={self.enforce!r}"


@torch.no_grad()
def at_scaled_weights(module: _Module) -> _Module:
    """Return a view in which every :class:`ConstrainedLinear` multiplies with the scaled weight that it has now.

    Args:
        module: Any module, itself no :class:`ConstrainedLinear`; its parameters and all other parts are shared.
    """

    def fixed(_: str, part: nn.Module) -> nn.Module | None:
        if not isinstance(part, ConstrainedLinear):
            return None
        view = view_of(part)
        view.fixed = part.scaled_weight().detach()  # no parameter: a view shares its parameters with the module
        return view

    return replaced(module, fixed)


@contextmanager
def held_estimates(function: object) -> Iterator[None]:
    """Keep the singular vectors of every :class:`ConstrainedLinear` inside a module as they are.

    Whatever evaluates a branch more than once for one result (an inverse and its gradient, a log-determinant)
    must see the same weights each time.

    Args:
        function: A module; anything else is left alone.
    """
    maps = [part for part in _estimating(function) if not part.held]
    for part in maps:
        part.held = True
    try:
        yield
    finally:
        for part in maps:
            part.held = False


def refines_estimates(function: object) -> bool:
    """Whether a forward that records gradients would refine singular vectors inside a module.

    Args:
        function: A module; for anything else the answer is no.
    """
    return any(part.training and not part.held and part.enforce == "forward" for part in _estimating(function))


def _estimating(function: object) -> list[ConstrainedLinear]:
    parts = function.modules() if isinstance(function, nn.Module) else ()
    return [part for part in parts if isinstance(part, ConstrainedLinear)]
