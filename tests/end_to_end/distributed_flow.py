"""Trains a small certified flow in one or more processes; started as a subprocess by test_distributed.py.

Batches, batch order and probes depend only on (seed, step, sample index), so that neither the number of processes nor
an interruption changes what is computed. The gradients of all processes are compared at every step.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from invattn import invertible_attention
from invattn._files import atomic_write
from invattn.bijections import Composed
from invattn.flows import Flow, StandardNormal
from invattn.logdet import LogDetEstimate, LogDetEstimator, PowerSeries

SEED = 0
KINDS = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
TOKENS, CHANNELS = 4, 4
SAMPLES, BATCH = 32, 8


class BatchProbes(LogDetEstimator):
    """The power series with probes that are a function of (seed, block, step, place in the whole batch).

    Each process passes over the probes of the samples before its own part; as the batch of a step is a function of
    (seed, step), so is the probe of each of its samples.
    """

    def __init__(self, block: int, *, terms: int = 5) -> None:
        self._block = block
        self._terms = terms
        self._step = self._before = 0

    def at(self, step: int, *, before: int) -> None:
        """Say which step comes next, and how many samples of its batch belong to the processes before this one."""
        self._step, self._before = step, before

    def estimate(
        self, branch: Callable[[Tensor], Tensor], x: Tensor, *, lipschitz: Callable[[], float | None] | None = None
    ) -> LogDetEstimate:
        generator = _generator("probe", self._block, self._step)
        torch.randint(0, 2, (self._before, *x.shape[1:]), generator=generator)
        return PowerSeries(terms=self._terms, generator=generator).estimate(branch, x)

    def truncation_bound(self, size: int, lipschitz: float) -> float:
        return PowerSeries(terms=self._terms).truncation_bound(size, lipschitz)


class Run:
    """The state of one process's training: flow, optimizer, step and losses."""

    def __init__(self, rank: int, options: argparse.Namespace) -> None:
        self.rank, self.options = rank, options
        self.checkpoint = options.folder / "checkpoint.pt"
        self.probes = [BatchProbes(block) for block in range(len(KINDS))]
        self.flow = _build(self.probes)
        self.optimizer = torch.optim.Adam(self.flow.parameters(), lr=0.02)
        self.step = 0
        self.losses: list[float] = []
        if options.resume:
            self._load()
        self.model: nn.Module = DistributedDataParallel(self.flow) if options.processes > 1 else self.flow

    def train(self) -> None:
        """Make the steps that are left and save every so many of them."""
        while self.step < self.options.steps:
            loss = self._backward()
            self._compare_gradients()
            self.optimizer.step()
            self.losses.append(loss)
            self.step += 1
            if self.step % self.options.save_every == 0:
                self._save()

    def _backward(self) -> float:
        """Put the gradient of this process's part of the batch into the weights; return the loss of all of it."""
        share = BATCH // self.options.processes
        samples = _batch(self.step)[self.rank * share :][:share]
        for probe in self.probes:
            probe.at(self.step, before=self.rank * share)
        self.optimizer.zero_grad()
        log_prob = self.flow.log_prob if self.options.bypass_forward else self.model
        loss = -log_prob(_data()[samples]).mean()
        if self.step == self.options.hold_at and self.rank == 1:
            self._say("holding")
            signal.pause()
        loss.backward()
        return float(self._gather(loss.detach()).mean())

    def _compare_gradients(self) -> None:
        """End the run unless every process has bit for bit the same gradient."""
        gradients = []
        for name, parameter in self.flow.named_parameters():
            if parameter.grad is None:
                raise RuntimeError(f"{name} has no gradient at step {self.step}")
            gradients.append(parameter.grad.flatten())
        first, *others = self._gather(torch.cat(gradients))
        if not all(torch.equal(first, other) for other in others):
            raise RuntimeError(f"gradients differ between processes at step {self.step}")
        self._say(f"step {self.step}: {1 + len(others)} equal gradients")

    def _gather(self, own: Tensor) -> Tensor:
        """Return the tensors of all processes, stacked."""
        if self.options.processes == 1:
            return own[None]
        everyone = [torch.empty_like(own) for _ in range(self.options.processes)]
        dist.all_gather(everyone, own)
        return torch.stack(everyone)

    def _save(self) -> None:
        if self.rank > 0:
            return
        buffer = io.BytesIO()
        state = {"step": self.step, "losses": self.losses}
        torch.save(state | {"model": self.flow.state_dict(), "optimizer": self.optimizer.state_dict()}, buffer)
        if self.step == self.options.die_at_save:
            _die_instead_of_renaming()
        atomic_write(self.checkpoint, buffer.getvalue())
        self._say(f"saved step {self.step}")

    def _load(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        self.flow.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.losses = state["step"], state["losses"]
        self._say(f"resumed at step {self.step}")

    def _say(self, text: str) -> None:
        sys.stdout.write(f"process {self.rank}: {text}\n")  # one call, so that the lines of two processes do not mix
        sys.stdout.flush()


def _build(probes: list[BatchProbes]) -> Flow:
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        blocks = [
            invertible_attention(CHANNELS, kind=kind, layout="tokens", log_det_estimator=probe)
            for kind, probe in zip(KINDS, probes, strict=True)
        ]
    return Flow(Composed(blocks), StandardNormal((TOKENS, CHANNELS))).double()


def _data() -> Tensor:
    """Return sets of correlated Gaussian tokens: half of the variance is common to a set."""
    shape = (SAMPLES, TOKENS, CHANNELS)
    generator = _generator("data")
    common = torch.randn(SAMPLES, 1, CHANNELS, dtype=torch.float64, generator=generator)
    return 2 * (common.expand(shape) + torch.randn(shape, dtype=torch.float64, generator=generator))


def _batch(step: int) -> Tensor:
    """Return the samples of a step; every epoch visits all of them in a new order."""
    epoch, position = divmod(step, SAMPLES // BATCH)
    order = torch.randperm(SAMPLES, generator=_generator("order", epoch))
    return order[position * BATCH : (position + 1) * BATCH]


def _generator(*purpose: str | int) -> torch.Generator:
    text = "/".join(str(part) for part in (SEED, *purpose))
    return torch.Generator().manual_seed(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big"))


def _die_instead_of_renaming() -> None:
    """Make the next file to be written the last act of this process: complete, but not yet under its name."""

    def die(source: Path, target: Path) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    os.replace = die  # type: ignore[assignment]


def _load_torch() -> None:
    """Load what torch loads at its first use once, before the fork, instead of in each process."""
    torch.func.jvp(torch.sin, (torch.zeros(1),), (torch.ones(1),))
    torch.optim.Adam([torch.zeros(1)])


def _process(rank: int, options: argparse.Namespace) -> None:
    if options.processes == 1:
        Run(rank, options).train()
        return
    meeting_point = (options.folder / f"meeting-{os.getppid()}").resolve().as_uri()
    dist.init_process_group("gloo", init_method=meeting_point, rank=rank, world_size=options.processes)
    try:
        Run(rank, options).train()
    finally:
        dist.destroy_process_group()


def main() -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--save-every", type=int, default=5)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--bypass-forward", action="store_true", help="call a method that DDP does not see")
    parser.add_argument("--hold-at", type=int, help="stop process 1 for ever before the gradient of this step")
    parser.add_argument("--die-at-save", type=int, help="kill process 0 in the middle of the save after this step")
    options = parser.parse_args()
    options.folder.mkdir(exist_ok=True)
    _load_torch()
    torch.multiprocessing.start_processes(_process, (options,), nprocs=options.processes, start_method="fork")


if __name__ == "__main__":
    main()
