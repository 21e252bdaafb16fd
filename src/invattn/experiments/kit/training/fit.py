"""One training, from its first step or from where it was stopped."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy

from invattn._errors import check_name
from invattn.experiments.kit.progress import Progress
from invattn.experiments.kit.training.checkpoint import AtomicCheckpointIO, ResumeCheckpoint
from invattn.experiments.kit.training.interruption import Interrupted, Interruption
from invattn.experiments.kit.training.loader import ResumableLoader
from invattn.experiments.kit.training.machines import ALONE, Worker
from invattn.experiments.kit.training.module import NonFiniteLoss, ResumableModule
from invattn.experiments.kit.training.optimisation import PRECISIONS, TRAINER_PRECISIONS

BENIGN_WARNINGS: tuple[tuple[str, type[Warning]], ...] = (
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning),
    (r"The '.*_dataloader' does not have many workers", UserWarning),
    (r"(?s)Grad strides do not match bucket view strides.*grad\.sizes\(\) = \[1, ", UserWarning),
)
"""What a plain fit raises: an outdated call of torch, advice on reading files in parallel, and DDP's remark on
gradients of matrices of one row, whose entries lie in memory as they should whatever stride the row has."""

_LOGGERS = ("lightning.pytorch", "lightning.fabric")

_JOIN_WAIT = timedelta(minutes=30)
_WAIT_FOR_MACHINES = timedelta(hours=3)  # another machine waits while the first one measures what it has trained


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's notices, which ``barebones`` leaves, and known benign warnings; other warnings pass."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message, category in BENIGN_WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=category)
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def without_tf32() -> Iterator[None]:
    """Compute convolutions of float32 on a GPU in float32 inside the block.

    torch rounds their factors to TF32, with 10 bits instead of 23, unless told otherwise: what is evaluated is then not
    the certified map, and an inverse cannot be better than about 1e-3. Products of matrices are left alone: torch's
    default for those is float32. Nothing changes on the CPU.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@dataclass(frozen=True)
class FitResult:
    """What a training reports.

    Attributes:
        losses: Mean loss of each epoch; NaN for an epoch that did not finish and for those after it.
        stopped_at: The step with a loss that was not finite, or None if every step was made.
        seconds: Wall time of this call; a resumed training counts only from its resumption.
        cpu_seconds: CPU time of the training over all its processes and resumptions.
        stopped_in: Where that loss first was not finite; empty if nothing was found or every step was made.
    """

    losses: list[float]
    stopped_at: int | None
    seconds: float
    cpu_seconds: float = 0.0
    stopped_in: str = ""

    @property
    def stop_reason(self) -> str | None:
        """Why it stopped before its last step, in words; None if it did not."""
        if self.stopped_at is None:
            return None
        where = f", first in {self.stopped_in}" if self.stopped_in else ""
        return f"the training loss was not finite at step {self.stopped_at}{where}"


