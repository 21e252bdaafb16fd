"""What the README and the other documents promise."""

import doctest
import re
import shlex
from pathlib import Path

import pytest
import torch

from invattn.cli.main import build_parser

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_the_example_of_the_readme_runs() -> None:
    torch.manual_seed(0)
    result = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert result.attempted >= 9
    assert result.failed == 0


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_a_document_names_exist(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), f"{document.name} names {target}"


def test_the_readme_names_targets_of_the_makefile() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    named = re.findall(r"make (demo|test)\b", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert set(named) == {"demo", "test"}
    assert set(named) <= set(targets)


def commands(document: Path) -> list[str]:
    """The lines of a document's shell examples that call the command itself."""
    blocks = re.findall(r"```bash\n(.*?)```", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("invattn ")]


COMMANDS = [(document.name, line) for document in DOCUMENTS for line in commands(document)]


def test_documents_show_commands() -> None:
    assert {"README.md", "density.md", "training.md"} <= {name for name, _ in COMMANDS}


@pytest.mark.parametrize(("name", "line"), COMMANDS)
def test_the_command_line_takes_what_a_document_shows(name: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    parser, known = build_parser()
    options = parser.parse_args(shlex.split(line, comments=True)[1:])
    assert options.command in known
