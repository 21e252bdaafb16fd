"""One attention kind in one recipe: which model that is, and how it is inverted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from invattn import ATTENTION_KINDS, KINDS, RECIPES
from invattn.experiments.kit.options import (
    TEST_SIZE,
    TRAIN_SIZE,
    Count,
    OutputOptions,
    PhotographOptions,
    Positive,
    Share,
    command_line,
    one_of,
    some_of,
    split_names,
)
from invattn.experiments.kit.solver import choose_solver
from invattn.hub import ModelConfig
from invattn.recipes import Recipe, make_recipe

SOLVERS = ("default", "picard", "anderson", "adaptive", "newton_krylov")
_LARGEST_LR = 1e6


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig(PhotographOptions, OutputOptions):
    """Options of the reconstruction experiment; the defaults are the paper's protocol for 32x32 images.

    Attributes:
        attention: Kinds of attention; all is the paper's four.
        recipe: Recipes of the block, or all.
        epochs: Passes over the training images (default: 100; 1 at the original size).
        train_size: Training images.
        test_size: Test images.
        repeats: Trainings of each cell with different seeds, from SEED on.
        lr: Learning rate of Adam.
        batch_size: Images in a batch (default: 64; 1 at the original size).
        lipschitz: Bound of certified branches, coefficient of the constrained layers of the others.
        solver: What inverts.
        iterations: Most steps of the solver; without a certificate picard, the default, makes exactly so many (default:
            100 for paper, 50 for the others without a certificate, and the solver's own for certified and for other
            solvers).

    Raises:
        ValueError: If a name is unknown or a number is out of range.
    """

    attention: Annotated[str, some_of(KINDS, what="attention kind"), "KIND,..."] = "all"
    recipe: Annotated[str, some_of(RECIPES, what="recipe"), "RECIPE,..."] = "certified"
    epochs: Count | None = None
    train_size: Count = TRAIN_SIZE
    test_size: Count = TEST_SIZE
    repeats: Count = 3
    lr: Annotated[Positive, "RATE"] = 0.003
    batch_size: Count | None = None
    lipschitz: Annotated[Share, "C"] = 0.9
    solver: Annotated[str, one_of(SOLVERS, what="solver")] = "default"
    iterations: Count | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lr > _LARGEST_LR:
            raise ValueError(f"lr must be at most {_LARGEST_LR:g}; got {self.lr}.")

    def attention_names(self) -> tuple[str, ...]:
        """Return the kinds in the order given, each once."""
        return split_names(self.attention, KINDS, everything=ATTENTION_KINDS, what="attention")

    def recipe_names(self) -> tuple[str, ...]:
        """Return the recipes in the order given, each once."""
        return split_names(self.recipe, RECIPES, everything=RECIPES, what="recipe")

    def chosen_epochs(self) -> int:
        """Return the epochs, where the user left them open the paper's."""
        return self.epochs or (1 if self.original else 100)

    def chosen_batch_size(self) -> int:
        """Return the batch size, where the user left it open the paper's."""
        return self.batch_size or (1 if self.original else 64)

    def settings(self, *, of_a_cell: bool = False) -> dict[str, Any]:
        """Return every option that may change the numbers, as run; no paths."""
        return super().settings(of_a_cell=of_a_cell) | {
            "attention": list(self.attention_names()),
            "recipe": list(self.recipe_names()),
            "epochs": self.chosen_epochs(),
            "batch_size": self.chosen_batch_size(),
        }

    def command(self) -> str:
        """Return a command line that repeats the run, with placeholders for the folders of this machine."""
        names = {"attention": ",".join(self.attention_names()), "recipe": ",".join(self.recipe_names())}
        data = {"data": self.data, "data_root": self.data_root and "DATA"}
        return command_line("reconstruct", data | names | self.settings() | names)


SQUEEZE = 2
"""Side of the patches that become channels: 3 x H x W becomes 12 x H/2 x W/2, as in the released code."""

CHANNELS = 3 * SQUEEZE**2


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
        Variant(attention, make_recipe(recipe), recipe)
        for recipe in config.recipe_names()
        for attention in config.attention_names()
    ]
