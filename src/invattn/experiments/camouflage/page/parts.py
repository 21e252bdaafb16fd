"""The figures of a camouflage page: curves over thresholds, maps, training losses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from invattn.experiments.camouflage.page.tables import label_of
from invattn.experiments.camouflage.record import CamouflageRow
from invattn.experiments.kit.page import formatting, pictures
from invattn.experiments.kit.page.artifacts import Array, Artifact, MissingPartError, collect
from invattn.experiments.kit.page.charts import Chart, Line, line_chart, recipe_charts
from invattn.experiments.kit.page.parts import Key, Panel, Part, Row, Strip

_BASE = "other"
"""Colour of the network without attention."""

_MEASURES = {"threshold_f": "F-measure", "threshold_e": "E-measure"}


def threshold_curves(artifacts: Sequence[Artifact]) -> Part:
    """F and E against the threshold, as in Fig. 6: one chart for each test set, measure and recipe."""

    def build(artifact: Artifact) -> tuple[list[str], dict[str, Array]]:
        names, *curves = artifact.take("threshold_sets", *_MEASURES)
        if any(len(curve) != len(names) for curve in curves):
            raise MissingPartError("the stored arrays do not fit together")
        return [str(name) for name in names], dict(zip(_MEASURES, curves, strict=True))

    built, left_out = collect(artifacts, build)
    recipes = formatting.in_order(
        (artifact.recipe for artifact, _ in built if artifact.attention != "none"), formatting.RECIPES
    )
    panels = []
    for name in dict.fromkeys(name for _, (names, _) in built for name in names):
        for measure, words in _MEASURES.items():
            for recipe in recipes or ["none"]:
                # The stored curves run from the threshold 255 down to 0.
                lines = [
                    _line(
                        curves[measure][names.index(name)][::-1],
                        artifact.attention,
                        dashed=artifact.attention == "none",
                    )
                    for artifact, (names, curves) in built
                    if name in names and artifact.recipe in (recipe, "none")
                ]
                form = formatting.recipe(recipe)
                chart = Chart(
                    name=f"{measure}-{name}-{recipe}",
                    description=f"{name}: {words} against the threshold, {form.lower()} attention and the Base network",
                    x_label="threshold",
                    y_label=words,
                    y_limits=(0.0, 1.0),
                    size=(3.8, 2.8),
                )
                panels.append(Panel(title=f"{name}: {words}, {form.lower()}", svg=line_chart(lines, chart)))
    keys = _legend(artifact.attention for artifact, _ in built)
    return Part(anchor="curves", panels=tuple(panels), keys=keys, left_out=left_out)


def predicted_maps(artifacts: Sequence[Artifact]) -> Part:
    """Image, mask and the map of each network, as in Fig. 7."""
    built, left_out = collect(artifacts, lambda artifact: tuple(artifact.take("map_sets", "map_pictures")))
    strips = []
    for name in dict.fromkeys(str(name) for _, (names, _) in built for name in names):
        rows: list[Row] = []
        for artifact, (names, images) in built:
            chosen = images[np.asarray([str(other) == name for other in names])]
            label = label_of(artifact.attention, artifact.recipe)
            if not rows:
                rows = [_row("Image", chosen[:, 0], name), _row("Mask", chosen[:, 1], name)]
            rows.append(_row(label, chosen[:, 2], name, kind=artifact.attention))
        strips.append(Strip(title=name, rows=tuple(rows), pixels=False))
    return Part(anchor="maps", strips=tuple(strips), left_out=left_out)


def training_losses(rows: Sequence[CamouflageRow]) -> Part:
    """Training loss after each epoch, one chart for each recipe, with the Base network in all."""
    first = min((row.seed for row in rows), default=0)
    recipes = dict.fromkeys(row.recipe for row in rows if row.attention != "none") or ["none"]
    built = [
        (recipe, [_line(np.asarray(row.train_loss, float), row.attention, first=1, dashed=row.seed != first)])
        for recipe in recipes
        for row in rows
        if row.recipe in (recipe, "none") and len(row.train_loss)
    ]
    chart = Chart(
        name="mask-loss",
        description="binary cross-entropy of the training after each epoch",
        x_label="epoch",
        y_label="binary cross-entropy",
        size=(3.8, 2.8),
    )
    keys = _legend(row.attention for row in rows)
    return Part(anchor="training", panels=recipe_charts(built, chart), keys=keys)


def _line(y: Array, kind: str, *, first: int = 0, dashed: bool) -> Line:
    return Line(x=np.arange(first, first + len(y)), y=y, role=_role(kind), dashed=dashed)


def _row(label: str, images: Array, name: str, *, kind: str = "") -> Row:
    return pictures.row(label, images, lambda number: f"{label}, test image {number} of {name}", kind=kind)


def _role(kind: str) -> str:
    return _BASE if kind == "none" else kind


def _legend(kinds: Iterable[str]) -> tuple[Key, ...]:
    ordered = formatting.in_order(kinds, formatting.DETECTORS)
    return tuple(Key(role=_role(kind), label=formatting.DETECTORS.get(kind, kind)) for kind in ordered)
