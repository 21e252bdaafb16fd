"""What ``invattn density`` prints of its results."""

from __future__ import annotations

from invattn.experiments.density.record import DensityRecord, DensityResult


def show_results(record: DensityRecord) -> None:
    """Print the table of results and the notes on the data."""
    from rich.console import Console
    from rich.table import Table

    data = record.data
    unit = record.results[0].metrics.unit if record.results else "nats"
    table = Table(title=f"{data['name']}: {data['train']} training, {data['test']} test samples")
    table.add_column("variant", no_wrap=True)
    for heading in ("seed", f"{unit}/dim", "median", "outliers", "inverse error", "radius", "bound", "CPU s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in record.results:
        table.add_row(*_cells(result))
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table)
    for name, value in (data.get("references") or {}).items():
        console.print(f"reference: {value:.3f} {unit}/dim, {name}", markup=False, highlight=False, soft_wrap=True)
    refused = [
        f"{result.variant}: no likelihood, because {result.refused}" for result in record.results if result.refused
    ]
    for note in (*data.get("notes", ()), *refused):
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def _cells(result: DensityResult) -> list[str]:
    metrics = result.metrics
    value = "refused" if metrics.per_dim is None else f"{metrics.per_dim:.3f} ± {metrics.standard_error:.3f}"
    return [
        result.variant,
        str(result.seed),
        value,
        f"{metrics.median:.3f}",
        str(metrics.outliers),
        f"{metrics.inverse_error_max:.1g}",
        f"{metrics.spectral_radius_max:.3f}",
        f"{result.certificate['bound']:.3f}" if result.certificate else "none",
        f"{result.cpu_seconds:.1f}",
    ]
