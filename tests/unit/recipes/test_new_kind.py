"""A new attention kind is one file and one line of the table: tried on a copy of the package."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import invattn

TOY = '''
"""s_ij = 1/2 x_i . x_j."""
from torch import Tensor
from invattn.branches.attention.scores import GaussianScore

class ToyScore(GaussianScore):
    """Half the Gaussian kind's score."""
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        query, key = super().forward(x)
        return query / 2, key
    def bounded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        query, key = super().bounded(x)
        return query / 2, key
    def paths(self) -> tuple[Tensor, Tensor]:
        query, key = super().paths()
        return query / 2, key / 2
'''
LINE = '    "toy": Kind(("toy", "ToyScore"), "softplus", "Toy kind", ("#123456", "#654321")),\n'

PROGRAM = """
import torch, invattn
from invattn.testing import check_bijection, check_branch
assert invattn.ATTENTION_KINDS[-1] == "toy", invattn.__file__
torch.manual_seed(0)
for recipe in ("certified", invattn.recipes.Strict()):
    block = invattn.invertible_attention(4, kind="toy", recipe=recipe, layout="tokens").double()
    check_bijection(block, torch.randn(3, 5, 4, dtype=torch.float64))
    check_branch(block.branch, torch.randn(3, 5, 4, dtype=torch.float64))
    assert block.lipschitz_bound().value < 0.9 + 1e-6
for recipe in invattn.RECIPES:
    invattn.invertible_attention(4, kind="toy", recipe=recipe)(torch.randn(1, 4, 3, 3))
from invattn.experiments.kit.page.environment import render_page
from invattn.experiments.kit.page import formatting
from invattn.experiments.reconstruction.config import ReconstructionConfig
assert formatting.kind("toy") == "Toy kind"
assert "toy" in ReconstructionConfig(output="out", attention="all").attention_names()
assert "--toy: #123456" in render_page("merged", "merged.html", tables=(), runs=())
"""


def test_a_new_kind_is_one_file_and_one_line(tmp_path: Path) -> None:
    package = tmp_path / "invattn"
    shutil.copytree(Path(invattn.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "branches" / "attention" / "toy.py").write_text(TOY)
    table = package / "_kinds.py"
    table.write_text(table.read_text().replace('\n}\n"""Name ->', f'\n{LINE}}}\n"""Name ->'))
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
