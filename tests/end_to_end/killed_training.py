"""Train once undisturbed and once killed five times: ``python killed_training.py FOLDER``.

Not a test itself. Every training is a forked process, so that the imports are paid for once, and every kill is a
SIGKILL at a place and a step that a seed decides. Prints what happened as JSON.
"""

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from invattn.bijections import initialize
from invattn.experiments.density.points import PointSets
from invattn.experiments.density.training import MaximumLikelihood
from invattn.experiments.kit.progress import SilentProgress
from invattn.experiments.kit.training.fit import fit
from invattn.experiments.kit.training.loader import ResumableLoader
from invattn.experiments.kit.training.optimisation import OPTIMIZERS, Optimisation
from invattn.flows import Flow, StandardNormal, token_flow
from invattn.logdet import RussianRoulette

EPOCHS, SAMPLES, BATCH = 3, 32, 4
STEPS = EPOCHS * SAMPLES // BATCH
PLACES = ("loader", "backward", "average", "half_saved", "before_the_rename")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Training:
    """One training, with a trap at a place and a step; no trap where the place is None."""

    def __init__(self, state: Path, optimizer: str, place: str | None = None, step: int = 0) -> None:
        self.state, self.place, self.step = state, place, step
        torch.manual_seed(0)
        estimator = RussianRoulette(exact_terms=1, p=0.5)
        chain = token_flow(2, attention="gaussian", blocks=1, attention_layers=1, log_det_estimator=estimator)
        initialize(chain, PointSets(seed=9)(torch.arange(16)))
        self.optimisation = Optimisation(steps=STEPS, warm_up=3, averaging=0.9, optimizer=optimizer)
        self.module = MaximumLikelihood(Flow(chain, StandardNormal((32, 2))), optimisation=self.optimisation, seed=2)

    def due(self, place: str) -> bool:
        return self.place == place and len(self.module.step_losses) >= self.step

    def run(self, resume: bool) -> None:
        self.set_traps()
        torch.rand(self.step)  # every session finds the default generator in another state, which must not matter
        loader = ResumableLoader(self.sample, num_samples=SAMPLES, batch_size=BATCH, epochs=EPOCHS, seed=1)
        # Every step is saved, but for one session that loses all of its steps.
        interval = 1e9 if self.place == "loader" else 0.0
        fit(
            self.module,
            loader,
            checkpoint=self.state,
            resume=resume,
            progress=SilentProgress(),
            save_interval=interval,
        )

    def resume(self) -> None:
        self.run(resume=True)

    def sample(self, index: Tensor, epoch: int) -> Tensor:
        if self.due("loader"):
            die()
        return PointSets(seed=1)(index)

    def set_traps(self) -> None:
        first = next(self.module.flow.parameters())
        first.register_hook(lambda gradient: die() if self.due("backward") else gradient)  # type: ignore[no-untyped-call]
        average, write, rename = Optimisation.average, os.write, os.replace

        def averaging(own: Optimisation, mean: nn.Module, now: nn.Module, *, step: int) -> None:
            if self.due("average"):
                die()
            average(own, mean, now, step=step)

        def writing(descriptor: int, data: Any) -> int:
            if self.due("half_saved") and bytes(data[:2]) == b"PK":
                write(descriptor, data[: len(data) // 2])
                die()
            return write(descriptor, data)

        def renaming(source: Any, target: Any) -> None:
            if self.due("before_the_rename"):
                die()
            rename(source, target)

        Optimisation.average = averaging  # type: ignore[method-assign,assignment]
        os.write = writing
        os.replace = renaming


def forked(task: Callable[[], None]) -> int:
    """Do a task in a process of its own and return its status: 0, or the negative number of the signal."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            task()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def at(state: Path) -> int:
    """Return how many steps a saved state has made."""
    return int(torch.load(state, weights_only=True)["global_step"]) if state.exists() else 0


def train_with_kills(own: Path, optimizer: str) -> list[dict[str, Any]]:
    """Train undisturbed, then with five kills and a last session; return what happened at each kill."""
    own.mkdir(parents=True)
    whole, state = own / "whole.ckpt", own / "killed.ckpt"
    assert forked(lambda: Training(whole, optimizer).run(resume=False)) == 0
    moments = random.Random(0)
    places, steps = moments.sample(PLACES, 5), sorted(moments.sample(range(1, STEPS - 1), 5))
    kills = []
    for place, step in zip(places, steps, strict=True):
        status = forked(Training(state, optimizer, place, step).resume)
        leftovers = list(own.glob(".*.tmp"))
        kills.append({"place": place, "step": step, "status": status, "saved": at(state), "tmp": len(leftovers)})
        for path in leftovers:
            path.unlink()
    assert forked(Training(state, optimizer).resume) == 0
    return kills


def main() -> None:
    folder = Path(sys.argv[1])
    sys.stdout.write(json.dumps({name: train_with_kills(folder / name, name) for name in OPTIMIZERS}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
