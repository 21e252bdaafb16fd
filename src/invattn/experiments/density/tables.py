"""What ``invattn density`` prints of its results."""

from __future__ import annotations

from invattn.experiments.density.evaluation import ModelEvaluation
from invattn.experiments.density.measure import ImportanceBound
from invattn.experiments.density.record import DensityRecord, DensityResult
from invattn.experiments.kit.terminal import show_line, show_notes, show_table


def show_results(record: DensityRecord) -> None:
    """Print the table of results and the notes on the data."""
    data = record.data
    unit = record.results[0].metrics.unit if record.results else "nats"
    show_table(
        f"{data['name']}: {data['train']} training, {data['test']} test samples",
        ("variant",),
        ("seed", f"{unit}/dim", "median", "outliers", "inverse error", "radius", "bound", "CPU s"),
        map(_cells, record.results),
    )
    for name, value in (data.get("references") or {}).items():
        show_line(f"reference: {value:.3f} {unit}/dim, {name}")
    refused = [
        f"{result.variant}: no likelihood, because {result.refused}" for result in record.results if result.refused
    ]
    show_notes((*data.get("notes", ()), *refused))


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


def show_evaluation(model: object, found: ModelEvaluation) -> None:
    """Print the likelihood that a stored flow gives test samples, and its inverse on them and elsewhere."""
    show_line(f"{model}: {found.data.test_size} test samples of {found.data.name}, seed {found.result.seed}")
    for line in _likelihood_lines(found):
        show_line(line)
    if found.inverses:
        rows = [
            (
                entry.name,
                f"{entry.converged} of {entry.count}",
                f"{entry.error_max:.2g}",
                f"{entry.relative_max:.2g}",
            )
            for entry in found.inverses
        ]
        show_table(
            "inverse(f(x)) for other inputs x", ("inputs",), ("converged", "largest error", "relative to x"), rows
        )


def _likelihood_lines(found: ModelEvaluation) -> list[str]:
    metrics, unit = found.result.metrics, f"{found.result.metrics.unit} per dimension"
    how = (
        "exact log-determinants"
        if found.exact
        else f"unbiased estimator; its probes add a standard error of {metrics.estimator_error:.4f}"
    )
    if found.result.refused is not None:
        lines = [f"no likelihood: {found.result.refused}"]
    else:
        lines = [f"{unit}: {metrics.per_dim:.4f} +- {metrics.standard_error:.4f} ({how})"]
    if found.data.learned and found.result.refused is None:
        lines[0] += ", evidence lower bound with learned noise"
    if found.unbiased is not None:
        added = f"its probes add a standard error of {found.unbiased_error:.4f}"
        lines.append(f"unbiased estimator: {found.unbiased:.4f}, {added}")
    if found.bound is not None:
        lines.append(_bound_line(found.bound))
    lines.append(f"median {metrics.median:.4f}, outliers {metrics.outliers}")
    inverse = f"largest inverse error {metrics.inverse_error_max:.2g}"
    return [*lines, f"{inverse}, spectral radius {metrics.spectral_radius_max:.3f}"]


def _bound_line(bound: ImportanceBound) -> str:
    name = "evidence lower bound, 1 draw" if bound.samples == 1 else f"importance-weighted bound, {bound.samples} draws"
    line = f"{name}: {bound.bits_per_dim:.4f} +- {bound.standard_error:.4f} bits per dimension"
    if bound.probe_bias:
        line += f" (random probes make it too low by up to about {bound.probe_bias:.1g})"
    return line
