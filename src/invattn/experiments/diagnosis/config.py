"""What a user decides about a diagnosis."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from invattn._errors import check_name
from invattn.diagnosis import Checks, SecondPreimageSearch
from invattn.experiments.kit.data.sets import SETS
from invattn.experiments.kit.options import IMAGE_SIZES, ORIGINAL

LARGEST_DETERMINANT = 4096
"""Entries of an image up to which ``--det`` computes a determinant: 3 x 32 x 32 has 3072."""

_NEAREST = 0.25
"""The nearest starts lie at this share of the size of an image; the next ones at twice that, and so on."""


@dataclass(frozen=True, kw_only=True)
class DiagnosisConfig:
    """Options of ``invattn diagnose``; test images and noise are those of the reconstruction experiment.

    Attributes:
        model: Folder of the model.
        output: Folder for the results.
        data: ``photos``, ``cifar10``, ``svhn``, ``celeba``, or a folder of images.
        data_root: Where the publishers' files of ``data`` lie; None downloads them.
        images: Largest number of test images; None is all of them.
        image_size: ``32`` or ``original``.
        starts: Starts of the search for second preimages, for each image: an even number, half in either direction.
        det: Compute the sign of det(I + J) of 32x32 images too, some ten seconds each.
        batch_size: Images that are diagnosed together.
        seed: Decides the split of the data, the noise and the first vectors.

    Raises:
        ValueError: If a name is unknown or a number is out of range.
    """

    model: Path
    output: Path
    data: str = "photos"
    data_root: Path | None = None
    images: int | None = None
    image_size: str = "32"
    starts: int = 4
    det: bool = False
    batch_size: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        check_name(self.image_size, IMAGE_SIZES, what="image size")
        if self.starts < 2 or self.starts % 2:
            raise ValueError(f"starts must be an even number, at least 2; got {self.starts}.")
        if self.batch_size < 1 or (self.images is not None and self.images < 1):
            raise ValueError(f"images and batch_size must be at least 1; got {self.images}, {self.batch_size}.")

    def pixels(self) -> int | Literal["original"]:
        """Return the image size as the data layer takes it."""
        return "original" if self.image_size == ORIGINAL else int(self.image_size)

    def checks(self, *, picard_steps: int) -> Checks:
        """Return what is looked at.

        Args:
            picard_steps: Steps of the inverse that is warned of.
        """
        distances = tuple(_NEAREST * (k + 1) for k in range(self.starts // 2))
        search = SecondPreimageSearch(distances=distances, from_radius=0.0)  # every image, so that the count is one
        usual = Checks(picard_steps=picard_steps, search=search)
        return Checks(
            picard_steps=picard_steps,
            search=search,
            det_limit=max(LARGEST_DETERMINANT, usual.det_limit) if self.det else usual.det_limit,
        )

    def settings(self) -> dict[str, Any]:
        """Return every option that may change the numbers, as run; no paths."""
        names = ("images", "image_size", "starts", "det", "batch_size", "seed")
        return {name: getattr(self, name) for name in names}

    def command(self) -> str:
        """Return a command line that repeats the run, with placeholders for the folders of this machine."""
        parts = ["invattn diagnose MODEL", f"--data {self.data if self.data in SETS else 'DIR'}"]
        parts += [] if self.data_root is None else ["--data-root DATA"]
        for name, value in self.settings().items():
            option = "--" + name.replace("_", "-")
            if value is True:
                parts.append(option)
            elif value is not None and value is not False:
                parts.append(f"{option} {value}")
        return " ".join([*parts, "--output OUT"])
