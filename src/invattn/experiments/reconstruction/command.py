"""``invattn reconstruct``: train each attention kind, invert the test images, write results and the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invattn.experiments.kit.parser import Command
from invattn.experiments.reconstruction.config import ReconstructionConfig

if TYPE_CHECKING:
    from invattn.experiments.reconstruction.record import ReconstructionRecord, ReconstructionResult


def reconstruct(config: ReconstructionConfig) -> None:
    """Run the experiment, write the page, and print the results and the page's path.

    Raises:
        KeyboardInterrupt: If the user stopped the work; its text says how to continue.
    """
    from invattn.experiments.kit.terminal import progress_shown, show_path
    from invattn.experiments.reconstruction.page.page import write_report
    from invattn.experiments.reconstruction.run import run

    with progress_shown() as progress:
        record = run(config, progress=progress)
    page = write_report(config.output)
    show_results(record)
    show_path("page", page)


COMMAND = Command(
    name="reconstruct",
    summary="invert attention on real images",
    description="Train attention blocks on real images, invert them on test images, and write OUTPUT/results.json, the "
    "models and OUTPUT/report.html.",
    options=ReconstructionConfig,
    run=reconstruct,
    config_file=True,
)


def show_results(record: ReconstructionRecord) -> None:
    """Print the table of results and the notes on the data."""
    from invattn.experiments.kit.terminal import show_notes, show_table

    published = any(result.paper for result in record.results)
    show_table(
        f"{record.data['name']}: {record.data['train']} training, {record.data['test']} test images",
        ("attention", "recipe"),
        ("V-score", "converged", "MSE", "largest MSE", "evaluations of g", "bound")
        + (("paper's V-score",) if published else ()),
        [_cells(result) + ([_published(result)] if published else []) for result in record.results],
    )
    show_notes(record.data.get("notes", ()))


def _cells(result: ReconstructionResult) -> list[str]:
    metrics = result.metrics
    return [
        result.attention,
        result.recipe,
        f"{metrics.v_score:.1%}",
        f"{metrics.converged:.1%}",
        f"{metrics.mse:.3g}",
        f"{metrics.mse_max:.3g}",
        f"{metrics.evaluations_mean:.1f} (max {metrics.evaluations_max:.0f})",
        f"{result.certificate['bound']:.3f}" if result.certificate else "none",
    ]


def _published(result: ReconstructionResult) -> str:
    return f"{result.paper['v_score']:.1%}" if result.paper else "-"
