"""What the architectures of all flows share: how constructors take their fields, how those are checked and settled."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import Any, Concatenate, ParamSpec, TypeVar

from invattn.bijections import Bijection, ClassAffine, Composed

_Options = ParamSpec("_Options")
_Architecture = TypeVar("_Architecture")


def built_from(
    kind: Callable[_Options, _Architecture],
) -> Callable[[Callable[[Any, _Architecture], None]], Callable[Concatenate[Any, _Options], None]]:
    """Let an ``__init__`` that wants an architecture take the fields of its dataclass, which so are stated once.

    Args:
        kind: The dataclass; what it does not know, such as a typo, is a TypeError that names it.
    """

    def decorate(build: Callable[[Any, _Architecture], None]) -> Callable[Concatenate[Any, _Options], None]:
        def __init__(self: Any, /, *values: _Options.args, **options: _Options.kwargs) -> None:  # noqa: N807
            build(self, kind(*values, **options))

        own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        signature = inspect.signature(kind)
        __init__.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[own, *signature.parameters.values()], return_annotation=None
        )
        return __init__

    return decorate


def settle(architecture: object, **values: object) -> None:
    """Put values into their settled form, such as lists into tuples, while a frozen architecture is made."""
    for name, value in values.items():
        object.__setattr__(architecture, name, value)


def whole_numbers(values: object, *, name: str, fewest: int = 1) -> tuple[int, ...]:
    """Return whole numbers as a tuple; they may come from a file, and be anything.

    Args:
        values: The numbers.
        name: What they are, for the message.
        fewest: How many there must be.

    Raises:
        ValueError: If there are fewer, or one is no whole number of at least 1.
    """
    listed = tuple(values) if isinstance(values, Sequence) else None
    if listed is None or len(listed) < fewest or not all(isinstance(n, Integral) and int(n) >= 1 for n in listed):
        some = "at least one number" if fewest == 1 else "numbers"
        raise ValueError(f"{name} must hold {some}, all at least 1; got {values!r}.")
    return listed


def check_conditions(classes: int, context_channels: int) -> None:
    """Raise ValueError unless both numbers are 0 (none) or above."""
    if classes < 0 or context_channels < 0:
        raise ValueError(
            f"classes and context_channels must be at least 1, or 0 for none; got {classes} and {context_channels}."
        )


def with_classes(parts: Iterable[Bijection], shape: Sequence[int], classes: int) -> Composed:
    """Return a chain that ends in the prior of each class, where there are classes.

    Args:
        parts: The chain.
        shape: Of one of its outputs, without the batch.
        classes: How many classes there are; 0 for none.
    """
    return Composed([*parts, ClassAffine(shape, classes)] if classes else parts)
