"""Batches as a function of the step: a loader that can continue anywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a seed, 0 .. 2^63 - 1, that depends on every argument and on nothing else, whatever the machine.

    Adding numbers to a seed makes runs share random streams (repeat 1 of seed 0 is repeat 0 of seed 1); hashing the
    purpose with it does not.

    Args:
        seed: The seed of the run.
        purpose: What the stream is for, for example ``"order", 3`` for the batch order of epoch 3.
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@contextmanager
def seeded(seed: int, *purpose: str | int, near: Tensor | None = None) -> Iterator[None]:
    """Draw from torch's default generators as a function of seed and purpose inside the block; then put them back.

    The generator of the device of ``near`` is one of them; None: that of the CPU alone.
    """
    with torch.random.fork_rng(devices=[near.device] if near is not None and near.is_cuda else []):
        torch.manual_seed(derive_seed(seed, *purpose))
        yield


class Batch(NamedTuple):
    """One training batch.

    Attributes:
        images: What ``sample`` returned for this batch.
        samples: Numbers of these samples, with shape (B,), int64.
        step: The step this batch belongs to, counted from 0 over the whole run.
    """

    images: Tensor
    samples: Tensor
    step: int


class ResumableLoader:
    """Yields every batch of a run, all epochs in one pass, from the step in its state.

    Each epoch visits the samples in a new random order and drops the last incomplete batch. The batch of a step depends
    only on the seed, the step and the samples, never on the batches drawn before, so a loader that starts at step 700
    yields what an uninterrupted one yields there. One pass over all epochs keeps a trainer in a single long "epoch":
    there is one way to resume, not one for the middle and one for the border of an epoch.

    Args:
        sample: Returns the images of an index (shape (B,)) in an epoch; must depend on nothing else.
        num_samples: Size of the training set.
        batch_size: Samples in a batch, over all processes.
        epochs: Passes over the training set.
        seed: Decides the order.
        rank: This process, 0 .. ``world_size`` - 1.
        world_size: Number of processes; each gets an equal, consecutive part of every batch.
        steps: Batches after which to stop, at most those of all epochs; None: after those.

    Raises:
        ValueError: If there are fewer samples than one batch needs, or the batch cannot be divided.
    """

    def __init__(
        self,
        sample: Callable[[Tensor, int], Tensor],
        *,
        num_samples: int,
        batch_size: int,
        epochs: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        steps: int | None = None,
    ) -> None:
        if not 1 <= batch_size <= num_samples:
            raise ValueError(
                f"batch_size must be between 1 and the number of samples, {num_samples}; got {batch_size}."
            )
        if batch_size % world_size:
            raise ValueError(f"batch_size {batch_size} cannot be divided among {world_size} processes.")
        self._sample, self._num_samples, self._batch_size, self._seed = sample, num_samples, batch_size, seed
        self._part = slice(rank * batch_size // world_size, (rank + 1) * batch_size // world_size)
        all_steps = self.steps_per_epoch * epochs
        self._steps = all_steps if steps is None else min(steps, all_steps)
        self._next_step = 0

    @property
    def steps_per_epoch(self) -> int:
        """Number of full batches in one epoch."""
        return self._num_samples // self._batch_size

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[Batch]:
        order, order_epoch = torch.empty(0, dtype=torch.int64), -1
        while self._next_step < len(self):
            step = self._next_step
            epoch, position = divmod(step, self.steps_per_epoch)
            if epoch != order_epoch:
                order, order_epoch = self._order(epoch), epoch
            index = order[position * self._batch_size : (position + 1) * self._batch_size][self._part]
            self._next_step = step + 1
            yield Batch(self._sample(index, epoch), index, step)

    def state_dict(self) -> dict[str, int]:
        """Return the step that comes next."""
        return {"next_step": self._next_step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at the step of ``state``."""
        self._next_step = int(state["next_step"])

    def _order(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "order", epoch))
        return torch.randperm(self._num_samples, generator=generator)
