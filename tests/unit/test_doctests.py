"""The examples in the library's docstrings run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
import torch

import invattn

LABORATORY = ("invattn.cli", "invattn.experiments", "invattn.__main__")
ELSEWHERE = ("invattn.functional.triton_kernels",)
"""Imports Triton, and holds no example."""

MODULES = [
    module.name
    for module in pkgutil.walk_packages(invattn.__path__, "invattn.")
    if not module.name.startswith(LABORATORY) and module.name not in ELSEWHERE
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    torch.manual_seed(0)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples() -> None:
    found = [example for name in MODULES for example in doctest.DocTestFinder().find(importlib.import_module(name))]
    assert sum(len(example.examples) for example in found) >= 20
