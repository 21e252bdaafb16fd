"""One training, from its first step or from where it was stopped."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from invattn._errors import check_name
from invattn.experiments.kit.progress import Progress
from invattn.experiments.kit.training.checkpoint import AtomicCheckpointIO, ResumeCheckpoint
from invattn.experiments.kit.training.interruption import Interrupted, watch_interrupts
from invattn.experiments.kit.training.loader import ResumableLoader
from invattn.experiments.kit.training.machines import ALONE, Worker, trainer_options
from invattn.experiments.kit.training.module import NonFiniteLoss, ResumableModule

BENIGN_WARNINGS: tuple[tuple[str, type[Warning]], ...] = (
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning),
    (r"The '.*_dataloader' does not have many workers", UserWarning),
    (r"(?s)Grad strides do not match bucket view strides.*grad\.sizes\(\) = \[1, ", UserWarning),
)
"""What a plain fit raises: an outdated call of torch, advice on reading files in parallel, and DDP's remark on
gradients of matrices of one row, whose entries lie in memory as they should whatever stride the row has."""

_LOGGERS = ("lightning.pytorch", "lightning.fabric")


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's notices and the known benign warnings inside the block; other warnings pass."""
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


PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
"""Lightning's names of the precisions in which training evaluates a model."""


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

    With several processes each calls this with its own part of the same batches; the gradient, and the loss that is
    reported, is the mean over all.

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
    check_name(precision, tuple(PRECISIONS), what="precision")
    started = time.monotonic()
    stopped_at, stopped_in = None, ""
    module.train()
    progress.begin(task, total=len(loader))
    try:
        with quiet_lightning(), without_tf32(), watch_interrupts(deadline=deadline) as interruption:
            saver = ResumeCheckpoint(checkpoint, interval=save_interval, interruption=interruption)
            where = trainer_options(worker) | {"precision": PRECISIONS[precision]}
            told = [_StepReporter(progress), *callbacks, saver]
            trainer = _trainer(checkpoint.parent, callbacks=told, check=module.check_checkpoint, where=where)
            source = checkpoint if resume and checkpoint.exists() else None
            trainer.fit(module, train_dataloaders=loader, ckpt_path=source)
            if interruption.requested:
                raise Interrupted(f"stopped at the end of training; the state is in {checkpoint}.")
    except NonFiniteLoss as error:
        stopped_at, stopped_in = error.step, error.part
    except (KeyboardInterrupt, SystemExit):
        # Lightning turns a KeyboardInterrupt into SystemExit(1); the last save is older than the last step.
        raise Interrupted(f"stopped at once; the state of the last save is in {checkpoint}.") from None
    finally:
        progress.end()
    losses = _epoch_losses(module.step_losses, loader)
    return FitResult(
        losses=losses,
        stopped_at=stopped_at,
        seconds=time.monotonic() - started,
        cpu_seconds=module.cpu_seconds,
        stopped_in=stopped_in,
    )


def _trainer(
    folder: Path, *, callbacks: list[Callback], check: Callable[[dict[str, Any]], None], where: dict[str, Any]
) -> Trainer:
    """Return a trainer that only runs the loop: no logs, no folders, no validation, no files but the callbacks' own."""
    return Trainer(
        **where,
        max_epochs=1,
        default_root_dir=folder,
        plugins=[AtomicCheckpointIO(check=check)],
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )


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


def _epoch_losses(step_losses: list[float], loader: ResumableLoader) -> list[float]:
    """Return the mean of each epoch, NaN where a step is missing."""
    size = loader.steps_per_epoch
    epochs = [step_losses[start : start + size] for start in range(0, len(loader), size)]
    return [sum(losses) / size if len(losses) == size else math.nan for losses in epochs]
