"""What the value of a block depends on besides its input and weights: random streams and autocast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import get_device_states, set_device_states

from invattn.bijections.base import Bijection


def own_generators(bijection: Bijection) -> list[torch.Generator]:
    """Return every generator that a bijection or a map inside it draws from, each once."""
    parts = [part for part in bijection.modules() if isinstance(part, Bijection)]
    return list({id(found): found for part in parts for found in part.generators}.values())


class RandomState:
    """The states of torch's default generators (CPU, and the accelerator of a tensor) and of given ones, as of now.

    About 5 kB on the CPU.

    Args:
        generators: Further generators.
        near: A tensor on the accelerator, or on the CPU.
    """

    def __init__(self, generators: Sequence[torch.Generator], near: Tensor) -> None:
        self._generators = tuple(generators)
        self._near = near.new_empty(0)
        self._default = torch.get_rng_state()
        self._devices, self._device_states = get_device_states(self._near)
        self._states = [generator.get_state() for generator in generators]

    def same_as(self, other: RandomState) -> bool:
        """Whether nothing was drawn between the two."""
        pairs = zip(self._tensors(), other._tensors(), strict=True)
        return all(torch.equal(own, others) for own, others in pairs)

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Draw what was drawn from here on, then let every stream go on as if nothing had been drawn."""
        before = RandomState(self._generators, self._near)
        self._set()
        try:
            yield
        finally:
            before._set()

    def _tensors(self) -> list[Tensor]:
        return [self._default, *self._device_states, *self._states]

    def _set(self) -> None:
        torch.set_rng_state(self._default)
        set_device_states(self._devices, self._device_states, device_type=self._near.device.type)
        for generator, state in zip(self._generators, self._states, strict=True):
            generator.set_state(state)


@dataclass(frozen=True)
class AutocastState:
    """Which devices cast operations to a lower precision, and to which.

    Attributes:
        enabled: (device type, dtype, whether casting is on), one a device type.
    """

    enabled: tuple[tuple[str, torch.dtype, bool], ...]

    @classmethod
    def now(cls, device: torch.device) -> AutocastState:
        """Return the state on the CPU and on a device."""
        types = sorted(name for name in {"cpu", device.type} if torch.amp.is_autocast_available(name))
        return cls(tuple((name, torch.get_autocast_dtype(name), torch.is_autocast_enabled(name)) for name in types))

    def dtype(self, x: Tensor) -> torch.dtype:
        """Return the lower precision in which operations on a tensor are made, or that of the tensor."""
        return next((dtype for name, dtype, on in self.enabled if on and name == x.device.type), x.dtype)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Cast as then. Casts are not cached: those of every block would live as long as a surrounding autocast."""
        with ExitStack() as stack:
            for name, dtype, on in self.enabled:
                if on or torch.is_autocast_enabled(name):
                    stack.enter_context(torch.autocast(name, dtype=dtype, enabled=on, cache_enabled=False))
            yield
