"""Values of each sample that maps depend on besides their input, and how they are bound to the maps in a module."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar, cast

from torch import Tensor, nn

_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True)
class Condition:
    """What a batch is conditioned on; None leaves the maps that would take it as they are.

    Attributes:
        context: Real numbers, shape (B, K).
        labels: Classes, integers from 0, shape (B,).
    """

    context: Tensor | None = None
    labels: Tensor | None = None


class Conditional(nn.Module):
    """A part of a map that needs values of each sample; they are bound by :func:`bind`, which leaves it as it was.

    Attributes:
        bound: The values, one row a sample, or None. No part of the state_dict.
    """

    bound: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bound", None, persistent=False)

    @abstractmethod
    def take(self, condition: Condition) -> Tensor | None:
        """Return the values of a condition that this part needs, None if it holds none.

        Raises:
            ValueError: If they do not fit.
        """

    @property
    @abstractmethod
    def need(self) -> str:
        """What the part needs, in words: "a context with 5 channels"."""

    def values(self) -> Tensor:
        """Return what is bound.

        Raises:
            ValueError: If nothing is.
        """
        if self.bound is None:
            raise ValueError(f"the map depends on {self.need}, and none was given. Bind it first: map.given(...).")
        return self.bound

    def values_of(self, batch: int) -> Tensor:
        """Return what is bound, if it belongs to a batch of this size.

        Raises:
            ValueError: If nothing is bound, or values of another number of samples.
        """
        values = self.values()
        check_rows(len(values), batch)
        return values


@dataclass(frozen=True)
class PerSample:
    """A function of a batch whose samples have values of their own beside their inputs.

    Attributes:
        function: (x, values) to a result.
        values: One row a sample.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    values: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x, self.values)

    def rows(self, index: Tensor) -> PerSample:
        """Return the function of these samples alone."""
        return PerSample(self.function, self.values[index])


def bind(module: _Module, condition: Condition) -> _Module:
    """Return a view of a module whose conditional parts have their values; it shares parameters and all other parts.

    Args:
        module: Any module; itself if no part takes a value.
        condition: The values.

    Raises:
        ValueError: If they do not fit.
    """
    return _with_values(module, lambda name, part: part.take(condition))


def bound_values(module: object) -> dict[str, Tensor]:
    """Return the values that are bound to the parts of a module, by the names of its buffers; nothing for others."""
    if not isinstance(module, nn.Module):
        return {}
    parts = {name: part for name, part in module.named_modules() if isinstance(part, Conditional)}
    return {_buffer(name): part.bound for name, part in parts.items() if part.bound is not None}


def named_inputs(module: nn.Module) -> dict[str, Tensor]:
    """Return what a map's value can be differentiated by besides its input: parameters and bound real values.

    A tensor that is bound in several places stands here once, as a shared parameter does.
    """
    real = {id(values): (name, values) for name, values in bound_values(module).items() if values.is_floating_point()}
    return dict(module.named_parameters()) | dict(real.values())


def rebind(module: _Module, values: Mapping[str, Tensor]) -> _Module:
    """Return a view of a module with other values in the place of those that :func:`bound_values` names."""
    return _with_values(module, lambda name, part: values.get(_buffer(name)))


def rows_of(function: Callable[[Tensor], Tensor], index: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function of a batch as that of some of its samples; the same function where they have no values.

    Args:
        function: A module, a :class:`PerSample`, or any function that treats all samples alike.
        index: Which samples: their numbers, or a boolean tensor.
    """
    if isinstance(function, PerSample):
        return function.rows(index)
    return select_rows(function, index) if isinstance(function, nn.Module) else function


def select_rows(module: _Module, index: Tensor) -> _Module:
    """Return a view of a module with the values of some of its samples, in this order; itself where none are bound."""
    return _with_values(module, lambda name, part: None if part.bound is None else part.bound[index])


def batch_of(condition: Condition) -> int:
    """Return how many samples a condition is of.

    Raises:
        ValueError: If its values disagree.
    """
    sizes = {len(values) for values in (condition.context, condition.labels) if values is not None}
    if len(sizes) != 1:
        raise ValueError(f"context and labels must be of the same samples; got {sorted(sizes)} of them.")
    return sizes.pop()


def check_rows(rows: int, batch: int) -> None:
    """Raise ValueError unless there is one row of values a sample."""
    if rows != batch:
        raise ValueError(
            f"a condition of {rows} samples was given for a batch of {batch}. Give one row a sample: "
            "map.given(context) with context.shape[0] == x.shape[0]."
        )


def replaced(module: _Module, choose: Callable[[str, nn.Module], nn.Module | None], name: str = "") -> _Module:
    """Return a view of a module with other parts; itself where no part is replaced.

    Args:
        module: Any module; its parts are looked at from the outside in, and what is replaced is not looked into.
        choose: Returns what stands in the place of a part, given its path and itself; None keeps it.
        name: Path of the module.
    """
    children = {}
    for own, part in module._modules.items():
        if part is not None:
            path = f"{name}.{own}" if name else own
            other = choose(path, part)
            children[own] = replaced(part, choose, path) if other is None else other
    if all(module._modules[own] is part for own, part in children.items()):
        return module
    view = view_of(module)
    view._modules.update(children)
    return view


def _with_values(module: _Module, choose: Callable[[str, Conditional], Tensor | None]) -> _Module:
    """Return a view with the chosen values in the conditional parts; None leaves a part as it is."""
    if not any(isinstance(part, Conditional) for part in module.modules()):
        return module

    def bound(name: str, part: nn.Module) -> nn.Module | None:
        values = choose(name, part) if isinstance(part, Conditional) else None
        if values is None:
            return None
        view = view_of(part)
        view._buffers["bound"] = values
        return view

    whole = bound("", module)
    return replaced(module, bound) if whole is None else cast(_Module, whole)


def view_of(module: _Module) -> _Module:
    """Return a module that shares parameters, buffers and parts with another, and may be given others."""
    view = copy.copy(module)
    view._modules, view._buffers = dict(module._modules), dict(module._buffers)
    return view


def _buffer(name: str) -> str:
    return f"{name}.bound" if name else "bound"
