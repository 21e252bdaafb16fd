"""The parts of a density page that show images: samples, temperatures, walks, and nearest training images."""

from __future__ import annotations

from collections.abc import Sequence

from invattn.report import labels, pictures
from invattn.report.artifacts import Array, Artifact, MissingPartError, collect, same_length
from invattn.report.parts import Cell, Panel, Part, Row, Strip
from invattn.report.sheets import sheet_panel

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
    return Part(anchor="samples", panels=tuple(panels), left_out=tuple(left_out))


def temperatures(artifacts: Sequence[Artifact]) -> Part:
    """The same base draws at every temperature below and above 1."""
    built, left_out = collect(artifacts, _drawn)
    panels = [
        _samples(artifact, images[place], failed[place], float(value), title=f"{artifact.label}, temperature {value:g}")
        for artifact, (values, images, failed) in built
        for place, value in enumerate(values)
        if abs(float(value) - 1.0) > 1e-9
    ]
    return Part(anchor="temperatures", panels=tuple(panels), left_out=tuple(left_out))


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
    return Part(anchor="walks", strips=tuple(strips), left_out=tuple(left_out))


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
    name = labels.kind(artifact.attention)
    return name if artifact.recipe == "certified" else artifact.label


def nearest(artifacts: Sequence[Artifact]) -> Part:
    """Samples over the training images nearest to them, one strip for each variant."""
    built, left_out = collect(artifacts, _neighbours)
    return Part(anchor="nearest", strips=tuple(strip for _, strip in built), left_out=tuple(left_out))


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
