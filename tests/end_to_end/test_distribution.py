"""The wheel and the sdist: complete, and usable where torch is the only other package."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PACKAGE_DATA = {
    "invattn/py.typed",
    "invattn/experiments/kit/published/table2.csv",
    "invattn/experiments/kit/published/table5.csv",
    "invattn/experiments/reconstruction/templates/report.html",
}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, ROOT], check=True, capture_output=True)
    return folder


@pytest.mark.slow
def test_both_hold_every_module_and_the_package_data(distributions: Path) -> None:
    modules = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "invattn").rglob("*.py")}
    wheel = set(zipfile.ZipFile(next(distributions.glob("*.whl"))).namelist())
    with tarfile.open(next(distributions.glob("*.tar.gz"))) as archive:
        source = {name.partition("/")[2] for name in archive.getnames()}
    assert modules | PACKAGE_DATA <= wheel
    assert {f"src/{name}" for name in modules | PACKAGE_DATA} <= source
    assert {"LICENSE", "README.md", "pyproject.toml", "constraints.txt"} <= source


@pytest.mark.slow
def test_the_wheel_works_beside_torch_alone(distributions: Path, tmp_path: Path) -> None:
    wheel = next(distributions.glob("*.whl"))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    program = (
        f"import sys; sys.modules.update(dict.fromkeys(['numpy', 'lightning', 'jsonargparse', 'rich', 'scipy'])); "
        f"import invattn; assert invattn.__file__.startswith({str(tmp_path)!r}), invattn.__file__; "
        "import torch; block = invattn.invertible_attention(12); x = torch.rand(2, 12, 4, 4); "
        "assert torch.allclose(block.inverse(block(x)), x, atol=1e-4); "
        "from invattn.cli.main import main; sys.exit(main(['--version']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("invattn ")
