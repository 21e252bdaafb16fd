"""The key of a cell changes with every module that its run imports, and with no other."""

import ast
import shutil
import sys
import time
from pathlib import Path

import pytest

import invattn
from invattn.experiments.camouflage.training import CamouflageCell
from invattn.experiments.density.training import DensityCell
from invattn.experiments.kit.sources import _imported_names, hash_sources, imported_files, source_hash
from invattn.experiments.reconstruction.cells import ReconstructionCell

ROOT = Path(invattn.__file__).parent
EXPERIMENTS = {"reconstruction": ReconstructionCell, "density": DensityCell, "camouflage": CamouflageCell}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT, tmp_path / "invattn", ignore=shutil.ignore_patterns("__pycache__")))


def key(package: Path, experiment: str) -> str:
    return hash_sources(imported_files(package, EXPERIMENTS[experiment].code))


def edit(file: Path) -> None:
    file.write_text(file.read_text() + "\nEDITED = True\n")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize(
    "module", ["diagnosis/jacobian.py", "_version.py", "experiments/kit/training/fit.py", "experiments/{}/config.py"]
)
def test_another_module_of_the_run_is_another_key(package: Path, experiment: str, module: str) -> None:
    before = key(package, experiment)
    assert key(package, experiment) == before
    edit(package / module.format(experiment))
    assert key(package, experiment) != before


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_pages_and_commands_leave_the_key(package: Path, experiment: str) -> None:
    before = key(package, experiment)
    own = package / "experiments" / experiment
    pages = [*own.joinpath("page").glob("*.py"), *package.joinpath("experiments", "kit", "page").glob("*.py")]
    others = [own / "command.py", *package.joinpath("cli").glob("*.py"), *own.joinpath("templates").glob("*.html")]
    assert pages
    for file in [*pages, *others]:
        edit(file)
    assert key(package, experiment) == before


def test_every_import_is_found() -> None:
    for file in ROOT.rglob("*.py"):
        source = file.read_text(encoding="utf-8")
        found = set(_imported_names(source))
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= found, file
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, file
                assert {f"{node.module}.{alias.name}" for alias in node.names} <= found, file


def test_what_is_imported_when_a_run_is_imported_counts() -> None:
    """Other tests may have imported more; what the run module itself brings is among its files."""
    for cell in EXPERIMENTS.values():
        __import__(cell.code)
        files = imported_files(ROOT, cell.code)
        named = vars(sys.modules[cell.code]).values()
        modules = {getattr(value, "__module__", None) for value in named}
        own = {name for name in modules if isinstance(name, str) and name.startswith("invattn.")}
        assert own
        for name in own:
            path = Path(*name.split(".")[1:])
            assert {f"{path}.py", f"{path}/__init__.py"} & set(files), name


def test_the_installed_package_is_hashed_once_and_fast() -> None:
    assert source_hash(DensityCell.code) is source_hash(DensityCell.code)
    assert len(source_hash(DensityCell.code)) == 64
    assert len({source_hash(cell.code) for cell in EXPERIMENTS.values()}) == 3
    started = time.process_time()
    imported_files(ROOT, DensityCell.code)
    assert time.process_time() - started < 0.3
