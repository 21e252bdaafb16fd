"""Which solver inverts which recipe."""

from __future__ import annotations

from dataclasses import replace

from invattn.recipes import Certified, Recipe
from invattn.solvers import Adaptive, Anderson, NewtonKrylov, Picard, Solver

PAPER_STEPS = 100
"""N of the paper's Algorithm 1."""

RELEASED_STEPS = 50
"""Default N of the released code."""

ACCURATE = Adaptive(atol=2e-7, rtol=2e-7, refine=1)
"""Solver of the certified form: the table asks for the error, so it goes below the library's tolerance of 1e-6."""


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
