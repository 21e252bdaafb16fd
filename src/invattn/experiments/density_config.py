"""What a user decides about the density experiment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invattn import RECIPES
from invattn._names import check_name
from invattn.checkpoints import TokenFlowConfig
from invattn.data.point_sets import DIMENSIONS, POINTS
from invattn.experiments.variants import choose_solver
from invattn.flows import TOKEN_MIXERS
from invattn.recipes import Certified, Paper, Recipe, Released, ReleasedGenerative, Unconstrained
from invattn.solvers import Adaptive

DATASETS = ("sets",)

ACCURATE = Adaptive(refine=2)
"""Solver of certified blocks: to the tolerance of the precision at hand, and two updates further."""

_UNCERTIFIED: tuple[type[Recipe], ...] = (Paper, Released, ReleasedGenerative, Unconstrained)


@dataclass(frozen=True, kw_only=True)
class DensityConfig:
    """Options of ``invattn density train``.

    Attributes:
        output: Folder for the results.
        data: ``sets``: generated sets of 32 points in the plane.
        attention: What stands between the tokens, separated by commas; ``all`` is every kind and control.
        recipe: Form of the attention, separated by commas; the controls ``uniform`` and ``none`` are always certified.
        blocks: How often attention and MLP are repeated.
        attention_layers: Attention blocks before each MLP.
        hidden_channels: Width of both hidden layers of each MLP.
        lipschitz: c, the bound of certified blocks and the coefficient of the constrained maps of the others.
        steps: Training steps.
        batch_size: Samples in a batch; every one is new.
        lr: Largest learning rate of Adam.
        warm_up: Steps in which it rises; it falls to 0 along a cosine afterwards.
        averaging: Decay of the average of weights that is evaluated.
        terms: Terms of the power series of the log-determinant in training.
        test_size: Number of test samples.
        repeats: Trainings of each variant, with seeds ``seed``, ``seed + 1``, ...
        seed: Decides everything that is random.
        checkpoint_minutes: Time between saves of the state of an unfinished training.
        resume: Continue an interrupted training.

    Raises:
        ValueError: If a name is unknown or a number is out of range.
    """

    output: Path
    data: str = "sets"
    attention: str = "embedded_gaussian,pointwise"
    recipe: str = "certified"
    blocks: int = 4
    attention_layers: int = 3
    hidden_channels: int = 32
    lipschitz: float = 0.99
    steps: int = 250
    batch_size: int = 64
    lr: float = 0.005
    warm_up: int = 20
    averaging: float = 0.98
    terms: int = 5
    test_size: int = 500
    repeats: int = 1
    seed: int = 0
    checkpoint_minutes: float = 0.5
    resume: bool = False

    def __post_init__(self) -> None:
        check_name(self.data, DATASETS, what="data set of the density experiment")
        self.variants()
        for name in ("blocks", "attention_layers", "hidden_channels", "steps", "batch_size", "terms", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if self.test_size < 2:
            raise ValueError(f"test_size must be at least 2; got {self.test_size}.")
        if self.warm_up < 0:
            raise ValueError(f"warm_up must be at least 0; got {self.warm_up}.")
        if not self.checkpoint_minutes > 0:
            raise ValueError(f"checkpoint_minutes must be positive; got {self.checkpoint_minutes}.")
        if not self.lr > 0:
            raise ValueError(f"lr must be positive; got {self.lr}.")
        if not 0 < self.lipschitz < 1:
            raise ValueError(f"lipschitz must lie strictly between 0 and 1; got {self.lipschitz}.")
        if not 0 <= self.averaging < 1:
            raise ValueError(f"averaging must be at least 0 and below 1; got {self.averaging}.")

    def variants(self) -> tuple[tuple[str, str], ...]:
        """Return (attention, recipe) of every row of the table, each once."""
        kinds = _names(self.attention, TOKEN_MIXERS, what="attention of a token flow")
        recipes = _names(self.recipe, RECIPES, what="recipe")
        pairs = [(kind, "certified" if kind in ("uniform", "none") else form) for form in recipes for kind in kinds]
        return tuple(dict.fromkeys(pairs))

    def model_config(self, attention: str, recipe: str) -> TokenFlowConfig:
        """Return what the flow of a variant is built from."""
        forms = {form.name: form for form in _UNCERTIFIED}
        form = Certified(mean_shift=True) if recipe == "certified" else forms[recipe]()
        return TokenFlowConfig(
            tokens=POINTS,
            channels=DIMENSIONS,
            attention=attention,
            blocks=self.blocks,
            attention_layers=self.attention_layers,
            hidden_channels=(self.hidden_channels, self.hidden_channels),
            recipe=form,
            lipschitz=self.lipschitz,
            solver=ACCURATE if recipe == "certified" else choose_solver(form, name="default", iterations=None),
        )

    def settings(self) -> dict[str, Any]:
        """Return every option that may change the numbers, as run; no paths."""
        without = ("output", "resume", "checkpoint_minutes")
        return {name: value for name, value in vars(self).items() if name not in without}

    def command(self) -> str:
        """Return a command line that repeats the run, with a placeholder for the folder of this machine."""
        options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in self.settings().items())
        return f"invattn density train {options} --output OUT"


def _names(text: str, known: tuple[str, ...], *, what: str) -> tuple[str, ...]:
    names: list[str] = []
    for part in text.split(","):
        name = check_name(part.strip(), (*known, "all"), what=what)
        names.extend(known if name == "all" else [name])
    return tuple(dict.fromkeys(names))
