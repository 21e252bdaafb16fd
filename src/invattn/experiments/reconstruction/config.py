"""One attention kind in one recipe: which model that is, and how it is inverted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from invattn import ATTENTION_KINDS, KINDS, RECIPES
from invattn._errors import check_name
from invattn.experiments.kit.options import IMAGE_SIZES, ORIGINAL, TEST_SIZE, TRAIN_SIZE
from invattn.experiments.kit.solver import choose_solver
from invattn.hub import ModelConfig
from invattn.recipes import Certified, Paper, Recipe, Released, ReleasedGenerative, Unconstrained

LARGEST_LR = 1e6
SOLVERS = ("default", "picard", "anderson", "adaptive", "newton_krylov")


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """Options of the reconstruction experiment; the defaults are the paper's protocol for 32x32 images.

    Attributes:
        output: Folder for the results.
        data: ``photos``, ``cifar10``, ``svhn``, ``celeba``, or a folder of images.
        data_root: Where the publishers' files of ``data`` lie; None downloads them.
        attention: Kinds, separated by commas, or ``all`` for the paper's four.
        recipe: Recipes, separated by commas, or ``all``.
        epochs: Passes over the training images; None is 100, and 1 at the original size.
        train_size: Number of training images wanted.
        test_size: Number of test images wanted.
        repeats: Trainings of each cell, with seeds ``seed``, ``seed + 1``, ...
        image_size: ``32`` or ``original``.
        lr: Learning rate of Adam.
        batch_size: Images in a batch; None is 64, and 1 at the original size.
        lipschitz: c, the bound of certified blocks and the coefficient of the constrained layers of the others.
        solver: ``default``, ``picard``, ``anderson``, ``adaptive`` or ``newton_krylov``.
        iterations: Largest number of solver steps; uncertified recipes make exactly that many of ``picard``, their
            ``default``. None is 100 for ``paper``, 50 for the other uncertified recipes, and the solver's own default
            for ``certified`` and for the other solvers.
        seed: Decides everything that is random.
        resume: Continue an interrupted training.

    Raises:
        ValueError: If a name is unknown or a number is out of range.
    """

    output: Path
    data: str = "photos"
    data_root: Path | None = None
    attention: str = "all"
    recipe: str = "certified"
    epochs: int | None = None
    train_size: int = TRAIN_SIZE
    test_size: int = TEST_SIZE
    repeats: int = 3
    image_size: str = "32"
    lr: float = 0.003
    batch_size: int | None = None
    lipschitz: float = 0.9
    solver: str = "default"
    iterations: int | None = None
    seed: int = 0
    resume: bool = False

    def __post_init__(self) -> None:
        check_name(self.image_size, IMAGE_SIZES, what="image size")
        check_name(self.solver, SOLVERS, what="solver")
        self.attention_names()
        self.recipe_names()
        for name in ("epochs", "train_size", "test_size", "repeats", "batch_size", "iterations"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}.")
        if not 0 < self.lr <= LARGEST_LR:
            raise ValueError(f"lr must be positive and at most {LARGEST_LR:g}; got {self.lr}.")
        if not 0 < self.lipschitz < 1:
            raise ValueError(f"lipschitz must lie strictly between 0 and 1; got {self.lipschitz}.")

    def attention_names(self) -> tuple[str, ...]:
        """Return the kinds in the order given, each once."""
        return _names(self.attention, known=KINDS, everything=ATTENTION_KINDS, what="attention")

    def recipe_names(self) -> tuple[str, ...]:
        """Return the recipes in the order given, each once."""
        return _names(self.recipe, known=RECIPES, everything=RECIPES, what="recipe")

    def chosen_epochs(self) -> int:
        """Return the epochs, where the user left them open the paper's."""
        if self.epochs is not None:
            return self.epochs
        return 1 if self.image_size == ORIGINAL else 100

    def chosen_batch_size(self) -> int:
        """Return the batch size, where the user left it open the paper's."""
        if self.batch_size is not None:
            return self.batch_size
        return 1 if self.image_size == ORIGINAL else 64

    def pixels(self) -> int | Literal["original"]:
        """Return the image size as the data layer takes it."""
        return "original" if self.image_size == ORIGINAL else int(self.image_size)

    def settings(self) -> dict[str, Any]:
        """Return every option that may change the numbers, as run; no paths."""
        return {
            "attention": list(self.attention_names()),
            "recipe": list(self.recipe_names()),
            "epochs": self.chosen_epochs(),
            "train_size": self.train_size,
            "test_size": self.test_size,
            "repeats": self.repeats,
            "image_size": self.image_size,
            "lr": self.lr,
            "batch_size": self.chosen_batch_size(),
            "lipschitz": self.lipschitz,
            "solver": self.solver,
            "iterations": self.iterations,
            "seed": self.seed,
        }

    def command(self) -> str:
        """Return a command line that repeats the run, with placeholders for the folders of this machine."""
        options = {"data": self.data if self.data_root is None else f"{self.data} --data-root DATA"}
        options |= {"attention": ",".join(self.attention_names()), "recipe": ",".join(self.recipe_names())}
        for name, value in self.settings().items():
            if name not in options and value is not None:
                options[name.replace("_", "-")] = str(value)
        return " ".join(
            ["invattn reconstruct", *(f"--{name} {value}" for name, value in options.items()), "--output OUT"]
        )


def _names(text: str, *, known: tuple[str, ...], everything: tuple[str, ...], what: str) -> tuple[str, ...]:
    """Split a comma list, check each name, and replace ``all``."""
    names: list[str] = []
    for part in text.split(","):
        name = check_name(part.strip(), (*known, "all"), what=what)
        names.extend(everything if name == "all" else [name])
    return tuple(dict.fromkeys(names))


SQUEEZE = 2
"""Side of the patches that become channels: 3 x H x W becomes 12 x H/2 x W/2, as in the released code."""

CHANNELS = 3 * SQUEEZE**2

_FORMS: dict[str, type[Recipe]] = {
    form.name: form for form in (Certified, Paper, Released, ReleasedGenerative, Unconstrained)
}


@dataclass(frozen=True)
class Variant:
    """A row of the results.

    Attributes:
        attention: Kind of the attention.
        recipe: Form of the block.
        label: Name of the form in results and file names; that of the recipe, unless its fields were changed.
    """

    attention: str
    recipe: Recipe
    label: str

    @property
    def name(self) -> str:
        """``<attention>-<label>``, the stem of the variant's files."""
        return f"{self.attention}-{self.label}"

    def model_config(self, config: ReconstructionConfig) -> ModelConfig:
        """Return what the model of this variant is built from."""
        return ModelConfig(
            channels=CHANNELS,
            kind=self.attention,
            recipe=self.recipe,
            lipschitz=config.lipschitz,
            solver=choose_solver(self.recipe, name=config.solver, iterations=config.iterations),
            squeeze=SQUEEZE,
        )


def named_variants(config: ReconstructionConfig) -> list[Variant]:
    """Return every pair of the kinds and recipes that the configuration names, recipes outermost."""
    return [
        Variant(attention, _FORMS[recipe](), recipe)
        for recipe in config.recipe_names()
        for attention in config.attention_names()
    ]
