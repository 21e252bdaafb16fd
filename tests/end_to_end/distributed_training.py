"""Train on two processes with Lightning: ``python distributed_training.py FOLDER [--stop N] [--resume]``.

Not a test itself: Lightning starts the second process by running this file again.
"""

import argparse
import os
import signal
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from invattn.experiments.kit.training.checkpoint import AtomicCheckpointIO, ResumeCheckpoint
from invattn.experiments.kit.training.fit import quiet_lightning
from invattn.experiments.kit.training.loader import ResumableLoader
from invattn.experiments.reconstruction.training import FixedTargetRegression

RANK = int(os.environ.get("LOCAL_RANK", "0"))
SAMPLES = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))


class Die(Callback):
    """Kills this process, without any clean-up, after a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            os.kill(os.getpid(), signal.SIGKILL)


def draw(index: Tensor, epoch: int) -> Tensor:
    return SAMPLES[index] * (1 + epoch)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stop", type=int, default=-1)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    module = FixedTargetRegression(nn.Linear(4, 2), torch.zeros(2, 2), lr=0.01)
    loader = ResumableLoader(draw, num_samples=20, batch_size=4, epochs=3, seed=1, rank=RANK, world_size=2)
    path = options.folder / "state.ckpt"
    saver = ResumeCheckpoint(path, interval=0.0)
    with quiet_lightning():
        trainer = Trainer(
            accelerator="cpu",
            devices=2,
            strategy=DDPStrategy(process_group_backend="gloo"),
            max_epochs=1,
            plugins=[AtomicCheckpointIO()],
            callbacks=[Die(options.stop), saver],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=options.folder,
        )
        trainer.fit(module, train_dataloaders=loader, ckpt_path=path if options.resume else None)
    torch.save(module.model.state_dict(), options.folder / f"weights-{RANK}.pt")


if __name__ == "__main__":
    main()
