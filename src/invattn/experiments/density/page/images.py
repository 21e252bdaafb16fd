"""The parts of a density page that show images: samples, temperatures, walks, and nearest training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from invattn.experiments.kit.page import formatting, pictures
from invattn.experiments.kit.page.artifacts import Array, Artifact, MissingPartError, collect, same_length
from invattn.experiments.kit.page.charts import Bars, bar_chart, common_limits
from invattn.experiments.kit.page.parts import Cell, Key, Panel, Part, Row, Scale, Strip
from invattn.experiments.kit.page.pictures import sheet_panel

_DECADES = 4
_FIELDS = {
    "convolution": "One convolution",
    "scale": "All of the first scale",
    "attention": "One attention block",
}


@dataclass(frozen=True)
class _Measurement:
    """One number of every block: how its charts are titled and where its values lie among the arrays."""

    name: str
    title: str
    axis: str
    values: str
    scale: float = 1.0
    whiskers: str = ""

    def of(self, arrays: dict[str, Array]) -> Array:
        """Return the heights of the bars."""
        heights: Array = self.scale * arrays[self.values]
        return heights

    def errors(self, arrays: dict[str, Array]) -> Array | None:
        """Return the lengths of the whiskers; None where there are none."""
        return self.scale * arrays[self.whiskers] if self.whiskers else None

    def ends(self, arrays: dict[str, Array]) -> list[Array]:
        """Return the ends of all bars and whiskers."""
        heights, errors = self.of(arrays), self.errors(arrays)
        return [heights] if errors is None else [heights - errors, heights + errors]


def block_effects(artifacts: Sequence[Artifact], *, unit: str, factor: float) -> Part:
    """Log-determinant, contribution and size of every residual block, a chart for each variant.

    Args:
        artifacts: The stored arrays of the variants.
        unit: Of the likelihoods on the page, such as ``bits/dim``.
        factor: What nats per dimension are multiplied by to get it.
    """
    built, left_out = collect(artifacts, _effects)
    measurements = (
        _Measurement("log-det", "Log-determinant", f"log|det| / d ({unit})", "block_log_det", factor),
        _Measurement("change", "Left out", f"rise of −log p ({unit})", "block_change", factor, "block_change_error"),
        _Measurement("size", "Size", "|g(x)| / |x|", "block_size"),
    )
    panels = [panel for measurement in measurements for panel in _charts(measurement, built)]
    return Part(anchor="blocks", panels=tuple(panels), keys=_keys(built), left_out=left_out)


def _effects(artifact: Artifact) -> dict[str, Array]:
    names = ("block_kinds", "block_log_det", "block_size", "block_change", "block_change_error")
    arrays = artifact.take(*names)
    same_length(*arrays)
    return dict(zip(names, arrays, strict=True))


def _charts(measurement: _Measurement, built: Sequence[tuple[Artifact, dict[str, Array]]]) -> list[Panel]:
    """Return one chart for each variant, none where nothing was measured.

    Certified ones share their axis; what diverges in another has an axis of its own.
    """
    shared = [arrays for artifact, arrays in built if artifact.recipe == "certified"]
    limits = common_limits([end for arrays in shared for end in measurement.ends(arrays)])
    panels = []
    for artifact, arrays in built:
        heights = measurement.of(arrays)
        if np.isfinite(heights).any():
            bars = Bars(
                values=heights,
                errors=measurement.errors(arrays),
                roles=[_role(str(kind)) for kind in arrays["block_kinds"]],
                name=f"block-{measurement.name}-{artifact.attention}-{artifact.recipe}",
                description=f"{measurement.title.lower()} of each residual block of {artifact.label}",
                x_label="residual block, in order",
                y_label=measurement.axis,
                y_limits=limits if artifact.recipe == "certified" else None,
            )
            panels.append(Panel(title=f"{measurement.title}: {artifact.label}", svg=bar_chart(bars)))
    return panels


def _role(kind: str) -> str:
    """Return the colour of a block from its description, such as ``dot_product attention``."""
    name = kind.split()[0]
    return name if name in formatting.MIXERS else "other"


def _keys(built: Sequence[tuple[Artifact, dict[str, Array]]]) -> tuple[Key, ...]:
    kinds = [str(kind) for _, arrays in built for kind in arrays["block_kinds"]]
    roles = formatting.in_order((_role(kind) for kind in kinds), formatting.MIXERS)
    words = {"convolution": "Convolution", "other": "Other"}
    return tuple(Key(role=role, label=words.get(role, formatting.kind(role))) for role in roles)


def receptive_fields(artifacts: Sequence[Artifact]) -> Part:
    """|dz_i / dx_j| around a middle place i: one convolution, all blocks of a scale, one attention block."""
    built, left_out = collect(artifacts, _field_row)
    rows = tuple(row for _, row in built)
    strips: tuple[Strip, ...] = ()
    if rows:
        widest = max(len(row.cells) for row in rows)
        heads = tuple(_FIELDS.values())[:widest]
        strips = (Strip(title="Around the middle place", rows=rows, heads=heads),)
    ticks = tuple((100.0 * step / _DECADES, _tick(step - _DECADES)) for step in range(_DECADES + 1))
    scale = Scale(
        gradient=pictures.gradient(pictures.ERROR_MAP),
        ticks=ticks,
        title="|∂zᵢ/∂xⱼ| as a share of its largest value",
    )
    return Part(anchor="fields", strips=strips, scale=scale if rows else None, left_out=left_out)


def _tick(exponent: int) -> str:
    return "1" if exponent == 0 else f"10⁻{'⁰¹²³⁴'[-exponent]}"


def _field_row(artifact: Artifact) -> Row:
    names, maps, place = artifact.take("field_names", "field_maps", "field_place")
    same_length(names, maps)
    known = list(_FIELDS)
    if [str(name) for name in names] != known[: len(names)] or place.shape != (2,):
        raise MissingPartError("the stored receptive fields are not those that this page knows")
    height, width = maps.shape[1:]
    mark = (100 * (float(place[1]) + 0.5) / width, 100 * (float(place[0]) + 0.5) / height, "i")
    cells = []
    for name, values in zip(names, maps, strict=True):
        largest = float(np.max(values))
        share = 1.0 - float(values[int(place[0]), int(place[1])]) / float(values.sum())
        reached = int((values > 1e-6 * largest).sum())
        cells.append(
            Cell(
                uri=pictures.log_heat(values / largest, low=10.0**-_DECADES, high=1.0),
                alt=f"{_FIELDS[str(name)]} of {artifact.label}: {reached} of {values.size} places reached",
                caption=f"{reached} places, {share:.0%} off i",
                marks=(mark,),
            )
        )
    return Row(label=formatting.kind(artifact.attention), kind=artifact.attention, cells=tuple(cells))


_SMALL = 64


def image_samples(artifacts: Sequence[Artifact]) -> Part:
    """Grids of samples at temperature 1 side by side, one for each variant, and one of test images: Fig. 5."""
    controls_first = sorted(artifacts, key=lambda artifact: artifact.attention != "none")
    built, left_out = collect(controls_first, lambda artifact: (*_drawn(artifact), *artifact.take("real_images")))
    panels = []
    if built:
        real = built[0][1][3]
        panels.append(sheet_panel(real, title="Data: test images", description=f"{len(real)} test images"))
    for artifact, (temperatures, images, failed, _) in built:
        place = int(abs(temperatures - 1.0).argmin())
        panels.append(
            _samples(artifact, images[place], failed[place], float(temperatures[place]), title=artifact.label)
        )
    return Part(anchor="samples", panels=tuple(panels), left_out=left_out)


def temperatures(artifacts: Sequence[Artifact]) -> Part:
    """The same base draws at every temperature below and above 1."""
    built, left_out = collect(artifacts, _drawn)
    panels = [
        _samples(artifact, images[place], failed[place], float(value), title=f"{artifact.label}, temperature {value:g}")
        for artifact, (values, images, failed) in built
        for place, value in enumerate(values)
        if abs(float(value) - 1.0) > 1e-9
    ]
    return Part(anchor="temperatures", panels=tuple(panels), left_out=left_out)


def all_samples(artifact: Artifact) -> Part:
    """Samples of one flow, a grid for each temperature.

    Raises:
        MissingPartError: If there are none.
    """
    values, images, failed = _drawn(artifact)
    panels = [
        _samples(artifact, images[place], failed[place], float(value), title=f"Temperature {value:g}")
        for place, value in enumerate(values)
    ]
    return Part(anchor="samples", panels=tuple(panels))


def _drawn(artifact: Artifact) -> tuple[Array, Array, Array]:
    values, images, failed = artifact.take("sample_temperatures", "sample_images", "sample_failed")
    same_length(values, images, failed)
    if images.shape[:2] != failed.shape:
        raise MissingPartError("the stored arrays do not fit together")
    return values, images, failed


def _samples(artifact: Artifact, images: Array, failed: Array, temperature: float, *, title: str) -> Panel:
    lost = int(failed.astype(bool).sum())
    note = f": {lost} of {len(images)} inverses failed (red)" if lost else ""
    description = f"{len(images)} samples of {artifact.label} at temperature {temperature:g}"
    return sheet_panel(images, title=f"{title}{note}", description=description, failed=failed.astype(bool))


def walks(artifacts: Sequence[Artifact]) -> Part:
    """Walks between test images through latent space: one strip for each walk, one row for each variant."""
    built, left_out = collect(artifacts, lambda artifact: artifact.take("walk_images")[0])
    strips = []
    for number in range(max((len(images) for _, images in built), default=0)):
        rows = tuple(
            _walk(artifact, images[number], number + 1, _short(artifact))
            for artifact, images in built
            if number < len(images)
        )
        steps = max(len(row.cells) for row in rows)
        heads = ("Test image", *("" for _ in range(steps - 2)), "Test image")
        strips.append(Strip(title=f"Walk {number + 1}", rows=rows, heads=heads, pixels=_small(built[0][1])))
    return Part(anchor="walks", strips=tuple(strips), left_out=left_out)


def own_walks(artifact: Artifact) -> Part:
    """Walks of one flow, one row for each.

    Raises:
        MissingPartError: If there are none.
    """
    (images,) = artifact.take("walk_images")
    rows = tuple(_walk(artifact, walk, number, f"Walk {number}") for number, walk in enumerate(images, start=1))
    heads = ("Test image", *("" for _ in range(images.shape[1] - 2)), "Test image")
    return Part(anchor="walks", strips=(Strip(title=artifact.label, rows=rows, heads=heads, pixels=_small(images)),))


def _walk(artifact: Artifact, images: Array, number: int, label: str) -> Row:
    cells = tuple(
        Cell(uri=pictures.png(image), alt=f"walk {number} of {artifact.label}, image {step}")
        for step, image in enumerate(images, start=1)
    )
    return Row(label=label, kind=artifact.attention, cells=cells)


def _short(artifact: Artifact) -> str:
    """A variant's name for the label of a row; the recipe where it is not the usual one."""
    name = formatting.kind(artifact.attention)
    return name if artifact.recipe == "certified" else artifact.label


