"""The figures of the paper's tables."""

from __future__ import annotations

import csv
from importlib import resources


def published_rows(name: str) -> list[dict[str, str]]:
    """Return the rows of a table of published figures.

    Args:
        name: ``table2``, ``table3``, ``table4`` or ``table5``; the number is the paper's.
    """
    text = resources.files("invattn.published").joinpath(f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def published_reconstruction(dataset: str, image_size: int | str) -> dict[str, dict[str, float] | None]:
    """Return the paper's reconstruction figures for a data set: Table 2 for 32x32 images, Table 5 for 218x178 ones.

    Args:
        dataset: ``cifar10``, ``svhn`` or ``celeba``; the paper has no figures for any other.
        image_size: 32, "32" or "32x32"; "original" or "218x178".

    Returns:
        Attention kind -> ``{"mse", "ssim", "v_score"}``, or None where nothing was published (every kind of another
        data set, and ``pointwise``, which is no kind of the paper). MSE is on the 0-255 scale, ``v_score`` in 0..1.
    """
    small, large = published_rows("table2"), published_rows("table5")
    table = {"32": small, "32x32": small, "original": large, "218x178": large}.get(str(image_size), [])
    found: dict[str, dict[str, float] | None] = {row["attention"]: None for row in small}
    found["pointwise"] = None
    for row in table:
        if row["dataset"] == dataset:
            found[row["attention"]] = {key: float(row[key]) for key in ("mse", "ssim", "v_score")}
    return found


def published_detection(attention: str, recipe: str, dataset: str) -> dict[str, float] | None:
    """Return the paper's figures of Table 4 for one network and test set.

    Args:
        attention: Kind of the attention; ``none`` is the row "Base".
        recipe: ``paper`` for the rows "Inv-", ``unconstrained`` for the others; nothing was published for any other.
        dataset: CAMO, CHAMELEON, COD10K or NC4K.

    Returns:
        ``{"s_measure", "f_mean", "e_mean", "mae"}``, or None where nothing was published.
    """
    for row in published_rows("table4"):
        if (row["attention"], row["recipe"], row["dataset"]) == (attention, recipe, dataset):
            return {key: float(row[key]) for key in ("s_measure", "f_mean", "e_mean", "mae")}
    return None
