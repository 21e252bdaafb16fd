"""The tables that ``invattn camouflage`` prints."""

from __future__ import annotations

from collections.abc import Mapping

from invattn.records import CamouflageRecord, MapMetrics

_COLUMNS = {
    "s_measure": "S",
    "f_mean": "F mean",
    "f_max": "F max",
    "f_adaptive": "F adp",
    "f_weighted": "F weighted",
    "e_mean": "E mean",
    "e_max": "E max",
    "e_adaptive": "E adp",
    "mae": "MAE",
}


def show_sets(sets: Mapping[str, MapMetrics]) -> None:
    """Print what was measured of each set."""
    from rich.table import Table

    table = Table(title="maps against masks")
    table.add_column("set", no_wrap=True)
    for heading in (*_COLUMNS.values(), "images"):
        table.add_column(heading, justify="right")
    for name, metrics in sets.items():
        table.add_row(name, *(f"{getattr(metrics, column):.4f}" for column in _COLUMNS), str(metrics.images))
    _print(table)


def show_more(sets: Mapping[str, MapMetrics]) -> None:
    """Print every measure of each set under PySODMetrics' name, where they were asked for."""
    from rich.table import Table

    more = {name: metrics.more for name, metrics in sets.items() if metrics.more is not None}
    if not more:
        return
    table = Table(title="all measures, by PySODMetrics' names")
    table.add_column("measure", no_wrap=True)
    for name in more:
        table.add_column(name, justify="right")
    for measure in next(iter(more.values())):
        table.add_row(measure, *(f"{values[measure]:.4f}" for values in more.values()))
    _print(table)


def show_results(record: CamouflageRecord) -> None:
    """Print S, F, E and MAE of every row on every test set, and the notes on the data."""
    from rich.console import Console
    from rich.table import Table

    for name, images in record.data["sets"].items():
        table = Table(
            title=f"{name}: {images} images; the mean training mask has S {record.data['mean_mask'][name]:.3f}"
        )
        for heading in ("attention", "recipe"):
            table.add_column(heading, no_wrap=True)
        for heading in ("seed", "S", "F mean", "E mean", "MAE", "inverse error", "bound", "seconds"):
            table.add_column(heading, justify="right")
        for row in record.rows:
            found = row.sets.get(name)
            scores = (found.s_measure, found.f_mean, found.e_mean, found.mae) if found else ()
            cells = [f"{value:.3f}" for value in scores] or ["stopped", "", "", ""]
            error = f"{row.inverse['error_max']:.2g}" if row.inverse else "-"
            bound = f"{row.certificate['bound']:.3f}" if row.certificate else "none"
            table.add_row(row.attention, row.recipe, str(row.seed), *cells, error, bound, f"{row.seconds:.0f}")
        _print(table)
    for note in record.data.get("notes", ()):
        Console().print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def _print(table: object) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table)
