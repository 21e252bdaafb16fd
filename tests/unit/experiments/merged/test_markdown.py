"""The Markdown table has the layout of Table 2, the paper's figures above ours."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest

from invattn.experiments.merged.markdown import markdown_table


def cells(text: str, first: str, second: str) -> list[list[str]]:
    """The rows whose first two cells are these."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return [row for row in rows if row[:2] == [first, second]]


def test_data_sets_stand_side_by_side_in_the_papers_order(sample: ModuleType) -> None:
    runs = [sample.record(name, recipes=("certified",)) for name in ("celeba", "cifar10", "svhn")]
    text = markdown_table(runs)
    (header,) = [line for line in text.splitlines() if "MSE ↓" in line]
    assert header.index("CIFAR-10") < header.index("SVHN") < header.index("CelebA")
    (paper,) = cells(text, "Dot-product", "paper")
    assert paper[2:] == [
        "169.032", "0.977", "37.812%", "508.016", "0.892", "44.583%", "461.488", "0.936", "37.812%",
    ]  # fmt: skip
    ours = cells(text, "", "**ours**")
    assert len(ours) == 4
    assert ours[0][2:5] == ["6.2e-10 ± 3.1e-11", "1.000", "100.000%"]


def test_every_row_has_as_many_cells_as_its_header(sample: ModuleType) -> None:
    partial = sample.record("svhn", recipes=("certified",), kinds=("gaussian",))
    text = markdown_table([sample.record("cifar10"), partial])
    for table in [block for block in text.split("\n\n") if block.startswith("|")]:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_every_recipe_has_its_tables(sample: ModuleType) -> None:
    text = markdown_table(sample.record("cifar10", recipes=("released", "certified", "paper")))
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    assert heads == ["## Certified", "## Paper", "## Released", "## Runs"]
    assert text.endswith("\n")


def test_what_is_missing_is_a_dash(sample: ModuleType) -> None:
    text = markdown_table([sample.record("cifar10", recipes=("certified",), kinds=("gaussian",)),
                           sample.record("photos", recipes=("certified",), kinds=("dot_product",))])  # fmt: skip
    (paper,) = cells(text, "Gaussian", "paper")
    assert paper[2:] == ["84.872", "0.988", "85.625%", "–", "–", "–"]


def test_large_images_carry_their_size(sample: ModuleType) -> None:
    runs = [sample.record("celeba", recipes=("certified",)),
            sample.record("celeba", recipes=("certified",), image_size="218x178")]  # fmt: skip
    text = markdown_table(runs)
    assert "CelebA 32×32 MSE" in text
    assert "CelebA 218×178 MSE" in text
    assert "1.555e-6" in text


def test_a_cell_given_twice_is_refused(sample: ModuleType) -> None:
    with pytest.raises(ValueError, match="gaussian certified on cifar10 is given twice"):
        markdown_table([sample.record("cifar10"), sample.record("cifar10")])


def test_nothing_given_is_refused(sample: ModuleType) -> None:
    with pytest.raises(ValueError, match="at least one result"):
        markdown_table([])
    with pytest.raises(ValueError, match="at least one result"):
        markdown_table(sample.record(recipes=()))


def test_the_runs_are_listed_without_paths_of_a_machine(sample: ModuleType) -> None:
    command = (
        "invattn reconstruct --data-root /home/me/data --output=~/out --lr 1e-3 --config 'C:\\c.yaml' --recipe a/b"
    )
    text = markdown_table(replace(sample.record("cifar10"), command=command))
    assert "`invattn reconstruct --data-root DIR --output=DIR --lr 1e-3 --config 'DIR' --recipe a/b`" in text
    assert "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" in text
    assert "seed 0" in text
    assert "torch 2.13.0" in text
    assert "different photographs" in text
