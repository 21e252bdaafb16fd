"""What every test shares: the place of the real data, one thread, reproducible hypothesis."""

import importlib.util
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import settings

settings.register_profile("invattn", deadline=None, derandomize=True)
settings.load_profile("invattn")

# A shell that starts the tests in the background has SIGINT ignored, and its children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What torch.func.jvp loads at its first use makes torch 2.13 warn about itself; load it here, and only here, quietly.
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
    torch.func.jvp(torch.sin, (torch.ones(1),), (torch.ones(1),))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small tensors are faster on one thread, and two test processes share two cores."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_weights_every_time() -> None:
    """Weights that a test draws without a generator of its own are the same in every run and order."""
    torch.manual_seed(0)


@pytest.fixture
def fresh_compiler() -> None:
    """torch.compile as if nothing had been compiled: it limits how often one function may be, over all tests."""
    torch.compiler.reset()


@pytest.fixture
def real_data() -> Path:
    """The folder with cifar10, svhn and celeba as their publishers ship them."""
    folder = os.environ.get("INVATTN_TEST_DATA")
    if not folder:
        pytest.skip("INVATTN_TEST_DATA is not set: it names a folder with cifar10, svhn and celeba")
    if not Path(folder).is_dir():
        pytest.skip(f"INVATTN_TEST_DATA names {folder}, which is no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def load_benchmark() -> Callable[[str], ModuleType]:
    """Import a script of the benchmarks folder by its name."""

    def load(name: str) -> ModuleType:
        path = Path(__file__).resolve().parents[1] / "benchmarks" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"{name}_benchmark", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    return load
