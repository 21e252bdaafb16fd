"""Measure maps that lie in a folder, and write those of a stored network."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from invattn._errors import DataError
from invattn._files import atomic_write, write_json
from invattn.experiments.camouflage.measure import predict_map
from invattn.experiments.camouflage.network import load_network
from invattn.experiments.camouflage.page.page import render_maps
from invattn.experiments.camouflage.pairs import IMAGES, MASKS, Match, match_stems, read_grey, read_mask
from invattn.experiments.camouflage.record import MapMetrics
from invattn.experiments.camouflage.scores import MapMeasures
from invattn.experiments.kit.data.folder import list_images
from invattn.experiments.kit.data.pixels import read_picture
from invattn.experiments.kit.output import check_output, make_folder
from invattn.experiments.kit.page.pictures import sheet
from invattn.experiments.kit.progress import Progress
from invattn.experiments.kit.record import SCHEMA_VERSION

SHOWN = 8
"""Pairs of a set that are shown, the first ones."""

HEIGHT, GAP = 128, 4  # pixels


def map_sheet(pairs: Sequence[Match], pictures: Mapping[str, Path] | None) -> bytes:
    """Return a PNG with a column for each of the first pairs: image, if there is one, mask, map.

    Args:
        pairs: Stem, map and mask.
        pictures: Stem -> image, or None.

    Raises:
        DataError: If a file cannot be read.
    """
    columns = [_column(stem, prediction, mask, pictures) for stem, prediction, mask in pairs[:SHOWN]]
    rows = [np.asarray(part) for row in zip(*columns, strict=True) for part in row]
    return sheet(rows, columns=len(columns), gap=GAP)


def _column(stem: str, prediction: Path, mask: Path, pictures: Mapping[str, Path] | None) -> list[Image.Image]:
    truth = Image.fromarray(read_mask(mask).numpy())
    size = (max(1, round(HEIGHT * truth.width / truth.height)), HEIGHT)
    parts = [truth, Image.fromarray(read_grey(prediction).numpy())]
    if pictures is not None:
        parts.insert(0, Image.fromarray(read_picture(pictures[stem]).pixels.permute(1, 2, 0).contiguous().numpy()))
    return [part.resize(size, Image.Resampling.BILINEAR).convert("RGB") for part in parts]


def evaluate_maps(
    predictions: Path,
    masks: Path,
    *,
    name: str | None,
    output: Path,
    progress: Progress,
    images: Path | None = None,
) -> dict[str, MapMetrics]:
    """Measure maps against masks and write ``output/results.json`` and a page, ``output/maps.html``.

    Args:
        predictions: A folder of maps, or of folders of maps, one for each set.
        masks: A folder of masks, or of folders of masks with the same names, or of sets with ``GT`` inside.
        name: Of the set, where there is only one; None: that of the folder.
        output: Where the file goes; made if it is missing.
        progress: Is told of every map.
        images: What the maps are of, laid out as the masks, or sets with ``Imgs`` inside; for the pictures.

    Returns:
        Set -> what was measured.

    Raises:
        DataError: If a folder or a file cannot be used; one line that says what to do.
        OSError: If a file cannot be written.
    """
    check_output(output)
    sets = _sets(predictions, masks, name=name)
    matched = {part: match_stems(*folders, what=("map", "mask")) for part, folders in sets.items()}
    pictures = {} if images is None else _pictures(images, matched, several=bool(_folders(predictions)))
    found: dict[str, MapMetrics] = {}
    for part, pairs in matched.items():
        progress.begin(f"measure {part}", total=len(pairs))
        try:
            found[part] = _measure(pairs, progress)
        finally:
            progress.end()
    content = {"schema_version": SCHEMA_VERSION, "experiment": "camouflage evaluation"}
    plain = {part: values.to_json() for part, values in found.items()}
    sheets = {part: map_sheet(pairs, pictures.get(part)) for part, pairs in matched.items()}
    write_json(make_folder(output) / "results.json", content | {"sets": plain})
    atomic_write(output / "maps.html", render_maps(found, sheets).encode("utf-8"))
    return found


def _measure(pairs: Sequence[Match], progress: Progress) -> MapMetrics:
    measures = MapMeasures()
    for _, prediction, mask in pairs:
        measures.add(read_grey(prediction).numpy(), read_mask(mask).numpy())
        progress.advance()
    return measures.scores().metrics


def _pictures(images: Path, matched: Mapping[str, Sequence[Match]], *, several: bool) -> dict[str, dict[str, Path]]:
    """Return set -> stem -> the file of the image."""
    found: dict[str, dict[str, Path]] = {}
    for part, pairs in matched.items():
        folder = images / part if several else images
        folder = folder / IMAGES if (folder / IMAGES).is_dir() else folder
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}: --images is laid out as --masks.")
        masks = pairs[0].second.parent
        found[part] = {stem: path for stem, path, _ in match_stems(folder, masks, what=("image", "mask"))}
    return found


def predict_folder(model: Path, images: Path, *, output: Path, progress: Progress) -> int:
    """Write the map of every image of a folder as ``<stem>.png``, of the image's size, and return their number.

    Args:
        model: The folder of a stored network.
        images: The folder of images.
        output: Where the maps go; made if it is missing.
        progress: Is told of every image.

    Raises:
        DataError: If a folder or an image cannot be used, or two images have one stem; one line.
        CertificateError: If the network is not the one that was certified.
        OSError: If a map cannot be written.
    """
    check_output(output)
    network, config = load_network(model)
    paths = list_images(images)
    match_stems(images, images, what=("image", "image"))  # two images with one stem would write one file
    if output.exists() and output.samefile(images):
        raise DataError(f"the maps would replace the images of {images}: choose another --output.")
    make_folder(output)
    progress.begin("predict", total=len(paths))
    try:
        for path in paths:
            levels = predict_map(network, read_picture(path).pixels, side=config.image_size)
            stream = io.BytesIO()
            Image.fromarray(levels).save(stream, format="PNG")
            atomic_write(output / f"{path.stem}.png", stream.getvalue())
            progress.advance()
    finally:
        progress.end()
    return len(paths)


def _sets(predictions: Path, masks: Path, *, name: str | None) -> dict[str, tuple[Path, Path]]:
    """Return the folder of maps and the folder of masks of every set."""
    for folder in (predictions, masks):
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}: check the path.")
    inside = _folders(predictions)
    if not inside:
        masks = _masks_of(masks)
        own = masks.parent.name if masks.name == MASKS else masks.name
        return {name or own or "maps": (predictions, masks)}
    if name is not None:
        raise DataError(f"--name is for a single set and {predictions} holds {len(inside)}: leave it out.")
    missing = [part for part in inside if not (masks / part).is_dir()]
    if missing:
        raise DataError(f"{masks} has no folder {missing[0]}, which {predictions} has: give each set a folder in both.")
    return {part: (predictions / part, _masks_of(masks / part)) for part in inside}


def _masks_of(folder: Path) -> Path:
    return folder / MASKS if (folder / MASKS).is_dir() else folder


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
