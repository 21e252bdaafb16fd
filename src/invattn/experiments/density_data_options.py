"""What a user decides about the data of the density experiment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from invattn._names import check_name
from invattn.data import DENSITY_IMAGES
from invattn.data.plane import PLANE
from invattn.data.point_sets import DIMENSIONS, POINTS

DATASETS = ("sets", *PLANE, *DENSITY_IMAGES)
"""Names of data sets; a folder of images is valid too."""


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The data.

    Attributes:
        data: ``sets`` (generated sets of 32 points in the plane), ``two-moons``, ``8-gaussians`` or ``checkerboard``
            (generated points), ``digits``, ``photos``, ``cifar10``, ``svhn``, ``celeba``, or a folder of images.
        data_root: Where cifar10, svhn or celeba lie as published; None downloads them.
        image_size: Side of the images in pixels.
        train_size: Number of training images wanted; generated samples are new at every step.
        test_size: Number of test samples.
        flips: Whether training images are mirrored at random.
    """

    data: str = "sets"
    data_root: Path | None = None
    image_size: int = 32
    train_size: int = 50_000
    test_size: int = 500
    flips: bool = False

    @property
    def family(self) -> str:
        """``sets``, ``plane`` or ``images``: which kind of flow the data need."""
        if self.data == "sets":
            return "sets"
        return "plane" if self.data in PLANE else "images"

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        if self.family == "sets":
            return (POINTS, DIMENSIONS)
        if self.family == "plane":
            return (DIMENSIONS,)
        return (1 if self.data == "digits" else 3, self.image_size, self.image_size)

    def check_data(self) -> None:
        """Check the names and numbers.

        Raises:
            ValueError: If a name is unknown or a number is out of range.
        """
        if not is_folder(self.data):
            check_name(self.data, DATASETS, what="data set of the density experiment")
        if self.train_size < 1 or self.image_size < 2:
            raise ValueError(
                f"train_size must be at least 1 and image_size at least 2; got {self.train_size} and {self.image_size}."
            )
        if self.test_size < 2:
            raise ValueError(f"test_size must be at least 2; got {self.test_size}.")


def is_folder(name: str) -> bool:
    """Whether a name is no data set but an existing folder."""
    return name not in DATASETS and name != "" and Path(name).is_dir()
