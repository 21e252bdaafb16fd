from pathlib import Path

import pytest

from invattn.experiments.kit.run import NO_INFLUENCE, hash_sources, source_hash


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name in ("solvers", "cli", "report"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text("x = 1\n")
    (tmp_path / "norms.py").write_text("y = 1\n")
    (tmp_path / "records.py").write_text("z = 1\n")
    return tmp_path


def test_code_that_numbers_depend_on_changes_the_hash(package: Path) -> None:
    hashes = {hash_sources(package)}
    (package / "norms.py").write_text("y = 2\n")
    hashes.add(hash_sources(package))
    (package / "solvers" / "b.py").write_text("")
    hashes.add(hash_sources(package))
    (package / "solvers" / "a.py").rename(package / "solvers" / "c.py")
    hashes.add(hash_sources(package))
    (package / "new_part").mkdir()
    (package / "new_part" / "a.py").write_text("")
    hashes.add(hash_sources(package))
    assert len(hashes) == 5


def test_code_that_they_do_not_depend_on_does_not(package: Path) -> None:
    base = hash_sources(package)
    for path in ("cli/a.py", "report/a.py", "records.py", "cli/new.py", "_version.py", "solvers/table.csv"):
        (package / path).write_text("changed")
    assert hash_sources(package) == base


def test_the_installed_package_has_one_hash() -> None:
    assert source_hash() == source_hash()
    assert len(source_hash()) == 64
    assert not {"solvers", "data", "training", "evaluation", "experiments", "metrics", "recipes"} & set(NO_INFLUENCE)
