"""Tables 2 to 5 of the paper beside what several runs found on the same data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from invattn.experiments.camouflage.page.tables import SCORES, label_of, score_tables
from invattn.experiments.camouflage.record import CamouflageRecord
from invattn.experiments.density.record import DensityRecord
from invattn.experiments.kit.page import formatting
from invattn.experiments.kit.record import published_rows
from invattn.experiments.reconstruction.page.tables import published_cells
from invattn.experiments.reconstruction.record import ReconstructionRecord

Record = ReconstructionRecord | DensityRecord | CamouflageRecord

_R = TypeVar("_R", ReconstructionRecord, DensityRecord, CamouflageRecord)

PUBLISHED = "paper"
"""What stands where the number of a run would: the row is published."""


class OverviewRow(NamedTuple):
    """One line; ``run`` is the number of the run, from 1, or ``paper``; every cell is ready to print."""

    kind: str
    label: str
    data: str
    run: str
    cells: tuple[str, ...]


class OverviewTable(NamedTuple):
    """One table of the paper with ours below its rows; the heads are of the columns after name, data and run."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[OverviewRow, ...]

    @property
    def ours(self) -> bool:
        """Whether a run has figures of these data."""
        return any(row.run != PUBLISHED for row in self.rows)


def overview(records: Sequence[Record]) -> list[OverviewTable]:
    """Return Tables 2, 3, 4 and 5 with the figures of all runs, numbered in their order."""
    heads = ("MSE ↓", "SSIM ↑", "V-score ↑")
    small, large = (tuple(_reconstruction(table, records)) for table in ("table2", "table5"))
    return [
        OverviewTable("Table 2: reconstruction at 32×32", heads, small),
        OverviewTable("Table 3: density on CIFAR-10", ("bits/dim ↓",), tuple(_density(records))),
        OverviewTable("Table 4: camouflaged object detection", tuple(SCORES.values()), tuple(_detection(records))),
        OverviewTable("Table 5: reconstruction at 218×178", heads, large),
    ]


def _reconstruction(table: str, records: Sequence[Record]) -> Iterable[OverviewRow]:
    sizes = {"table2": ("32", "32x32"), "table5": ("original", "218x178")}[table]
    for published in published_rows(table):
        kind, dataset = published["attention"], published["dataset"]
        found = [(PUBLISHED, formatting.kind(kind), {key: float(published[key]) for key in ("mse", "ssim", "v_score")})]
        found += [
            (number, label_of(kind, result.recipe), vars(result.metrics))
            for number, record in _numbered(records, ReconstructionRecord)
            for result in record.results
            if (result.attention, result.dataset) == (kind, dataset) and str(result.image_size) in sizes
        ]
        for run, label, figures in found:
            yield OverviewRow(kind, label, formatting.dataset(dataset), run, published_cells(figures))


def _density(records: Sequence[Record]) -> Iterable[OverviewRow]:
    for published in published_rows("table3"):
        yield OverviewRow("other", published["model"], "CIFAR-10", PUBLISHED, (published["bits_per_dim"],))
    for number, record in _numbered(records, DensityRecord):
        if record.data.get("name") != "cifar10":
            continue
        for result in record.results:
            value = result.metrics.per_dim
            if result.metrics.unit == "bits":
                kind, data = result.variant.partition("-")[0], f"CIFAR-10, {record.data.get('train')} training images"
                cells = ("refused" if value is None else f"{value:.3f}",)
                yield OverviewRow(kind, f"{result.variant}, seed {result.seed}", data, number, cells)


def _detection(records: Sequence[Record]) -> Iterable[OverviewRow]:
    for published in published_rows("table4"):
        kind, dataset = published["attention"], published["dataset"]
        cells = tuple(published[key] for key in SCORES)
        yield OverviewRow(kind, label_of(kind, published["recipe"]), dataset, PUBLISHED, cells)
    names = {published["dataset"] for published in published_rows("table4")}
    for number, record in _numbered(records, CamouflageRecord):
        for name, rows in score_tables(record).items():
            if name in names:
                data = f"{name}, {formatting.count(record.data['sets'][name])} images"
                for row in rows:
                    cells = tuple(map(formatting.decimals, row.ours.values()))
                    yield OverviewRow(row.kind, row.label, data, number, cells)


def _numbered(records: Sequence[Record], kind: type[_R]) -> list[tuple[str, _R]]:
    return [(str(number), record) for number, record in enumerate(records, start=1) if isinstance(record, kind)]
