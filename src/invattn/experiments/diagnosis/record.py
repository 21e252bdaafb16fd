"""Typed results of a diagnosis."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from invattn._errors import DataError
from invattn._files import plain_values, read_json
from invattn.experiments.kit.record import SCHEMA_VERSION, Reader

COLLISION_GREY_LEVELS = 2.0
"""RMS difference in grey levels from which on two images with one output are counted as a pair."""

COLLISION_OUTPUT = 1e-5
"""The largest difference of their outputs, in the norm of the diagnosis."""


@dataclass(frozen=True, kw_only=True)
class DiagnosedImage:
    """What was measured of one test image; numbers that were left out are nan.

    Attributes:
        index: Number of the image in the data set.
        spectral_radius: Estimate of the largest |eigenvalue| of J_g at the image.
        path_radius: The largest one on the way to its output.
        spectral_norm: Estimate of |J_g|_2.
        lipschitz_ratio: Largest local Lipschitz ratio that was found.
        det_sign: Sign of det(I + J_g); 0 where it was not computed.
        reasons: Why it is flagged; empty where it is not.
        second_preimage: Whether another input with the same output was found.
        rms: Root mean squared difference of the two on the 0-255 scale; 0 where none was found.
        output_difference: Difference of the two outputs.
        pull: Share of the way to the other input on which the residual points there.
        mse: Mean squared error of the reconstruction on the 0-255 scale, measured apart from all else.
    """

    index: int
    spectral_radius: float
    path_radius: float
    spectral_norm: float
    lipschitz_ratio: float
    det_sign: int
    reasons: Sequence[str]
    second_preimage: bool
    rms: float
    output_difference: float
    pull: float
    mse: float

    @property
    def flagged(self) -> bool:
        """Whether its inverse is expected to fail."""
        return bool(self.reasons)

    @property
    def collides(self) -> bool:
        """Whether it has one output with another, visibly different image."""
        return self.second_preimage and self.rms >= COLLISION_GREY_LEVELS and self.output_difference <= COLLISION_OUTPUT

    @classmethod
    def from_json(cls, value: Any) -> DiagnosedImage:
        """Build an image's numbers from JSON values.

        Raises:
            DataError: If a key is missing or holds a value of the wrong kind.
        """
        source = Reader(value, "an image")
        other = {"reasons": source.get("reasons", list), "second_preimage": source.get("second_preimage", bool)}
        return cls(**other, **{f.name: source.number(f.name) for f in fields(cls) if f.name not in other})


@dataclass(frozen=True, kw_only=True)
class DiagnosisRecord:
    """Everything that ``invattn diagnose`` reports; the content of its ``results.json``.

    Attributes:
        command: The command line that was run.
        seed: The seed of the run.
        versions: Library name -> version.
        data: ``{"name", "fingerprint", "test", "notes"}``, as in :class:`ReconstructionRecord`.
        settings: Option name -> value, as run.
        model: ``{"attention", "recipe", "certificate", "lost_from"}``; the last is the MSE from which on the
            reconstruction counts as lost.
        images: One entry for each test image.
        seconds: ``{"diagnosis", "reconstruction"}``, wall time in seconds.
        schema_version: Version of the file's layout.
    """

    command: str
    seed: int
    versions: Mapping[str, str]
    data: Mapping[str, Any]
    settings: Mapping[str, Any]
    model: Mapping[str, Any]
    images: Sequence[DiagnosedImage]
    seconds: Mapping[str, float]
    schema_version: int = SCHEMA_VERSION

    def lost(self, image: DiagnosedImage) -> bool:
        """Whether the reconstruction of an image failed; an error that is not a number did."""
        return not image.mse < float(self.model["lost_from"])

    def summary(self) -> dict[str, Any]:
        """Return the counts, and precision and recall of the flag; None where there is nothing to divide by."""
        lost = [self.lost(image) for image in self.images]
        flagged = [image.flagged for image in self.images]
        both = sum(a and b for a, b in zip(lost, flagged, strict=True))
        return {
            "images": len(self.images),
            "flagged": sum(flagged),
            **{
                name: sum(name in image.reasons for image in self.images) for name in ("repelling", "slow", "competing")
            },
            "second_preimages": sum(image.second_preimage for image in self.images),
            "pairs": sum(image.collides for image in self.images),
            "det_computed": sum(image.det_sign != 0 for image in self.images),
            "det_negative": sum(image.det_sign < 0 for image in self.images),
            "lost": sum(lost),
            "lost_and_flagged": both,
            "recall": both / sum(lost) if any(lost) else None,
            "precision": both / sum(flagged) if any(flagged) else None,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values, the counts before the images."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "images"}
        images = [{f.name: getattr(image, f.name) for f in fields(image)} for image in self.images]
        head = {"schema_version": None, "experiment": "diagnose"}
        plain: dict[str, Any] = plain_values({**head, **own, "summary": self.summary(), "images": images})
        return plain

    @classmethod
    def from_json(cls, value: Any) -> DiagnosisRecord:
        """Build a record from JSON values.

        Raises:
            DataError: If it is no diagnosis, of another version, or damaged.
        """
        source = Reader(value, "results.json")
        if (
            source.get("experiment", str, default="") != "diagnose"
            or source.get("schema_version", int) != SCHEMA_VERSION
        ):
            raise DataError("results.json was not written by this version of `invattn diagnose`. Run it again.")
        model = source.get("model", dict)
        if not isinstance(model.get("lost_from"), (int, float)):
            raise DataError("'model' of results.json lacks the number 'lost_from'. Run `invattn diagnose` again.")
        return cls(
            command=source.get("command", str),
            seed=source.get("seed", int),
            versions=source.get("versions", dict),
            data=source.get("data", dict),
            settings=source.get("settings", dict),
            model=model,
            images=[DiagnosedImage.from_json(entry) for entry in source.get("images", list)],
            seconds=source.get("seconds", dict),
        )


def read_diagnosis(path: str | os.PathLike[str]) -> DiagnosisRecord:
    """Read the ``results.json`` of a diagnosis.

    Raises:
        DataError: If it is missing, broken or of another layout; one line that names the file.
    """
    value = read_json(path)
    try:
        return DiagnosisRecord.from_json(value)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
