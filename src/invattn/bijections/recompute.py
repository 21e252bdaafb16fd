"""The autograd function of a chain whose backward pass reconstructs the inputs of its blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from invattn._conditions import named_inputs
from invattn._errors import ConvergenceError
from invattn.bijections.base import Bijection, raise_unless_converged
from invattn.bijections.replay import AutocastState, Gradients, Pulled, record
from invattn.functional._transforms import transforms_active
from invattn.solvers import Adaptive, Solution, Solver


@dataclass(frozen=True)
class BlockDrift:
    """How well one block's input was recovered in a backward pass; each number is the largest over the samples.

    Attributes:
        block: The block's place in the chain, from 0.
        residual: |f(x) - z| at the recovered x, in the block's norm; None where the input was kept, not recovered.
        error_bound: A proven bound of what this one inversion adds to the error, rounding included; None where the
            input was kept or the block has no certificate.
        num_steps: Updates of x; None where the input was kept.
        drift: The largest entry of |recovered - true| at the block's OUTPUT, accumulated over all blocks that were
            inverted on the way there; None where it is not known. It is known at every block whose input was kept
            (always the first): running the block again gives its true output.
    """

    block: int
    residual: float | None
    error_bound: float | None
    num_steps: int | None
    drift: float | None


@dataclass(frozen=True)
class Drift:
    """The report of one backward pass.

    Attributes:
        blocks: One entry a block, in the order of the chain.
        log_det: The largest |log-determinant recomputed - that of the forward pass| over the samples, in nats; None
            where no gradient came through the log-determinant.
    """

    blocks: tuple[BlockDrift, ...]
    log_det: float | None

    @property
    def largest(self) -> float:
        """The largest drift that is known; 0 where nothing had to be reconstructed."""
        return max((block.drift for block in self.blocks if block.drift is not None), default=0.0)


_REMEDY = (
    "Keep more outputs (keep_every=8; keep_every=1 inverts nothing), use float64 or a smaller lipschitz; on_drift "
    "reports every backward pass."
)


@dataclass(frozen=True)
class Reconstruction:
    """How inputs are reconstructed: the options of :class:`invattn.bijections.ConstantMemory`."""

    keep_every: int | None = None
    solver: Solver | None = None
    drift_limit: float | None = None
    on_drift: Callable[[Drift], None] | None = None

    def keeps(self, block: int) -> bool:
        """Whether the input of a block is kept; that of the first one always is."""
        return block == 0 or (self.keep_every is not None and block % self.keep_every == 0)

    def solver_for(self, x: Tensor, autocast: AutocastState) -> Solver:
        """Return the solver: to the rounding of x, or to that of what autocast makes of it."""
        if self.solver is not None:
            return self.solver
        lower = autocast.dtype(x)
        return Adaptive(atol=0.0, rtol=None if lower == x.dtype else torch.finfo(lower).eps, refine=2)

    def limit_for(self, x: Tensor, autocast: AutocastState) -> float:
        """Return the relative drift above which a gradient is refused."""
        if self.drift_limit is not None:
            return self.drift_limit
        return float(torch.finfo(autocast.dtype(x)).eps ** 0.5)


def apply_recomputed(
    parts: Sequence[Bijection], x: Tensor, how: Reconstruction, *, with_log_det: bool
) -> tuple[Tensor, Tensor]:
    """Apply a chain of at least one block, and keep its input, its output and little else for the backward pass.

    Returns:
        z, and log|det dz/dx| with shape (B,): zeros where it is not wanted.
    """
    parameters = {id(value): value for part in parts for value in named_inputs(part).values()}
    run = _Run(parts, how, order=parameters, with_log_det=with_log_det)
    result: tuple[Tensor, Tensor] = _Recomputed.apply(run, x, *parameters.values())  # type: ignore[no-untyped-call]
    return result


class _Recomputed(torch.autograd.Function):
    """The chain as one node of the graph; its parameters are inputs, so that each receives one summed gradient."""

    @staticmethod
    def forward(ctx: Any, run: _Run, x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det, kept = run.forward(x)
        ctx.run = run
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(z, log_det, *kept)
        return z, log_det

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor | None) -> Any:
        if torch.is_grad_enabled() or transforms_active():
            raise RuntimeError(
                "the gradient of ConstantMemory can be neither differentiated again nor taken under torch.func.vmap: "
                "use create_graph=False, is_grads_batched=True for several vectors, or the bijection inside."
            )
        z, log_det, *kept = ctx.saved_tensors
        _, input_wanted, *wanted = ctx.needs_input_grad
        walk = _Walk(ctx.run, kept, input_wanted=input_wanted, wanted=wanted)
        input_gradient = walk.back(z, log_det, (incoming[0], incoming[1]))
        return None, input_gradient, *walk.gradients


class _Run:
    """One forward pass of the chain: what every backward pass through it reads."""

    def __init__(
        self, parts: Sequence[Bijection], how: Reconstruction, *, order: Iterable[int], with_log_det: bool
    ) -> None:
        self.parts, self.how = parts, how
        self.place = {identity: place for place, identity in enumerate(order)}
        self._with_log_det = with_log_det

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return z, the log-determinant, and the inputs of blocks that are kept, in order."""
        self.autocast = AutocastState.now(x.device)
        self.replays, kept, total = [], [], x.new_zeros(x.shape[0])
        for block, part in enumerate(self.parts):
            if self.how.keeps(block):
                kept.append(x)
            x, log_det, replay = record(part, x, with_log_det=self._with_log_det)
            total = total if log_det is None else total + log_det
            self.replays.append(replay)
        return x, total, kept

    def check_unaltered(self) -> None:
        """Raise RuntimeError if a parameter or buffer was changed in place since the forward pass."""
        for block, replay in enumerate(self.replays):
            altered = replay.altered()
            if altered:
                raise RuntimeError(
                    f"{altered[0]} of block {block} was changed in place between the forward and the backward pass of "
                    "ConstantMemory, so that the block's input cannot be recovered. Call backward() before "
                    "optimizer.step(), load_state_dict() or any other change of the weights."
                )


