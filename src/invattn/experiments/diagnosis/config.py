"""What a user decides about a diagnosis."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from invattn.diagnosis import Checks, SecondPreimageSearch
from invattn.experiments.kit.data.sets import SETS
from invattn.experiments.kit.options import (
    Count,
    Mark,
    ModelFolder,
    PhotographOptions,
    Switch,
    command_line,
    whole_number,
)

LARGEST_DETERMINANT = 4096
"""Entries of an image up to which ``--det`` computes a determinant: 3 x 32 x 32 has 3072."""

_NEAREST = 0.25
"""The nearest starts lie at this share of the size of an image; the next ones at twice that, and so on."""


@dataclass(frozen=True, kw_only=True)
class DiagnosisConfig(PhotographOptions):
    """Options of ``invattn diagnose``; test images and noise are those of the reconstruction experiment.

    Attributes:
        model: A model folder: OUTPUT/model/VARIANT of a run.
        images: Most test images (default: all).
        starts: Starts of the search for second preimages, for each image: an even number, half in either direction.
        det: The sign of det(I + J) of 32x32 images too: about ten seconds each.
        batch_size: Images that are diagnosed together.
        seed: Decides everything that is random; that of the training run.
        output: Folder to write.

    Raises:
        ValueError: If a name is unknown or a number is out of range.
    """

    model: Annotated[ModelFolder, Mark.UNSTORED]
    images: Count | None = None
    starts: Annotated[int, whole_number(2, multiple=2), "K"] = 4
    det: Switch = False
    batch_size: Count = 50
    output: Annotated[Path, Mark.UNSTORED]

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

    def command(self) -> str:
        """Return a command line that repeats the run, with placeholders for the folders of this machine."""
        data = {"data": self.data if self.data in SETS else "DIR", "data_root": self.data_root and "DATA"}
        return command_line("diagnose MODEL", data | self.settings() | {"det": "" if self.det else None})
