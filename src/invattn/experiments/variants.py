"""One attention kind in one recipe: which model that is, and how it is inverted."""

from __future__ import annotations

from dataclasses import dataclass, replace

from invattn.checkpoints import ModelConfig
from invattn.experiments.reconstruction_config import ReconstructionConfig
from invattn.recipes import Certified, Paper, Recipe, Released, ReleasedGenerative, Unconstrained
from invattn.solvers import Adaptive, Anderson, NewtonKrylov, Picard, Solver

SQUEEZE = 2
"""Side of the patches that become channels: 3 x H x W becomes 12 x H/2 x W/2, as in the released code."""

CHANNELS = 3 * SQUEEZE**2

PAPER_STEPS = 100
"""N of the paper's Algorithm 1."""

RELEASED_STEPS = 50
"""Default N of the released code."""

ACCURATE = Adaptive(atol=2e-7, rtol=2e-7, refine=1)
"""Solver of the certified form: the table asks for the error, so it goes below the library's tolerance of 1e-6."""

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


def choose_solver(recipe: Recipe, *, name: str, iterations: int | None) -> Solver:
    """Return the solver of a recipe.

    Without a certificate there is no tolerance to trust: unless another solver is named, such a recipe makes a fixed
    number of Picard steps, as the paper and its code do.
    """
    certified = isinstance(recipe, Certified)
    if name == "picard" or (name == "default" and not certified):
        usual = PAPER_STEPS if certified or recipe.name == "paper" else RELEASED_STEPS
        return Picard(max_steps=usual if iterations is None else iterations, early_stop=certified)
    if name == "anderson":
        return Anderson() if iterations is None else Anderson(max_steps=iterations)
    if name == "newton_krylov":
        return NewtonKrylov() if iterations is None else NewtonKrylov(max_steps=iterations)
    return ACCURATE if iterations is None else replace(ACCURATE, max_steps=iterations)
