"""Train a flow alone and on two processes: ``python distributed_likelihood.py FOLDER [--lose-companion]``.

Not a test itself: the second process imports this file again.
"""

import argparse
import os
import signal
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from invattn.bijections import initialize
from invattn.experiments.density.points import PointSets
from invattn.experiments.density.training import MaximumLikelihood
from invattn.experiments.kit.progress import Progress, SilentProgress
from invattn.experiments.kit.training.companions import on_processes
from invattn.experiments.kit.training.fit import fit
from invattn.experiments.kit.training.loader import ResumableLoader
from invattn.experiments.kit.training.machines import Machines, Worker
from invattn.experiments.kit.training.optimisation import Optimisation
from invattn.flows import Flow, StandardNormal, token_flow
from invattn.logdet import RussianRoulette

STEPS, BATCH = 20, 8


def make_flow(worker: Worker) -> Flow:
    torch.manual_seed(0)
    estimator = RussianRoulette(exact_terms=2, p=0.6, shard=worker.shard)
    chain = token_flow(2, attention="gaussian", blocks=1, attention_layers=2, log_det_estimator=estimator)
    initialize(chain, PointSets(seed=9)(torch.arange(64)))
    return Flow(chain, StandardNormal((32, 2)))


def train(folder: Path, lose_companion: bool, worker: Worker, progress: Progress) -> None:
    def sample(index: Tensor, epoch: int) -> Tensor:
        if lose_companion and worker.rank == 1 and len(module.step_losses) == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return PointSets(seed=1)(index)

    torch.rand(3 * worker.rank)  # the state of the default generator must not matter
    module = MaximumLikelihood(
        make_flow(worker), optimisation=Optimisation(steps=STEPS, lr=0.02, warm_up=2, averaging=0.9), seed=3
    )
    loader = ResumableLoader(
        sample,
        num_samples=STEPS * BATCH,
        batch_size=BATCH,
        epochs=1,
        seed=1,
        rank=worker.rank,
        world_size=worker.world_size,
    )
    name = f"{worker.rank}-of-{worker.world_size}"
    fit(module, loader, checkpoint=folder / f"{worker.world_size}.ckpt", resume=False, progress=progress, worker=worker)
    state = {"losses": module.step_losses, "flow": module.flow.state_dict(), "average": module.average.state_dict()}
    torch.save(state, folder / f"{name}.pt")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lose-companion", action="store_true")
    options = parser.parse_args()
    task = partial(train, options.folder, options.lose_companion)
    for devices in (2,) if options.lose_companion else (1, 2):
        on_processes(task, Machines(devices=devices), SilentProgress())


if __name__ == "__main__":
    main()
