"""One evaluation of a block that can be undone and made again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import get_device_states, set_device_states

from invattn._conditions import named_inputs
from invattn.bijections.base import Bijection
from invattn.bijections.residual import inverted_by
from invattn.lipschitz.constrained import held_estimates, refines_estimates
from invattn.solvers import Solution, Solver


def own_generators(bijection: Bijection) -> list[torch.Generator]:
    """Return every generator that a bijection or a map inside it draws from, each once."""
    parts = [part for part in bijection.modules() if isinstance(part, Bijection)]
    return list({id(found): found for part in parts for found in part.generators}.values())


class RandomState:
    """The states of torch's default generators (CPU, and the accelerator of a tensor) and of given ones, as of now.

    About 5 kB on the CPU.
    """

    def __init__(self, generators: Sequence[torch.Generator], near: Tensor) -> None:
        self._further, self._near = generators, near.new_empty(0)
        self._devices, self._device_states = get_device_states(self._near)
        self._generators = (torch.default_generator, *generators)
        self._states = [generator.get_state() for generator in self._generators]

    def same_as(self, other: RandomState) -> bool:
        """Whether nothing was drawn between the two."""
        pairs = zip([*self._states, *self._device_states], [*other._states, *other._device_states], strict=True)
        return all(torch.equal(own, others) for own, others in pairs)

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Draw what was drawn from here on, then let every stream go on as if nothing had been drawn."""
        before = RandomState(self._further, self._near)
        self._set()
        try:
            yield
        finally:
            before._set()

    def _set(self) -> None:
        set_device_states(self._devices, self._device_states, device_type=self._near.device.type)
        for generator, state in zip(self._generators, self._states, strict=True):
            generator.set_state(state)


@dataclass(frozen=True)
class AutocastState:
    """Which devices cast operations to a lower precision, and to which."""

    enabled: tuple[tuple[str, torch.dtype, bool], ...]  # device type, dtype, whether casting is on

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


Gradients = tuple[Tensor | None, Tensor | None]
"""The gradients for a block's image and for its log-determinant; None where there is none."""


@dataclass(frozen=True)
class Pulled:
    """A block evaluated again, and the gradients pulled back through it.

    Attributes:
        image: f(x).
        log_det: log|det df/dx|, or None where no gradient came through it.
        input: The gradient for x, or None.
        parameters: The gradients for the parameters that were asked for, by name; None where one is not reached.
    """

    image: Tensor
    log_det: Tensor | None
    input: Tensor | None
    parameters: Mapping[str, Tensor | None]


@dataclass(frozen=True)
class Replay:
    """What is needed to undo one evaluation of a block, and to make it again; see :func:`record`.

    Attributes:
        part: The block.
        parameters: Its parameters and the real values bound to it by name, by reference.
        fixed: Parameters and buffers that the evaluation only read, with their versions of then.
        changed: Copies of the buffers that the evaluation changed, as it used them.
        random: The random streams before it, or None if it drew nothing.
        autocast: Which operations were made in a lower precision.
    """

    part: Bijection
    parameters: Mapping[str, Tensor]
    fixed: Mapping[str, tuple[Tensor, int]]
    changed: Mapping[str, Tensor]
    random: RandomState | None
    autocast: AutocastState

    def altered(self) -> list[str]:
        """Return the names of parameters and buffers that were changed in place since."""
        return [name for name, (value, version) in self.fixed.items() if value._version != version]

    def invert(self, image: Tensor, solver: Solver) -> Solution:
        """Find the input from the image, with the weights and the autocast of then."""
        with torch.no_grad(), self._as_then(), inverted_by(self.part, solver):
            solution: Solution = self._call(lambda part: part.solve(image), self.parameters)
        return solution

    def pull(self, x: Tensor, incoming: Gradients, *, wanted: set[str], input_wanted: bool) -> Pulled:
        """Evaluate again at x, and pull the gradients for image and log-determinant back to what is wanted."""
        # Aliases instead of the parameters themselves: hooks on those must see the sum over the chain, once.
        aliases = {name: value.detach().requires_grad_(name in wanted) for name, value in self.parameters.items()}
        point = x.detach().requires_grad_(input_wanted)
        with torch.enable_grad(), self._as_then(), nullcontext() if self.random is None else self.random.replayed():
            image, log_det = self._call(lambda part: _evaluate(part, point, incoming[1] is not None), aliases)
        sources = {name: aliases[name] for name in sorted(wanted)}
        first, *others = _gradients((image, log_det), incoming, [point, *sources.values()])
        return Pulled(
            image=image.detach(),
            log_det=None if log_det is None else log_det.detach(),
            input=first,
            parameters=dict(zip(sources, others, strict=True)),
        )

    @contextmanager
    def _as_then(self) -> Iterator[None]:
        with self.autocast.restored(), held_estimates(self.part):
            yield

    def _call(self, function: Callable[[Bijection], Any], parameters: Mapping[str, Tensor]) -> Any:
        """Call a function of the block while these parameters and the noted buffers stand in for its own."""
        values = {f"part.{name}": value for name, value in {**parameters, **self.changed}.items()}
        return torch.func.functional_call(_Caller(self.part), values, (function,))


