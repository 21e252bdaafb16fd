from dataclasses import replace
from pathlib import Path

import pytest

from invattn import RECIPES
from invattn.experiments.kit.solver import ACCURATE, choose_solver
from invattn.experiments.reconstruction.config import named_variants
from invattn.experiments.reconstruction.run import ReconstructionConfig
from invattn.recipes import Certified, Paper, Recipe, Released, ReleasedGenerative, Unconstrained
from invattn.solvers import Anderson, NewtonKrylov, Picard, Solver


def test_every_recipe_has_a_variant() -> None:
    config = ReconstructionConfig(output=Path("out"), recipe="all", attention="gaussian,pointwise")
    variants = named_variants(config)
    assert [variant.label for variant in variants] == [name for name in RECIPES for _ in range(2)]
    assert all(variant.recipe.name == variant.label for variant in variants)
    assert variants[1].name == f"pointwise-{RECIPES[0]}"


@pytest.mark.parametrize(
    ("recipe", "name", "iterations", "expected"),
    [
        (Certified(), "default", None, ACCURATE),
        (Certified(), "default", 30, replace(ACCURATE, max_steps=30)),
        (Certified(), "picard", None, Picard(max_steps=100)),
        (Certified(), "anderson", 9, Anderson(max_steps=9)),
        (Paper(), "default", None, Picard(max_steps=100, early_stop=False)),
        (Released(), "default", None, Picard(max_steps=50, early_stop=False)),
        (Released(), "default", 100, Picard(max_steps=100, early_stop=False)),
        (ReleasedGenerative(), "picard", None, Picard(max_steps=50, early_stop=False)),
        (Unconstrained(), "default", None, Picard(max_steps=50, early_stop=False)),
        (Unconstrained(), "adaptive", None, ACCURATE),
        (Released(), "anderson", None, Anderson()),
        (Released(), "newton_krylov", None, NewtonKrylov()),
        (Paper(), "newton_krylov", 12, NewtonKrylov(max_steps=12)),
    ],
)
def test_the_solver_of_each_recipe(recipe: Recipe, name: str, iterations: int | None, expected: Solver) -> None:
    assert choose_solver(recipe, name=name, iterations=iterations) == expected


def test_the_model_sees_twelve_channels() -> None:
    config = ReconstructionConfig(output=Path("out"), attention="concatenation", lipschitz=0.7)
    model_config = named_variants(config)[0].model_config(config)
    assert (model_config.channels, model_config.squeeze, model_config.lipschitz) == (12, 2, 0.7)
    assert (model_config.kind, model_config.recipe) == ("concatenation", Certified())