def nearest(artifacts: Sequence[Artifact]) -> Part:
    """Samples over the training images nearest to them, one strip for each variant."""
    built, left_out = collect(artifacts, _neighbours)
    return Part(anchor="nearest", strips=tuple(strip for _, strip in built), left_out=left_out)


def _neighbours(artifact: Artifact) -> Strip:
    samples, images, distances = artifact.take("nearest_samples", "nearest_images", "nearest_distance")
    same_length(samples, images, distances)
    if images.shape[:2] != distances.shape:
        raise MissingPartError("the stored arrays do not fit together")
    own = tuple(
        Cell(uri=pictures.png(image), alt=f"sample {number} of {artifact.label}")
        for number, image in enumerate(samples, start=1)
    )
    rows = [Row(label="Sample", kind=artifact.attention, cells=own)]
    for rank in range(images.shape[1]):
        cells = tuple(
            Cell(
                uri=pictures.png(image),
                alt=f"training image {rank + 1} nearest to sample {number} of {artifact.label}",
                caption=_distance(float(distance)),
            )
            for number, (image, distance) in enumerate(zip(images[:, rank], distances[:, rank], strict=True), start=1)
        )
        rows.append(Row(label="Nearest training image" if rank == 0 else f"Number {rank + 1}", cells=cells))
    return Strip(title=artifact.label, rows=tuple(rows), pixels=_small(samples))


def _distance(value: float) -> str:
    return f"{value:.1f}" if value == value and value < 1e6 else "not finite"


def _small(images: Array) -> bool:
    return max(int(side) for side in images.shape[-3:-1]) <= _SMALL