class _Walk:
    """One backward pass: from the last block to the first."""

    def __init__(self, run: _Run, kept: list[Tensor], *, input_wanted: bool, wanted: list[bool]) -> None:
        run.check_unaltered()
        self._run = run
        starts = [block for block in range(len(run.replays)) if run.how.keeps(block)]
        self._inputs = dict(zip(starts, kept, strict=True))
        self._input_wanted = input_wanted
        self._wanted = [
            {name for name, value in replay.parameters.items() if wanted[run.place[id(value)]]}
            for replay in run.replays
        ]
        self.gradients: list[Tensor | None] = [None] * len(wanted)
        self._report: list[BlockDrift] = []
        self._log_dets: list[Tensor] = []

    def back(self, z: Tensor, log_det: Tensor, incoming: Gradients) -> Tensor | None:
        """Fill in the gradients for the parameters and return that for the input."""
        true = True  # z is what the block returned, not a reconstruction of it
        for block in reversed(range(len(self._run.replays))):
            upstream = self._input_wanted or any(self._wanted[:block])
            if true and not upstream and not self._wanted[block]:
                break
            point, solution = self._inputs.get(block), None
            if point is None:
                solution = self._invert(block, z)
                point = solution.value
            pulled = self._run.replays[block].pull(point, incoming, wanted=self._wanted[block], input_wanted=upstream)
            drift = None if true or solution is not None else self._check_drift(block, pulled.image, z)
            self._add(block, pulled)
            self._note(block, solution, drift)
            incoming = (pulled.input, incoming[1])
            z, true = point, solution is None
        difference = self._check_log_det(log_det, z[0].numel())
        if self._run.how.on_drift is not None:
            self._run.how.on_drift(Drift(blocks=tuple(reversed(self._report)), log_det=difference))
        return incoming[0]

    def _invert(self, block: int, z: Tensor) -> Solution:
        replay = self._run.replays[block]
        solution = replay.invert(z, self._run.how.solver_for(z, self._run.autocast))
        try:
            raise_unless_converged(solution, certified=replay.part.certified)
        except ConvergenceError as error:
            raise ConvergenceError(
                f"the input of block {block} could not be recovered in the backward pass: {error} {_REMEDY}"
            ) from None
        return solution

    def _check_drift(self, block: int, image: Tensor, z: Tensor) -> Tensor:
        """Compare a true output with its reconstruction; return the largest difference, 0-dimensional."""
        drift = (image - z).abs().flatten(1).amax(dim=1)
        limit = self._run.how.limit_for(z, self._run.autocast)
        relative = drift / image.abs().flatten(1).amax(dim=1).clamp_min(torch.finfo(z.dtype).tiny)
        if not bool((relative <= limit).all()):
            raise ConvergenceError(
                f"the output of block {block}, reconstructed in the backward pass, is wrong by "
                f"{float(relative.max()):.3g} of its size (limit {limit:.3g}): the blocks after it lose information "
                f"or map two inputs to one output. {_REMEDY}"
            )
        return drift.max()

    def _check_log_det(self, log_det: Tensor, entries: int) -> float | None:
        """Compare the log-determinant with the recomputed one; return the largest difference."""
        if len(self._log_dets) < len(self._run.replays):
            return None
        difference = (torch.stack(self._log_dets).sum(dim=0) - log_det).abs()
        # A heuristic: other probes differ by about sqrt(entries), rounding and drift by far less than the limit of it.
        limit = self._run.how.limit_for(log_det, self._run.autocast) * (entries**0.5 + log_det.abs())
        if not bool((difference <= limit).all()):
            raise RuntimeError(
                f"the log-determinant came out differently in the backward pass, by {float(difference.max()):.3g}: its "
                "estimator depends on something that ConstantMemory does not rewind. Name the generators it draws from "
                "in its property `generators`, and change no estimator between forward and backward."
            )
        return float(difference.max())

    def _add(self, block: int, pulled: Pulled) -> None:
        if pulled.log_det is not None:
            self._log_dets.append(pulled.log_det)
        replay = self._run.replays[block]
        for name, gradient in pulled.parameters.items():
            place = self._run.place[id(replay.parameters[name])]
            before = self.gradients[place]
            self.gradients[place] = gradient if before is None else before if gradient is None else before + gradient

    def _note(self, block: int, solution: Solution | None, drift: Tensor | None) -> None:
        if self._run.how.on_drift is None:
            return
        bound = None if solution is None else solution.error_bound
        self._report.append(
            BlockDrift(
                block=block,
                residual=None if solution is None else float(solution.residual.max()),
                error_bound=None if bound is None else float(bound.max()),
                num_steps=None if solution is None else int(solution.num_steps.max()),
                drift=None if drift is None else float(drift),
            )
        )
