"""The parts of the page that show charts: residuals, error against steps, distribution of errors, training loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from invattn.experiments.kit.page.artifacts import Array, Artifact, MissingPartError, collect, same_length
from invattn.experiments.kit.page.charts import SMALLEST, Chart, Line, line_chart, log_limits, recipe_charts
from invattn.experiments.kit.page.parts import Key, Panel, Part, kind_keys
from invattn.experiments.reconstruction.page.strips import FAILURE
from invattn.experiments.reconstruction.record import ReconstructionResult


def _by_recipe(
    anchor: str, built: Sequence[tuple[Artifact, list[Line]]], chart: Chart, left_out: tuple[str, ...]
) -> Part:
    """A part with one chart for each recipe, and a line or more in it for each attention kind."""
    return Part(
        anchor=anchor,
        panels=recipe_charts([(artifact.recipe, lines) for artifact, lines in built], chart),
        keys=kind_keys(artifact.attention for artifact, _ in built),
        left_out=left_out,
    )


def residuals(artifacts: Sequence[Artifact]) -> Part:
    """Residual of the fixed-point iteration against its steps, one chart for each recipe."""

    def build(artifact: Artifact) -> list[Line]:
        steps, median, largest = artifact.take("residual_steps", "residual_median", "residual_max")
        same_length(steps, median, largest)
        return [
            Line(x=steps, y=median, role=artifact.attention),
            Line(x=steps, y=largest, role=artifact.attention, dashed=True),
        ]

    built, left_out = collect(artifacts, build)
    chart = Chart(
        name="residual",
        description="residual of the fixed-point iteration against its steps, for each attention kind",
        x_label="fixed-point steps",
        y_label="residual |x + g(x) − z|",
        log_y=True,
        y_limits=log_limits([line.y for _, lines in built for line in lines]),
    )
    part = _by_recipe("residuals", built, chart, left_out)
    dashes = (Key(role="muted", label="median image"), Key(role="muted", label="worst image", dashed=True))
    return replace(part, keys=(*part.keys, *dashes)) if built else part


def lipschitz_curves(artifacts: Sequence[Artifact]) -> Part:
    """Error against steps for several constants c, one chart for each attention kind and recipe."""
    built, left_out = collect(artifacts, _constants)
    limits = log_limits([curves for _, (_, _, curves) in built], top=1e4)
    constants = sorted({float(value) for _, (values, _, _) in built for value in values})
    roles = {value: f"step{1 + round(3 * rank / max(1, len(constants) - 1))}" for rank, value in enumerate(constants)}
    panels = []
    for artifact, (values, steps, curves) in built:
        lines = [Line(x=steps, y=curve, role=roles[float(c)]) for c, curve in zip(values, curves, strict=True)]
        chart = Chart(
            name=f"constant-{artifact.attention}-{artifact.recipe}",
            description=f"{artifact.label}: largest error of the recovered image against the steps, for each c",
            x_label="fixed-point steps N",
            y_label="largest |error|",
            log_y=True,
            y_limits=limits,
            size=(3.8, 2.8),
        )
        panels.append(Panel(title=artifact.label, svg=line_chart(lines, chart)))
    return Part(
        anchor="constants",
        panels=tuple(panels),
        keys=tuple(Key(role=roles[value], label=f"c = {value:g}") for value in constants),
        left_out=left_out,
    )


def _constants(artifact: Artifact) -> tuple[Array, Array, Array]:
    values, steps, curves = artifact.take("curve_c", "curve_steps", "curve_error")
    if curves.shape != (len(values), len(steps)) or not np.isfinite(values).all():
        raise MissingPartError("the stored arrays do not fit together")
    return values, steps, curves


def distributions(artifacts: Sequence[Artifact]) -> Part:
    """Share of test images up to each error, one chart for each recipe."""
    found, left_out = collect(artifacts, lambda artifact: artifact.take("all_mse")[0])
    low, high = log_limits([mse for _, mse in found] + [np.array([FAILURE, 100.0])], top=1e9)
    chart = Chart(
        name="distribution",
        description="share of test images up to each mean squared error, for each attention kind",
        x_label="MSE of an image (0–255 scale)",
        y_label="share of test images",
        log_x=True,
        x_limits=(low, high),
        y_limits=(-0.02, 1.03),
        threshold=(FAILURE, "V-score: MSE < 10"),
    )
    built = [(artifact, [_distribution(artifact, mse, low, high)]) for artifact, mse in found]
    return _by_recipe("distribution", built, chart, left_out)


def _distribution(artifact: Artifact, mse: Array, low: float, high: float) -> Line:
    """The empirical distribution function, drawn from end to end of the axis."""
    finite = np.sort(np.maximum(mse[np.isfinite(mse)].astype(np.float64), SMALLEST))
    x = np.concatenate([[low], np.clip(finite, low, None), [max(high, *finite[-1:], 1.0)]])
    shares = np.arange(1, len(finite) + 1) / len(mse)
    y = np.concatenate([[0.0], shares, shares[-1:] if len(finite) else [0.0]])
    return Line(x=x, y=y, role=artifact.attention, steps=True)


def losses(artifacts: Sequence[Artifact], results: Sequence[ReconstructionResult]) -> Part:
    """Training loss after each epoch, one chart for each recipe; every repeat that the record holds is drawn."""
    recorded = {(result.attention, result.recipe): result.train_loss for result in results}

    def build(artifact: Artifact) -> list[Line]:
        repeats = [np.asarray(loss) for loss in recorded.get((artifact.attention, artifact.recipe), ()) if len(loss)]
        if not repeats or max(len(loss) for loss in repeats) < 2:
            repeats = artifact.take("losses")
        return [
            Line(x=np.arange(1, len(loss) + 1), y=loss, role=artifact.attention, dashed=rank > 0)
            for rank, loss in enumerate(repeats)
        ]

    chart = Chart(
        name="loss",
        description="training loss after each epoch, for each attention kind",
        x_label="epoch",
        y_label="training loss",
        log_y=None,
    )
    built, left_out = collect(artifacts, build)
    return _by_recipe("training", built, chart, left_out)