def fit(
    module: ResumableModule,
    loader: ResumableLoader,
    *,
    checkpoint: Path,
    resume: bool,
    progress: Progress,
    task: str = "training",
    save_interval: float = 30.0,
    worker: Worker = ALONE,
    precision: str = "fp32",
    callbacks: Sequence[Callback] = (),
    deadline: float = math.inf,
) -> FitResult:
    """Train ``module`` on every batch of ``loader``.

    With several processes each calls this with its own part of the same batches, in a task of
    :func:`~invattn.experiments.kit.training.companions.on_processes`; the gradient, and the loss that is reported, is
    the mean over all.

    Args:
        module: The model with its loss and optimizer; its weights are changed.
        loader: The batches.
        checkpoint: Where the resumable state is kept during training; it stays there at the end.
        resume: Continue from ``checkpoint`` if it exists; the result is bit for bit that of an uninterrupted run.
        progress: Is told every step.
        task: Name of the task for ``progress``.
        save_interval: Seconds between saves.
        worker: Which process of which training this is; by default the only one, on the CPU.
        precision: fp32, or bf16 for products of matrices in bfloat16; weights and sums stay in float32.
        callbacks: Are told every step, before the state is saved.
        deadline: When to stop as at Ctrl-C, on the clock of ``time.monotonic``.

    Returns:
        Losses and time; a loss that is not finite ends the training early and is no error.

    Raises:
        Interrupted: On Ctrl-C and at the deadline; the state is saved.
        DataError: If ``checkpoint`` is damaged, or of another training or model.
        ValueError: If the precision is unknown.
        OSError: If ``checkpoint`` cannot be written.
    """
    check_name(precision, PRECISIONS, what="precision")
    started = time.monotonic()
    stopped: NonFiniteLoss | None = None
    progress.begin(task, total=len(loader))
    try:
        with Interruption(deadline=deadline) as interruption:
            saver = ResumeCheckpoint(checkpoint, interval=save_interval, interruption=interruption)
            told = [_StepReporter(progress), *callbacks, saver]
            _run(module, loader, checkpoint, resume=resume, told=told, where=_where(worker, precision))
            if interruption.requested:
                raise Interrupted(f"stopped at the end of training; the state is in {checkpoint}.")
    except NonFiniteLoss as error:
        stopped = error
    finally:
        progress.end()
    return _result(module, loader, stopped, seconds=time.monotonic() - started)


def _run(
    module: ResumableModule,
    loader: ResumableLoader,
    checkpoint: Path,
    *,
    resume: bool,
    told: list[Callback],
    where: dict[str, Any],
) -> None:
    """Run a trainer that writes no logs and validates nothing; its files are the callbacks' own."""
    module.train()
    try:
        with quiet_lightning(), without_tf32():
            trainer = Trainer(
                **where,
                max_epochs=1,
                default_root_dir=checkpoint.parent,
                plugins=[AtomicCheckpointIO(check=module.check_checkpoint)],
                callbacks=told,
                barebones=True,
                use_distributed_sampler=False,
            )
            source = checkpoint if resume and checkpoint.exists() else None
            trainer.fit(module, train_dataloaders=loader, ckpt_path=source)
    except (KeyboardInterrupt, SystemExit):
        # Lightning turns a KeyboardInterrupt into SystemExit(1); the last save is older than the last step.
        raise Interrupted(f"stopped at once; the state of the last save is in {checkpoint}.") from None


def _where(worker: Worker, precision: str) -> dict[str, Any]:
    """Return the arguments of a trainer that decide where it runs, and in which precision."""
    machines = worker.machines
    options: dict[str, Any] = {
        "accelerator": "cuda" if machines.on_gpu else "cpu",
        "devices": machines.devices,
        "precision": TRAINER_PRECISIONS[precision],
    }
    if worker.world_size == 1:
        return options
    # Buffers are functions of the weights, which all processes share: they are sent once, at the start.
    strategy = DDPStrategy(
        cluster_environment=TorchElasticEnvironment(),
        process_group_backend="nccl" if machines.on_gpu else "gloo",
        timeout=_JOIN_WAIT if machines.nodes == 1 else _WAIT_FOR_MACHINES,
        forward_sync_buffers=False,
    )
    return options | {"num_nodes": machines.nodes, "strategy": strategy}


def _result(
    module: ResumableModule, loader: ResumableLoader, stopped: NonFiniteLoss | None, *, seconds: float
) -> FitResult:
    """Return the mean loss of each epoch, NaN where a step is missing, and the times."""
    size = loader.steps_per_epoch
    epochs = [module.step_losses[start : start + size] for start in range(0, len(loader), size)]
    losses = [sum(epoch) / size if len(epoch) == size else math.nan for epoch in epochs]
    step, part = (None, "") if stopped is None else (stopped.step, stopped.part)
    return FitResult(losses, step, seconds, cpu_seconds=module.cpu_seconds, stopped_in=part)


class _StepReporter(Callback):
    """Tells the progress every step."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step:
            self._progress.advance(trainer.global_step, note="resumed")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, ResumableModule)
        self._progress.advance(note=pl_module.note)
