"""Crops from the colour photographs that scikit-image ships: real images without a download."""

from collections.abc import Iterator, Mapping
from importlib import resources
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from invattn._errors import DataError
from invattn.experiments.kit.data.gather import ImageSize
from invattn.experiments.kit.data.pixels import to_picture
from invattn.experiments.kit.data.reading import Picture, Pictures

# The views of one scene stay together, so that no scene is seen in training and in the test.
TRAIN_PICTURES: Mapping[str, tuple[str, ...]] = {
    "astronaut": ("astronaut.png",),
    "hubble_deep_field": ("hubble_deep_field.jpg",),
    "immunohistochemistry": ("ihc.png",),
    "retina": ("retina.jpg",),
    "stereo_motorcycle": ("motorcycle_left.png", "motorcycle_right.png"),
}
TEST_PICTURES: Mapping[str, tuple[str, ...]] = {
    "chelsea": ("chelsea.png",),
    "coffee": ("coffee.png",),
    "rocket": ("rocket.jpg",),
}

_ORIGINAL_HEIGHT, _ORIGINAL_WIDTH = 218, 178
_LARGEST_SIDE = 256


def open_photos(*, train_size: int, test_size: int, image_size: ImageSize, seed: int) -> Pictures:
    """Cut random crops out of eight photographs, five for training and three for the test.

    With a number s as image size, crops are squares with a side drawn from s to 256 pixels. With `"original"` they are
    218x178 (height x width) pixels, the size of CelebA's images. Pictures take turns.

    Args:
        train_size: how many training crops are wanted.
        test_size: how many test crops are wanted.
        image_size: the side in pixels, at most 256, or `"original"`.
        seed: decides every crop; more crops begin with the same ones.

    Returns:
        the crops, not yet resized.

    Raises:
        DataError: when scikit-image is not installed, or the image size is above 256.
    """
    if image_size != "original" and image_size > _LARGEST_SIDE:
        raise DataError(
            f"photos has crops of at most {_LARGEST_SIDE} pixels; got image size {image_size}: ask for less"
        )
    note = (
        f"random crops from {len(TRAIN_PICTURES)} training pictures ({', '.join(TRAIN_PICTURES)}) "
        f"and {len(TEST_PICTURES)} test pictures ({', '.join(TEST_PICTURES)}), seed {seed}"
    )
    return Pictures(
        _crops(TRAIN_PICTURES, count=train_size, image_size=image_size, seed=2 * seed),
        _crops(TEST_PICTURES, count=test_size, image_size=image_size, seed=2 * seed + 1),
        (note,),
    )


def _crops(
    pictures: Mapping[str, tuple[str, ...]], *, count: int, image_size: ImageSize, seed: int
) -> Iterator[Picture]:
    """Yield `count` random crops, taking the pictures in turn."""
    generator = torch.Generator().manual_seed(seed % 2**63)
    scenes = [(name, [_read(file) for file in files]) for name, files in pictures.items()]
    for number in range(count):
        name, views = scenes[number % len(scenes)]
        pixels = views[_draw(0, len(views) - 1, generator)]
        yield Picture(f"crop {number} of {name}", _crop(pixels, image_size=image_size, generator=generator))


def _crop(pixels: Tensor, *, image_size: ImageSize, generator: torch.Generator) -> Tensor:
    if image_size == "original":
        height, width = _ORIGINAL_HEIGHT, _ORIGINAL_WIDTH
    else:
        height = width = _draw(image_size, _LARGEST_SIDE, generator)
    top = _draw(0, pixels.shape[-2] - height, generator)
    left = _draw(0, pixels.shape[-1] - width, generator)
    return pixels[:, top : top + height, left : left + width]


def _draw(low: int, high: int, generator: torch.Generator) -> int:
    """Draw a whole number from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _read(file: str) -> Tensor:
    """Read a picture from scikit-image's own folder; its loaders could ask the network for a missing file."""
    try:
        content = resources.files("skimage").joinpath("data", file).read_bytes()
    except ModuleNotFoundError as error:
        raise DataError(
            "photos needs scikit-image, which is not installed: pip install 'invertible-attention[experiments]'"
        ) from error
    except OSError as error:
        raise DataError(
            f"this scikit-image does not ship {Path(file).name}: install scikit-image 0.25, or use --data with a folder"
        ) from error
    with Image.open(BytesIO(content)) as image:
        return to_picture(image, name=file).pixels
