"""A branch as a function of its input and parameters, and its derivatives along given vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from invattn._conditions import bound_values, named_inputs
from invattn.functional._transforms import lasting_copy, transforms_active
from invattn.lipschitz.constrained import held_estimates


@dataclass(frozen=True, eq=False)
class ExplicitBranch:
    """g(x; theta) with the parameters as arguments and everything else as it was when this was made.

    A derivative may be taken after the parameters were replaced (torch.func.functional_call), the estimates of
    spectral norms refined, or autocast left: it must be that of the g that was inverted.

    Attributes:
        module: g.
        names: Names of its parameters, and of real values bound to it, in the order of the arguments.
        rows: Those of bound values.
        buffers: Its floating-point buffers, copied.
        autocast: The data type that autocast computed in, or None where it was off.
        device: Type of the device.
    """

    module: nn.Module
    names: tuple[str, ...]
    rows: frozenset[str]
    buffers: dict[str, Tensor]
    autocast: torch.dtype | None
    device: str

    def __call__(self, x: Tensor, *values: Tensor) -> Tensor:
        """Return g(x; values); no estimate of a norm is refined."""
        state = self.buffers | {
            # A transform that folds its axis into the batch (vmap) repeats the samples.
            name: _repeated(value, x.shape[0]) if name in self.rows else value
            for name, value in zip(self.names, values, strict=True)
        }
        casting = torch.autocast(self.device, dtype=self.autocast, enabled=self.autocast is not None)
        with held_estimates(self.module), casting:
            image: Tensor = torch.func.functional_call(self.module, state, (x,))
        return image.to(x.dtype)

    def pull(self, vector: Tensor, x: Tensor, values: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the gradients of <vector, g(x; values)> by x and by each value, differentiable if grad mode is on."""
        if transforms_active():
            return _pull_back(self, (x, *values), vector)
        create = torch.is_grad_enabled()
        with torch.enable_grad():
            point, *copies = _apart(x, *values)
            return _gradients(self(point, *copies), [point, *copies], vector, create=create)

    def pull_tangent(self, vector: Tensor, tangent: Tensor, x: Tensor, values: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the gradients of <vector, J(x; values) tangent> by x and by each value, as :meth:`pull` does."""
        if transforms_active():

            def push(point: Tensor, *copies: Tensor) -> Tensor:
                return push_forward(lambda t: self(t, *copies), (point,), (tangent,))

            return _pull_back(push, (x, *values), vector)
        create = torch.is_grad_enabled()
        with torch.enable_grad():
            point, *copies = _apart(x, *values)
            (back,) = _gradients(self(point, *copies), [point], vector, create=True)
            return _gradients(back, [point, *copies], tangent, create=create)

    def transposed(self, x: Tensor, values: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
        """Return the map from w to J^T w at a point; its graph lives as long as the map."""
        image, point = self._detached(x, values)
        return lambda vector: _gradients(image, [point], vector, create=False, retain=True)[0]

    def pushed(self, x: Tensor, values: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
        """Return the map from y to J y at a point, as the transpose of w -> J^T w."""
        image, point = self._detached(x, values)
        with torch.enable_grad():
            dummy = torch.zeros_like(image, requires_grad=True)
            (back,) = _gradients(image, [point], dummy, create=True)
        return lambda vector: _gradients(back, [dummy], vector, create=False, retain=True)[0]

    @torch.enable_grad()
    def _detached(self, x: Tensor, values: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return g with a graph that ends at a point, and that point."""
        point, *copies = _apart(x.detach(), *(value.detach() for value in values))
        return self(point, *copies), point


def explicit_branch(module: nn.Module, target: Tensor) -> tuple[ExplicitBranch, list[Tensor]]:
    """Return a branch as a function of its parameters and the values bound to it, and those as they are now."""
    parameters = named_inputs(module)
    device = target.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    buffers = {name: lasting_copy(part) for name, part in module.named_buffers() if part.is_floating_point()}
    rows = frozenset(bound_values(module))
    return ExplicitBranch(module, tuple(parameters), rows, buffers, autocast, device), list(parameters.values())


def _repeated(values: Tensor, batch: int) -> Tensor:
    return values if values.shape[0] == batch else values.repeat(batch // values.shape[0], 1)


def push_forward(function: Callable[..., Tensor], point: Sequence[Tensor], tangents: Sequence[Tensor]) -> Tensor:
    """Return the derivative of a function along tangents: torch.func.jvp, but allowed inside forward-mode autograd.

    Forward mode cannot be nested outside torch.func: there it is the transpose of the reverse mode.
    """
    if transforms_active():
        _, image = torch.func.jvp(function, tuple(point), tuple(tangents))  # type: ignore[misc]
        product: Tensor = image
        return product
    with torch.enable_grad():
        copies = [tensor.detach().requires_grad_() for tensor in point]
        value = function(*copies)
        dummy = torch.zeros_like(value, requires_grad=True)
        pulled = _gradients(value, copies, dummy, create=True)
        total = torch.stack([(p * t).sum() for p, t in zip(pulled, tangents, strict=True)]).sum()
        return _gradients(total, [dummy], torch.ones_like(total), create=False)[0]


def _pull_back(function: Callable[..., Tensor], point: Sequence[Tensor], vector: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of <vector, function> by each argument, under torch.func transforms."""
    _, back = torch.func.vjp(function, *point)  # type: ignore[misc]
    products: tuple[Tensor, ...] = back(vector)
    return products


def _apart(*tensors: Tensor) -> list[Tensor]:
    """Return tensors that gradients can be taken by without going on to what they were computed from."""
    return [tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_() for tensor in tensors]


def _gradients(
    image: Tensor, inputs: Sequence[Tensor], vector: Tensor, *, create: bool, retain: bool = False
) -> tuple[Tensor, ...]:
    """Return the gradients of <vector, image>, zero by what the image does not depend on."""
    if not image.requires_grad:
        return tuple(torch.zeros_like(tensor) for tensor in inputs)
    return torch.autograd.grad(
        image, inputs, vector, create_graph=create, retain_graph=create or retain, materialize_grads=True
    )
