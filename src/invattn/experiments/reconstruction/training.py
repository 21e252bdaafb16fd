"""Train one cell, invert the test images, keep the model and the figures' data."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invattn.bijections import Bijection
from invattn.experiments.kit.data.dequantise import DequantisedImages
from invattn.experiments.kit.inversion import InversionReport, invert_images
from invattn.experiments.kit.progress import Progress
from invattn.experiments.kit.training.fit import FitResult, fit
from invattn.experiments.kit.training.loader import Batch, ResumableLoader, derive_seed, seeded
from invattn.experiments.kit.training.module import ResumableModule
from invattn.experiments.reconstruction.cells import CellResult, ReconstructionCell
from invattn.experiments.reconstruction.config import CHANNELS, SQUEEZE
from invattn.experiments.reconstruction.figures import make_figure_data, shown_images
from invattn.hub import certificate_of, save_model
from invattn.recipes import Paper, Released, constrain_after_step

AfterStep = Callable[[torch.optim.Optimizer, nn.Module], object]
"""Registers a constraint on the weights that runs after each update of an optimizer."""


class FixedTargetRegression(ResumableModule):
    """Minimises ``mean (f(x_b) - y_b)^2`` where y is the same random batch in every step.

    No image has a right answer here; training only moves the weights to where a careless constraint breaks. That is
    what the paper's released code does.

    Args:
        model: The map f.
        target: y, with the shape of f(x) for a full batch.
        lr: Learning rate of Adam.
        run_key: Identifies the run; a checkpoint with another key is not resumed.
        after_step: Called once with the optimizer and the model, to register a constraint that runs after each update.

    References:
        Invertible Attention (arXiv 2106.09003), Section F.1.
    """

    target: Tensor

    def __init__(
        self, model: nn.Module, target: Tensor, *, lr: float, run_key: str = "", after_step: AfterStep | None = None
    ) -> None:
        super().__init__(run_key=run_key)
        self.model = model
        self.register_buffer("target", target, persistent=False)
        self._lr = lr
        self._after_step = after_step

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch.

        Raises:
            NonFiniteLoss: If it is NaN or infinite; the weights are then left as they are.
        """
        output: Tensor = self.model(batch.images)
        if output.shape != self.target.shape:
            raise ValueError(
                f"the target must have the shape of the output, {tuple(output.shape)}; got {tuple(self.target.shape)}."
            )
        loss = F.mse_loss(output, self.target)
        self.keep_loss(loss, step=batch.step)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam over the parameters of the model."""
        optimizer = torch.optim.Adam(self.model.parameters(), lr=self._lr)
        if self._after_step is not None:
            self._after_step(optimizer, self.model)
        return optimizer


def test_images(cell: ReconstructionCell) -> DequantisedImages:
    """Return the test images with noise that is the same in every cell."""
    return DequantisedImages(cell.data.test, seed=derive_seed(cell.config.seed, "test noise"))


def run_cell(cell: ReconstructionCell, progress: Progress) -> CellResult:
    """Train and evaluate one cell, write its model and, for the first repeat, the figures' data, then its numbers.

    Args:
        cell: What to run.
        progress: Is told of every step and every batch of test images.

    Raises:
        Interrupted: On Ctrl-C during the training.
        OSError: If a file cannot be written.
    """
    with seeded(cell.seed, "model"):
        model = cell.model_config.build()
    training = _train(cell, model, progress)
    model.eval()
    started = time.monotonic()
    report = _invert(cell, model, progress)
    seconds = time.monotonic() - started
    save_model(model, cell.config.output / "cells" / cell.name, config=cell.model_config)
    if cell.repeat == 0:
        save_model(model, cell.model_folder, config=cell.model_config)
        arrays = make_figure_data(model, cell.model_config, images=test_images(cell), report=report)
        cell.write_figures(arrays | {"losses": np.asarray(training.losses, dtype=np.float64)})
    result = CellResult(
        mse=report.mse.tolist(),
        ssim=report.ssim.tolist(),
        converged=report.converged.tolist(),
        evaluations=report.evaluations.tolist(),
        non_finite=report.non_finite.tolist(),
        losses=training.losses,
        stopped_at=training.stopped_at,
        certificate=certificate_of(cell.model_config.block_of(model)),
        train_seconds=training.seconds,
        test_seconds=seconds,
    )
    cell.finish(result)
    if result.stopped_at is not None:
        progress.message(
            f"{cell.name}: the training loss was not finite at step {result.stopped_at}; the model of the step before "
            "was evaluated."
        )
    return result


def _train(cell: ReconstructionCell, model: Bijection, progress: Progress) -> FitResult:
    """Train on the fixed random target; everything random is a function of the seed."""
    images = DequantisedImages(cell.data.train, seed=derive_seed(cell.seed, "training noise"))
    loader = ResumableLoader(
        images,
        num_samples=len(images),
        batch_size=cell.batch_size,
        epochs=cell.config.chosen_epochs(),
        seed=derive_seed(cell.seed, "order"),
    )
    height, width = images.size
    generator = torch.Generator().manual_seed(derive_seed(cell.seed, "target"))
    target = torch.randn(cell.batch_size, CHANNELS, height // SQUEEZE, width // SQUEEZE, generator=generator)
    after_step = isinstance(cell.form, Paper | Released) and cell.form.enforce == "after_step"
    module = FixedTargetRegression(
        model,
        target,
        lr=cell.config.lr,
        run_key=cell.key,
        after_step=constrain_after_step if after_step else None,
    )
    return fit(
        module,
        loader,
        checkpoint=cell.file("ckpt"),
        resume=cell.config.resume,
        progress=progress,
        task=f"train {cell.name}",
    )


def _invert(cell: ReconstructionCell, model: Bijection, progress: Progress) -> InversionReport:
    count = len(cell.data.test)
    return invert_images(
        model,
        test_images(cell),
        count=count,
        batch_size=cell.batch_size,
        clip=not model.certified,
        keep=shown_images(count),
        progress=progress,
        task=f"invert {cell.name}",
    )