def record(part: Bijection, x: Tensor, *, with_log_det: bool) -> tuple[Tensor, Tensor | None, Replay]:
    """Evaluate a block without recording gradients, and note what its value depends on.

    Args:
        part: The block. If it refines estimates of singular vectors in a training forward, it does so here.
        x: Its input.
        with_log_det: Whether the log-determinant is wanted.

    Returns:
        f(x), log|det df/dx| or None, and the note.
    """
    generators, autocast = own_generators(part), AutocastState.now(x.device)
    random = RandomState(generators, x)
    before = {name: buffer._version for name, buffer in part.named_buffers()}
    # Estimates are refined where gradients are recorded: that graph is dropped at once.
    with torch.enable_grad() if refines_estimates(part) else torch.no_grad(), autocast.restored():
        image, log_det = _evaluate(part, x.detach(), with_log_det)
    parameters, buffers = named_inputs(part), dict(part.named_buffers())
    changed = {name: value.clone() for name, value in buffers.items() if value._version != before.get(name)}
    fixed = parameters | {name: value for name, value in buffers.items() if name not in changed}
    note = Replay(
        part=part,
        parameters=parameters,
        fixed={name: (value, value._version) for name, value in fixed.items()},
        changed=changed,
        random=None if random.same_as(RandomState(generators, x)) else random,
        autocast=autocast,
    )
    return image.detach(), None if log_det is None else log_det.detach(), note


class _Caller(nn.Module):
    """A module whose forward calls any function of the block inside, as functional_call needs."""

    def __init__(self, part: Bijection) -> None:
        super().__init__()
        self.part = part

    def forward(self, function: Callable[[Bijection], Any]) -> Any:
        return function(self.part)


def _evaluate(part: Bijection, x: Tensor, with_log_det: bool) -> tuple[Tensor, Tensor | None]:
    return part.forward_and_log_det(x) if with_log_det else (part(x), None)


def _gradients(
    outputs: tuple[Tensor, Tensor | None], incoming: Gradients, sources: list[Tensor]
) -> list[Tensor | None]:
    """Return the gradients for the sources; None for those that want none or are not reached."""
    pairs = [
        (output, gradient)
        for output, gradient in zip(outputs, incoming, strict=True)
        if output is not None and gradient is not None and output.requires_grad
    ]
    wanting = [source for source in sources if source.requires_grad]
    if not pairs or not wanting:
        return [None] * len(sources)
    values, gradients = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(values, wanting, gradients, allow_unused=True))
    return [next(found) if source.requires_grad else None for source in sources]
