"""Typed results of a diagnosis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from invattn._errors import DataError
from invattn.experiments.kit.record import Record, RunRecord

COLLISION_GREY_LEVELS = 2.0
"""RMS difference in grey levels from which on two images with one output are counted as a pair."""

COLLISION_OUTPUT = 1e-5
"""The largest difference of their outputs, in the norm of the diagnosis."""


@dataclass(frozen=True, kw_only=True)
class DiagnosedImage(Record):
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

    what: ClassVar[str] = "an image"

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


@dataclass(frozen=True, kw_only=True)
class DiagnosisRecord(RunRecord):
    """Everything that ``invattn diagnose`` reports; the content of its ``results.json``.

    ``data`` is ``{"name", "fingerprint", "test", "notes"}``, as in :class:`ReconstructionRecord`.

    Attributes:
        model: ``{"attention", "recipe", "certificate", "lost_from"}``; the last is the MSE from which on the
            reconstruction counts as lost.
        seconds: ``{"diagnosis", "reconstruction"}``, wall time in seconds.
        images: One entry for each test image.
    """

    experiment: ClassVar[str | None] = "diagnose"
    computed: ClassVar[frozenset[str]] = frozenset({"summary"})

    model: Mapping[str, Any]
    seconds: Mapping[str, Any]
    images: Sequence[DiagnosedImage]

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
        plain = super().to_json()
        images = plain.pop("images")
        return plain | {"summary": self.summary(), "images": images}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Build a record from JSON values.

        Raises:
            DataError: If it is no diagnosis, of another version, or damaged.
        """
        record = super().from_json(value)
        if not isinstance(record.model.get("lost_from"), (int, float)):
            raise DataError("'model' of results.json lacks the number 'lost_from'. Run `invattn diagnose` again.")
        return record

    @classmethod
    def _refusal(cls, version: int) -> str:
        return "results.json was not written by this version of `invattn diagnose`. Run it again."
