"""Crops from the colour photographs that scikit-image ships: real images without a download."""

from collections.abc import Iterator, Mapping
from importlib import resources
from io import BytesIO

import torch
from PIL import Image
from torch import Tensor

from invattn._errors import DataError
from invattn.experiments.kit.data.pixels import to_picture
from invattn.experiments.kit.data.reading import ImageRequest, ImageSize, Picture, Pictures

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

_SHIPPED = {"scikit-image": ("skimage", "data"), "scikit-learn": ("sklearn", "datasets", "images")}

_ORIGINAL_HEIGHT, _ORIGINAL_WIDTH = 218, 178
_LARGEST_SIDE = 256


def open_photos(request: ImageRequest) -> Pictures:
    """Cut random crops out of eight photographs, five for training and three for the test.

    With a number s as image size, crops are squares with a side drawn from s to 256 pixels. With `"original"` they are
    218x178 (height x width) pixels, the size of CelebA's images. Pictures take turns. More crops begin with the same
    ones.

    Args:
        request: how many crops are wanted, their size, at most 256, and the seed, which decides every crop.

    Raises:
        DataError: when scikit-image is not installed, or the image size is above 256.
    """
    if request.image_size != "original" and request.image_size > _LARGEST_SIDE:
        raise DataError(
            f"photos has crops of at most {_LARGEST_SIDE} pixels; got image size {request.image_size}: ask for less"
        )
    note = (
        f"random crops from {len(TRAIN_PICTURES)} training pictures ({', '.join(TRAIN_PICTURES)}) "
        f"and {len(TEST_PICTURES)} test pictures ({', '.join(TEST_PICTURES)}), seed {request.seed}"
    )
    size, seed = request.image_size, 2 * request.seed
    return Pictures(
        _crops(TRAIN_PICTURES, count=request.train_size, image_size=size, seed=seed),
        _crops(TEST_PICTURES, count=request.test_size, image_size=size, seed=seed + 1),
        (note,),
    )


def _crops(
    pictures: Mapping[str, tuple[str, ...]], *, count: int, image_size: ImageSize, seed: int
) -> Iterator[Picture]:
    """Yield `count` random crops, taking the pictures in turn."""
    generator = torch.Generator().manual_seed(seed % 2**63)
    scenes = [(name, [read_shipped(file) for file in files]) for name, files in pictures.items()]
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


def read_shipped(
    file: str,
    *,
    data: str = "photos",
    library: str = "scikit-image",
    remedy: str = "install scikit-image 0.25, or use --data with a folder",
) -> Tensor:
    """Read a picture from a library's own folder, uint8, shape (3, H, W).

    The library's loaders could ask the network for a missing file.

    Args:
        file: its name.
        data: the data set that it is for, for messages.
        library: `scikit-image` or `scikit-learn`.
        remedy: what to do where the library does not ship it, for messages.

    Raises:
        DataError: when the library is not installed, or does not ship it.
    """
    package, *folders = _SHIPPED[library]
    try:
        content = resources.files(package).joinpath(*folders, file).read_bytes()
    except ModuleNotFoundError as error:
        raise DataError(
            f"{data} needs {library}, which is not installed: pip install 'invertible-attention[experiments]'"
        ) from error
    except OSError as error:
        raise DataError(f"this {library} does not ship {file}: {remedy}") from error
    with Image.open(BytesIO(content)) as image:
        return to_picture(image, name=file).pixels
