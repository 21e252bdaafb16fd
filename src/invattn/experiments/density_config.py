"""What a user decides about the density experiment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invattn import RECIPES
from invattn._names import check_name
from invattn.checkpoints import TokenFlowConfig
from invattn.data.point_sets import DIMENSIONS, POINTS
from invattn.experiments.variants import choose_solver
from invattn.flows import TOKEN_MIXERS
from invattn.recipes import Certified, Paper, Recipe, Released, ReleasedGenerative, Unconstrained
from invattn.solvers import Adaptive

if TYPE_CHECKING:  # training needs Lightning, which takes seconds to import
    from invattn.training import Machines, Optimisation

DATASETS = ("sets",)

OPTIMIZERS = ("adam", "adamax")
PRECISIONS = ("fp32", "bf16")
ACCELERATORS = ("auto", "cpu", "gpu")

STRATEGIES = ("ddp",)
"""How several processes train one model: every process has the whole model and a part of each batch."""

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
        optimizer: adam or adamax.
        lr: Largest learning rate.
        warm_up: Steps in which it rises; it falls to 0 along a cosine afterwards.
        clip: Largest norm of the gradient; longer ones are scaled.
        averaging: Decay of the average of weights that is evaluated.
        precision: fp32, or bf16 for products of matrices in bfloat16 during training.
        terms: Terms of the power series of the log-determinant in training.
        test_size: Number of test samples.
        repeats: Trainings of each variant, with seeds ``seed``, ``seed + 1``, ...
        seed: Decides everything that is random.
        checkpoint_minutes: Time between saves of the state of an unfinished training.
        log_every: Steps between samples of the model in the TensorBoard log; 0 writes no log.
        accelerator: What training runs on: cpu, gpu, or auto for a GPU where there is one.
        devices: Processes, each with a GPU of its own where there are some, on every machine.
        nodes: Machines.
        strategy: How processes share a batch: ddp.
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
    optimizer: str = "adam"
    lr: float = 0.005
    warm_up: int = 20
    clip: float = 1.0
    averaging: float = 0.98
    precision: str = "fp32"
    terms: int = 5
    test_size: int = 500
    repeats: int = 1
    seed: int = 0
    checkpoint_minutes: float = 0.5
    log_every: int = 100
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: str = "ddp"
    resume: bool = False

    def __post_init__(self) -> None:
        check_name(self.data, DATASETS, what="data set of the density experiment")
        self.variants()
        for name in ("blocks", "attention_layers", "hidden_channels", "steps", "batch_size", "terms", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if self.test_size < 2:
            raise ValueError(f"test_size must be at least 2; got {self.test_size}.")
        if not self.checkpoint_minutes > 0:
            raise ValueError(f"checkpoint_minutes must be positive; got {self.checkpoint_minutes}.")
        if not 0 < self.lipschitz < 1:
            raise ValueError(f"lipschitz must lie strictly between 0 and 1; got {self.lipschitz}.")
        if self.log_every < 0:
            raise ValueError(f"log_every must be at least 0; got {self.log_every}.")
        check_name(self.precision, PRECISIONS, what="precision")
        check_name(self.strategy, STRATEGIES, what="strategy")
        self.optimisation()
        self.machines()

    def variants(self) -> tuple[tuple[str, str], ...]:
        """Return (attention, recipe) of every row of the table, each once."""
        kinds = _names(self.attention, TOKEN_MIXERS, what="attention of a token flow")
        recipes = _names(self.recipe, RECIPES, what="recipe")
        pairs = [(kind, "certified" if kind in ("uniform", "none") else form) for form in recipes for kind in kinds]
        return tuple(dict.fromkeys(pairs))

    def optimisation(self) -> Optimisation:
        """Return how weights are updated."""
        from invattn.training import Optimisation

        return Optimisation(
            steps=self.steps,
            lr=self.lr,
            warm_up=self.warm_up,
            clip=self.clip,
            averaging=self.averaging,
            optimizer=self.optimizer,
        )

    def machines(self) -> Machines:
        """Return what training runs on."""
        from invattn.training import Machines

        return Machines(devices=self.devices, nodes=self.nodes, accelerator=self.accelerator)

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
        without = ("output", "resume", "checkpoint_minutes", "log_every")
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
