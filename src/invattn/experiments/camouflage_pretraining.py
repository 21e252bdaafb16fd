"""Train the backbone under a light head, once for all rows of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as format_safetensors

from invattn._errors import DataError, InvAttnError
from invattn.checkpoints.certificate import hash_json
from invattn.experiments.camouflage_config import CamouflageConfig
from invattn.experiments.camouflage_data import CamouflageData, TrainingPairs
from invattn.experiments.output_folder import make_folder
from invattn.experiments.source_hash import source_hash
from invattn.models import LightHead, load_backbone_weights
from invattn.models.resnet import ResNetLevels
from invattn.records import atomic_write, read_json, write_json
from invattn.training import MaskTraining, Progress, ResumableLoader, Worker, derive_seed, fit, on_processes

LR = 3e-3
"""Learning rate of the first pass."""

LR_DECAY = 0.75
"""Its factor after every pass."""


@dataclass(frozen=True)
class Pretraining:
    """The training of a backbone that every network of a run starts from.

    Attributes:
        config: The user's options.
        data: Of the run; only the training set is seen.
        fingerprints: Hash of each set.
    """

    config: CamouflageConfig
    data: CamouflageData
    fingerprints: Mapping[str, str]

    @property
    def key(self) -> str:
        """Hash of everything that the weights depend on."""
        data = {"train": self.fingerprints["train"], "torch": torch.__version__, "code": source_hash()}
        return hash_json(self.config.cell_settings() | data)

    def file(self, kind: str) -> Path:
        """Return the path of ``backbone.<kind>`` among the cells."""
        return self.config.output / "cells" / f"backbone.{kind}"

    def run(self, progress: Progress) -> None:
        """Train, unless it was done before or is not asked for.

        Raises:
            DataError: If the weights that are there are of other options, data or code.
            InvAttnError: If the loss was not finite.
            Interrupted: On Ctrl-C; the state is saved.
        """
        if not self.config.pretrain_epochs:
            return
        if not self.file("json").exists():
            make_folder(self.config.output / "cells")
            on_processes(partial(_train, self), self.config.machines(), progress)
            return
        content = read_json(self.file("json"))
        if not isinstance(content, dict) or content.get("key") != self.key:
            raise DataError(
                f"{self.file('json').parent} holds a backbone of other options, data or code. Choose another --output, "
                "or delete that folder."
            )
        progress.message("backbone: trained before, skipped")


def load_pretrained(levels: ResNetLevels, path: Path) -> None:
    """Load the weights that :meth:`Pretraining.run` wrote.

    Raises:
        DataError: If they cannot be read.
    """
    try:
        levels.load_state_dict(parse_safetensors(path.read_bytes()))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise DataError(
            f"{path} holds no weights of this backbone ({type(error).__name__}): delete its folder."
        ) from None


def _train(pretraining: Pretraining, worker: Worker, progress: Progress) -> None:
    """Train in every process; the first one writes."""
    config, train = pretraining.config, pretraining.data.train
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "backbone"))
        network = LightHead(ResNetLevels(config.backbone))
    load_backbone_weights(network.backbone, config.backbone_weights)
    loader = ResumableLoader(
        TrainingPairs(train, side=config.image_size, varied=derive_seed(config.seed, "vary", "backbone")),
        num_samples=len(train),
        batch_size=config.batch_size,
        epochs=config.pretrain_epochs,
        seed=derive_seed(config.seed, "order", "backbone"),
        rank=worker.rank,
        world_size=worker.world_size,
    )
    module = MaskTraining(
        network, lr=LR, decay=LR_DECAY, steps_per_epoch=loader.steps_per_epoch, run_key=pretraining.key
    )
    outcome = fit(
        module,
        loader,
        checkpoint=pretraining.file("ckpt"),
        resume=config.resume,
        progress=progress,
        task="train the backbone",
        save_interval=60 * config.checkpoint_minutes,
        worker=worker,
        precision=config.precision,
    )
    if outcome.stopped_at is not None:
        raise InvAttnError(f"the backbone's training loss was not finite at step {outcome.stopped_at}; use other data.")
    if worker.leads:
        weights = {name: value.contiguous() for name, value in network.backbone.cpu().state_dict().items()}
        atomic_write(pretraining.file("safetensors"), format_safetensors(weights))
        write_json(pretraining.file("json"), {"key": pretraining.key, "train_loss": outcome.losses})
        pretraining.file("ckpt").unlink(missing_ok=True)
