"""The parts of a density page that show images: samples, temperatures, walks, and nearest training images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from invattn.experiments.kit.page import formatting, pictures
from invattn.experiments.kit.page.artifacts import Array, Artifact, MissingPartError, collect, same_length
from invattn.experiments.kit.page.charts import Chart, bar_chart, common_limits
from invattn.experiments.kit.page.parts import Cell, Key, Panel, Part, Row, Scale, Strip
from invattn.experiments.kit.page.pictures import sheet_panel

_DECADES = 4
_FIELDS = {
    "convolution": "One convolution",
    "scale": "All of the first scale",
    "attention": "One attention block",
}


_Effects = tuple[Array, dict[str, tuple[Array, Array]]]
"""The kinds of one variant's blocks, and (heights of bars, lengths of whiskers) for each quantity, 0 for none."""


def block_effects(artifacts: Sequence[Artifact], *, unit: str, factor: float) -> Part:
    """Log-determinant, contribution and size of every block by variant, in ``unit``: nats/dim times ``factor``."""
    built, left_out = collect(artifacts, lambda artifact: _effects(artifact, factor))
    panels = [
        *_charts(built, "log-det", title="Log-determinant", axis=f"log|det| / d ({unit})"),
        *_charts(built, "change", title="Left out", axis=f"rise of −log p ({unit})"),
        *_charts(built, "size", title="Size", axis="|g(x)| / |x|"),
    ]
    roles = formatting.in_order((_role(kind) for _, (kinds, _) in built for kind in kinds), formatting.MIXERS)
    words = {"convolution": "Convolution", "other": "Other"}
    keys = tuple(Key(role=role, label=words.get(role, formatting.kind(role))) for role in roles)
    return Part(anchor="blocks", panels=tuple(panels), keys=keys, left_out=left_out)


def _effects(artifact: Artifact, factor: float) -> _Effects:
    names = ("block_kinds", "block_log_det", "block_size", "block_change", "block_change_error")
    kinds, log_det, size, change, error = artifact.take(*names)
    same_length(kinds, log_det, size, change, error)
    none = np.zeros(len(kinds))
    return kinds, {
        "log-det": (factor * log_det, none),
        "change": (factor * change, factor * error),
        "size": (size, none),
    }


def _charts(built: Sequence[tuple[Artifact, _Effects]], quantity: str, *, title: str, axis: str) -> Iterator[Panel]:
    """One chart for each variant, none where nothing was measured.

    Certified ones share their axis; what diverges in another has an axis of its own.
    """
    shared = [own[quantity] for artifact, (_, own) in built if artifact.recipe == "certified"]
    limits = common_limits([end for heights, errors in shared for end in (heights - errors, heights + errors)])
    for artifact, (kinds, own) in built:
        heights, errors = own[quantity]
        if np.isfinite(heights).any():
            chart = Chart(
                name=f"block-{quantity}-{artifact.attention}-{artifact.recipe}",
                description=f"{title.lower()} of each residual block of {artifact.label}",
                x_label="residual block, in order",
                y_label=axis,
                y_limits=limits if artifact.recipe == "certified" else None,
                size=(3.7, 2.7),
            )
            whiskers = errors if quantity == "change" else None
            svg = bar_chart(heights, chart, roles=[_role(kind) for kind in kinds], errors=whiskers)
            yield Panel(title=f"{title}: {artifact.label}", svg=svg)


def _role(kind: str) -> str:
    """Return the colour of a block from its description, such as ``dot_product attention``."""
    name = str(kind).split()[0]
    return name if name in formatting.MIXERS else "other"


def receptive_fields(artifacts: Sequence[Artifact]) -> Part:
    """|dz_i / dx_j| around a middle place i: one convolution, all blocks of a scale, one attention block."""
    built, left_out = collect(artifacts, _field_row)
    rows = tuple(row for _, row in built)
    strips: tuple[Strip, ...] = ()
    if rows:
        widest = max(len(row.cells) for row in rows)
        heads = tuple(_FIELDS.values())[:widest]
        strips = (Strip(title="Around the middle place", rows=rows, heads=heads),)
    ticks = tuple((100.0 * step / _DECADES, formatting.power_of_ten(step - _DECADES)) for step in range(_DECADES + 1))
    scale = Scale(
        gradient=pictures.gradient(pictures.ERROR_MAP),
        ticks=ticks,
        title="|∂zᵢ/∂xⱼ| as a share of its largest value",
    )
    return Part(anchor="fields", strips=strips, scale=scale if rows else None, left_out=left_out)


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
    """Samples of one flow, a grid for each temperature; MissingPartError if there are none."""
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
            _walk(
                artifact,
                images[number],
                number + 1,
                formatting.kind(artifact.attention) if artifact.recipe == "certified" else artifact.label,
            )
            for artifact, images in built
            if number < len(images)
        )
        strips.append(_walk_strip(f"Walk {number + 1}", rows, built[0][1]))
    return Part(anchor="walks", strips=tuple(strips), left_out=left_out)


def own_walks(artifact: Artifact) -> Part:
    """Walks of one flow, one row for each; MissingPartError if there are none."""
    (images,) = artifact.take("walk_images")
    rows = tuple(_walk(artifact, walk, number, f"Walk {number}") for number, walk in enumerate(images, start=1))
    return Part(anchor="walks", strips=(_walk_strip(artifact.label, rows, images),))


def _walk_strip(title: str, rows: tuple[Row, ...], images: Array) -> Strip:
    steps = max(len(row.cells) for row in rows)
    heads = ("Test image", *("" for _ in range(steps - 2)), "Test image")
    return Strip(title=title, rows=rows, heads=heads, pixels=pictures.are_small(images))


def _walk(artifact: Artifact, images: Array, number: int, label: str) -> Row:
    name = artifact.label
    return pictures.row(label, images, lambda step: f"walk {number} of {name}, image {step}", kind=artifact.attention)


def nearest(artifacts: Sequence[Artifact]) -> Part:
    """Samples over the training images nearest to them, one strip for each variant."""
    built, left_out = collect(artifacts, _neighbours)
    return Part(anchor="nearest", strips=tuple(strip for _, strip in built), left_out=left_out)


def _neighbours(artifact: Artifact) -> Strip:
    samples, images, distances = artifact.take("nearest_samples", "nearest_images", "nearest_distance")
    same_length(samples, images, distances)
    if images.shape[:2] != distances.shape:
        raise MissingPartError("the stored arrays do not fit together")
    name = artifact.label
    rows = [pictures.row("Sample", samples, lambda number: f"sample {number} of {name}", kind=artifact.attention)]
    for rank in range(images.shape[1]):
        cells = tuple(
            Cell(
                uri=pictures.png(image),
                alt=f"training image {rank + 1} nearest to sample {number} of {name}",
                caption=f"{distance:.1f}" if distance < 1e6 else "not finite",
            )
            for number, (image, distance) in enumerate(zip(images[:, rank], distances[:, rank], strict=True), start=1)
        )
        rows.append(Row(label="Nearest training image" if rank == 0 else f"Number {rank + 1}", cells=cells))
    return Strip(title=artifact.label, rows=tuple(rows), pixels=pictures.are_small(samples))
