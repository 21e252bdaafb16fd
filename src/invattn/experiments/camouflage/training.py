"""Training of networks that say for each pixel whether it belongs to an object, and of the backbone under them."""

from __future__ import annotations

import contextlib
import gc
import re
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as format_safetensors
from torch import Tensor, nn
from torch.nn import functional as F

from invattn._errors import DataError, InvAttnError
from invattn._files import atomic_write, read_json, write_json
from invattn.experiments.camouflage.backbone import ResNetLevels, load_backbone_weights
from invattn.experiments.camouflage.config import CamouflageConfig
from invattn.experiments.camouflage.data import CamouflageData, TrainingPairs
from invattn.experiments.camouflage.network import CamouflageNetwork, LightHead, NetworkConfig
from invattn.experiments.camouflage.record import CamouflageRow
from invattn.experiments.kit.cells import Cell, check_key
from invattn.experiments.kit.output import make_folder
from invattn.experiments.kit.progress import Progress
from invattn.experiments.kit.sources import source_hash
from invattn.experiments.kit.training.companions import on_processes
from invattn.experiments.kit.training.fit import FitResult, fit
from invattn.experiments.kit.training.loader import Batch, ResumableLoader, derive_seed, seeded
from invattn.experiments.kit.training.machines import Worker
from invattn.experiments.kit.training.module import EventLog, ResumableModule
from invattn.experiments.kit.training.optimisation import stepwise
from invattn.hub import certificate_of
from invattn.hub.certificate import hash_json

LR = 3e-3
"""Learning rate of the first pass that trains a backbone."""

LR_DECAY = 0.75
"""Its factor after every pass."""

PREVIEWED = 4
"""Images of the first test set that TensorBoard shows."""

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, kw_only=True)
class CamouflageCell(Cell[CamouflageConfig, CamouflageData, CamouflageRow]):
    """A training of one row and its evaluation.

    Attributes:
        fingerprints: Hash of each set.
    """

    code: ClassVar[str] = "invattn.experiments.camouflage.run"

    fingerprints: Mapping[str, str]

    @property
    def model_config(self) -> NetworkConfig:
        """What the network is built from."""
        return self.config.network_config(self.attention, self.recipe)

    def settings(self) -> dict[str, Any]:
        """Return the options and hashes of the data that the numbers depend on."""
        return self.config.settings(of_a_cell=True) | {"data": dict(self.fingerprints)}

    def written(self, result: CamouflageRow) -> dict[str, Any]:
        """Return the row under its name in the cell's file."""
        return {"row": result.to_json()}

    def read(self, content: dict[str, Any]) -> CamouflageRow:
        """Return the row that a cell's file holds."""
        return CamouflageRow.from_json(content.get("row"))


