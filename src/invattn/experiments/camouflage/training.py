"""Train one network of camouflaged object detection."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import Callback
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as format_safetensors

from invattn._errors import DataError, InvAttnError
from invattn._files import atomic_write, read_json, write_json
from invattn.experiments.camouflage.backbone import ResNetLevels, load_backbone_weights
from invattn.experiments.camouflage.cells import CamouflageCell
from invattn.experiments.camouflage.config import CamouflageConfig
from invattn.experiments.camouflage.data import CamouflageData, TrainingPairs
from invattn.experiments.camouflage.network import CamouflageNetwork, LightHead
from invattn.experiments.camouflage.segmentation import MaskLog, MaskTraining, PeakMemory
from invattn.experiments.kit.progress import Progress
from invattn.experiments.kit.run import make_folder, source_hash
from invattn.experiments.kit.training.companions import on_processes
from invattn.experiments.kit.training.fit import FitResult, fit
from invattn.experiments.kit.training.loader import ResumableLoader, derive_seed
from invattn.experiments.kit.training.machines import Worker
from invattn.hub import certificate_of
from invattn.hub.certificate import hash_json

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


PREVIEWED = 4
"""Images of the first test set that TensorBoard shows."""


@dataclass(frozen=True)
class TrainedNetwork:
    """What a training returns.

    Attributes:
        network: In eval mode, on the CPU.
        outcome: Losses and time.
        peak_memory: Largest memory of this process during the training, in bytes.
        parameters: Number of trained numbers.
        certificate: ``{"bound", "norm"}`` of the least contractive attention module, or None.
    """

    network: CamouflageNetwork
    outcome: FitResult
    peak_memory: int
    parameters: int
    certificate: dict[str, object] | None


def train_network(cell: CamouflageCell, worker: Worker, progress: Progress) -> TrainedNetwork:
    """Train one network, in every process.

    Raises:
        Interrupted: On Ctrl-C; the state is saved.
        DataError: If the state to resume from is damaged or of another run, or weights cannot be had.
    """
    config = cell.config
    gc.collect()  # a trainer of an earlier row is cyclic garbage; what it holds is no memory of this one
    peak = PeakMemory(on_gpu=config.machines().on_gpu)
    varied = derive_seed(cell.seed, "vary") if config.vary else None
    pairs = TrainingPairs(cell.data.train, side=config.image_size, varied=varied)
    loader = ResumableLoader(
        pairs,
        num_samples=len(cell.data.train),
        batch_size=config.batch_size,
        epochs=config.epochs,
        seed=derive_seed(cell.seed, "order"),
        rank=worker.rank,
        world_size=worker.world_size,
    )
    module = MaskTraining(
        start_network(cell),
        lr=config.lr,
        decay=config.lr_decay,
        steps_per_epoch=loader.steps_per_epoch,
        run_key=cell.key,
    )
    outcome = fit(
        module,
        loader,
        checkpoint=cell.file("ckpt"),
        resume=config.resume,
        progress=progress,
        task=f"train {cell.name}",
        save_interval=60 * config.checkpoint_minutes,
        worker=worker,
        precision=config.precision,
        callbacks=_log(cell, worker, every=loader.steps_per_epoch),
    )
    network = module.network.cpu().eval()
    assert isinstance(network, CamouflageNetwork)
    found = certificate_of(network)
    return TrainedNetwork(
        network=network,
        outcome=outcome,
        peak_memory=peak.bytes(),
        parameters=sum(weight.numel() for weight in network.parameters()),
        certificate=None if found is None else {name: found[name] for name in ("bound", "norm")},
    )


def start_network(cell: CamouflageCell) -> CamouflageNetwork:
    """Return the network before its first step: weights drawn from the seed, and those that the backbone learnt."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(cell.seed, "model"))
        network = cell.network_config.build()
    if cell.config.pretrain_epochs:
        load_pretrained(network.backbone, Pretraining(cell.config, cell.data, cell.fingerprints).file("safetensors"))
    else:
        load_backbone_weights(network.backbone, cell.config.backbone_weights)
    return network


def _log(cell: CamouflageCell, worker: Worker, *, every: int) -> list[Callback]:
    if not (cell.config.preview and worker.leads):
        return []
    first = cell.data.test[0]
    shown = TrainingPairs(first, side=cell.config.image_size)(torch.arange(min(PREVIEWED, len(first))))
    return [MaskLog(cell.config.output / "tensorboard" / cell.name, shown=shown, every=every)]
