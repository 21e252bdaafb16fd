"""Train one network of camouflaged object detection."""

from __future__ import annotations

import gc
from dataclasses import dataclass

import torch
from lightning.pytorch import Callback

from invattn.checkpoints import certificate_of
from invattn.experiments.camouflage_cells import CamouflageCell
from invattn.experiments.camouflage_data import TrainingPairs
from invattn.experiments.camouflage_pretraining import Pretraining, load_pretrained
from invattn.models import CamouflageNetwork, load_backbone_weights
from invattn.training import FitResult, MaskLog, MaskTraining, Progress, ResumableLoader, Worker, derive_seed, fit
from invattn.training.peak_memory import PeakMemory

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