class MaskTraining(ResumableModule):
    """Minimises the binary cross-entropy between logits and masks, a mean over pixels.

    A batch has four channels in 0..1: red, green, blue, and the mask.

    Args:
        network: Maps images (B, 3, H, W) to logits (B, 1, H, W).
        lr: Learning rate of Adam at the start.
        decay: Factor of the learning rate from epoch to epoch, reached by equal factors at every step.
        steps_per_epoch: Steps in an epoch.
        run_key: Identifies the run; a checkpoint with another key is not resumed.

    References:
        Zha et al. 2021, Sec. F.3.
    """

    def __init__(
        self, network: nn.Module, *, lr: float, decay: float = 1.0, steps_per_epoch: int = 1, run_key: str = ""
    ) -> None:
        super().__init__(run_key=run_key)
        self.network = network
        self._lr, self._decay, self._steps_per_epoch = lr, decay, steps_per_epoch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch; NonFiniteLoss if it is not finite: the weights are then left as they are."""
        logits: Tensor = self.network(batch.images[:, :3])
        loss = F.binary_cross_entropy_with_logits(logits.float(), batch.images[:, 3:])
        self.keep_loss(loss, step=batch.step)
        return loss

    def configure_optimizers(self) -> Any:
        """Return Adam over the weights, and its learning rate of every step."""
        optimizer = torch.optim.Adam(self.network.parameters(), lr=self._lr)
        return stepwise(optimizer, lambda step: self._decay ** (step / self._steps_per_epoch))

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        """Clip nothing, but make no step along a gradient that is not finite."""
        self.check_gradient(self.network)


@torch.no_grad()
def preview(training: MaskTraining, shown: Tensor) -> Tensor:
    """Return one picture, shape (3, 3 H, n W), of n pairs: images, masks and the maps of the network as it is now.

    The network is evaluated as after training, and left as it was.
    """
    network, was_training = training.network, training.network.training
    network.eval()
    images = shown[:, :3].to(training.device)
    maps = torch.sigmoid(network(images).float()).cpu()
    network.train(was_training)
    rows = [shown[:, :3], *(part.expand(-1, 3, -1, -1) for part in (shown[:, 3:], maps))]
    return torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2)


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
    order, varied = derive_seed(cell.seed, "order"), derive_seed(cell.seed, "vary") if config.vary else None
    course = _Course(config.lr, config.lr_decay, config.epochs, order, varied)
    shown = _shown(cell) if config.preview and worker.leads else None
    network = start_network(cell)
    outcome = _fit(cell, network, course, worker, progress, task=f"train {cell.name}", shown=shown)
    network.cpu().eval()
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
    with seeded(cell.seed, "model"):
        network = cell.model_config.build()
    if cell.config.pretrain_epochs:
        load_pretrained(network.backbone, Pretraining(cell.config, cell.data, cell.fingerprints).file("safetensors"))
    else:
        load_backbone_weights(network.backbone, cell.config.backbone_weights)
    return network


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
    name: ClassVar[str] = "backbone"

    @property
    def key(self) -> str:
        """Hash of everything that the weights depend on."""
        data = {"train": self.fingerprints["train"], "torch": torch.__version__, "code": source_hash(__name__)}
        return hash_json(self.config.settings(of_a_cell=True) | data)

    def file(self, kind: str) -> Path:
        """Return the path of ``backbone.<kind>`` among the cells."""
        return self.config.output / "cells" / f"{self.name}.{kind}"

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
        check_key(content, self.key, self.file("json").parent, what="a backbone")
        progress.message("backbone: trained before, skipped")


def load_pretrained(levels: ResNetLevels, path: Path) -> None:
    """Load the weights that :meth:`Pretraining.run` wrote; DataError if they cannot be read."""
    try:
        levels.load_state_dict(parse_safetensors(path.read_bytes()))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise DataError(
            f"{path} holds no weights of this backbone ({type(error).__name__}): delete its folder."
        ) from None


def _train(pretraining: Pretraining, worker: Worker, progress: Progress) -> None:
    """Train in every process; the first one writes."""
    config = pretraining.config
    with seeded(config.seed, "backbone"):
        network = LightHead(ResNetLevels(config.backbone))
    load_backbone_weights(network.backbone, config.backbone_weights)
    order, varied = (derive_seed(config.seed, purpose, "backbone") for purpose in ("order", "vary"))
    course = _Course(LR, LR_DECAY, config.pretrain_epochs, order, varied)
    outcome = _fit(pretraining, network, course, worker, progress, task="train the backbone")
    if outcome.stopped_at is not None:
        raise InvAttnError(f"the backbone's training loss was not finite at step {outcome.stopped_at}; use other data.")
    if worker.leads:
        weights = {name: value.contiguous() for name, value in network.backbone.cpu().state_dict().items()}
        atomic_write(pretraining.file("safetensors"), format_safetensors(weights))
        write_json(pretraining.file("json"), {"key": pretraining.key, "train_loss": outcome.losses})
        pretraining.file("ckpt").unlink(missing_ok=True)


@dataclass(frozen=True)
class _Course:
    """Learning rate and its factor of each epoch, epochs, and the seeds of their order and of variations, if any."""

    lr: float
    decay: float
    epochs: int
    order: int
    varied: int | None


def _fit(
    cell: CamouflageCell | Pretraining,
    network: nn.Module,
    course: _Course,
    worker: Worker,
    progress: Progress,
    *,
    task: str,
    shown: Tensor | None = None,
) -> FitResult:
    """Train a network, with a log if there is something to show."""
    config, train = cell.config, cell.data.train
    loader = ResumableLoader(
        TrainingPairs(train, side=config.image_size, varied=course.varied),
        num_samples=len(train),
        batch_size=config.batch_size,
        epochs=course.epochs,
        seed=course.order,
        rank=worker.rank,
        world_size=worker.world_size,
    )
    every = loader.steps_per_epoch
    module = MaskTraining(network, lr=course.lr, decay=course.decay, steps_per_epoch=every, run_key=cell.key)
    log = []
    if shown is not None:
        folder, draw = config.output / "tensorboard" / cell.name, partial(preview, module, shown)
        log.append(EventLog(folder, draw=draw, name="image, mask, map", every=every))
    return fit(
        module,
        loader,
        checkpoint=cell.file("ckpt"),
        resume=config.resume,
        progress=progress,
        task=task,
        save_interval=60 * config.checkpoint_minutes,
        worker=worker,
        precision=config.precision,
        callbacks=log,
    )


def _shown(cell: CamouflageCell) -> Tensor:
    """Return the images and masks that TensorBoard shows, shape (n, 4, H, W)."""
    first = cell.data.test[0]
    return TrainingPairs(first, side=cell.config.image_size)(torch.arange(min(PREVIEWED, len(first))))


class PeakMemory:
    """Largest memory since its making, in bytes.

    On a GPU, what torch had allocated there; else the resident set of the process, in which Python and its libraries
    (some hundred megabytes) count. Where the system cannot forget an earlier maximum, that one counts too.
    """

    def __init__(self, *, on_gpu: bool) -> None:
        self._on_gpu = on_gpu
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
            return
        with contextlib.suppress(OSError):
            _RESET.write_text("5")  # Linux: forget the largest resident set so far

    def bytes(self) -> int:
        """Return the largest memory up to now."""
        if self._on_gpu:
            return torch.cuda.max_memory_allocated()
        try:
            found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
        except OSError:
            found = None
        if found:
            return 1024 * int(found[1])
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
