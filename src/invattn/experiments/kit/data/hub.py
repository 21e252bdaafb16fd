"""The same data sets downloaded through Hugging Face `datasets`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from invattn._errors import DataError
from invattn.experiments.kit.data.pixels import to_picture
from invattn.experiments.kit.data.reading import ImageRequest, Picture, Pictures, brief, optional_module


@dataclass(frozen=True)
class HubSet:
    """Where a data set lies on the hub.

    Args:
        path: its name on the hub, or a local folder in the same format.
        config: its configuration, or None for the only one.
        column: the column that holds the images.
        test_from_end: take the last test images, not the first.
    """

    path: str
    config: str | None
    column: str
    test_from_end: bool = False


HUB_SETS = {
    "cifar10": HubSet("uoft-cs/cifar10", "plain_text", "img"),
    "svhn": HubSet("ufldl-stanford/svhn", "cropped_digits", "image"),
    "celeba": HubSet("flwrlabs/celeba", None, "image", test_from_end=True),
}


def open_hub(hub_set: HubSet, request: ImageRequest, *, cache_dir: Path | None = None) -> Pictures:
    """Download a data set, or find it in the cache, and take images of its `train` and `test` splits.

    Args:
        hub_set: which one.
        request: how many images are wanted; of the training images the first are taken.
        cache_dir: where downloads are kept; None for the library's own place.

    Raises:
        DataError: when it cannot be downloaded, or has not the expected splits or column.
    """
    train, test = (_load_split(hub_set, split, cache_dir) for split in ("train", "test"))
    first = max(0, len(test) - request.test_size) if hub_set.test_from_end else 0
    train_rows, test_rows = range(len(train))[: request.train_size], range(len(test))[first:][: request.test_size]
    return Pictures(
        pictures_of_split(train, column=hub_set.column, rows=train_rows, name="training"),
        pictures_of_split(test, column=hub_set.column, rows=test_rows, name="test"),
        (f"downloaded from the Hugging Face hub: {hub_set.path}",),
    )


def pictures_of_split(split: Any, *, column: str, rows: Sequence[int], name: str) -> Iterator[Picture]:
    """Yield images of some rows of a loaded split, in their order.

    Args:
        split: a `datasets.Dataset`, or any sequence of rows with `column_names`.
        column: the column that holds the images.
        rows: which rows.
        name: how messages call the split.

    Raises:
        DataError: when there is no such column, or it holds no images.
    """
    if column not in split.column_names:
        raise DataError(
            f"the {name} split has no column {column!r} (it has {', '.join(split.column_names)}): "
            "pass --data-root instead"
        )
    for row in rows:
        image = split[row][column]
        if not isinstance(image, Image.Image):
            raise DataError(f"column {column!r} of the {name} split holds no images: pass --data-root instead")
        yield to_picture(image, name=f"image {row} of the {name} split")


def _load_split(hub_set: HubSet, split: str, cache_dir: Path | None) -> Any:
    library = optional_module("datasets", distribution="datasets")
    cache = None if cache_dir is None else str(cache_dir)
    try:
        return library.load_dataset(hub_set.path, hub_set.config, split=split, cache_dir=cache)
    except Exception as error:  # the hub, the network, the disk and the format each raise their own kinds
        raise DataError(
            f"{hub_set.path} could not be downloaded from the Hugging Face hub ({brief(error)}): "
            "check the connection, or pass --data-root with the publishers' files"
        ) from error
