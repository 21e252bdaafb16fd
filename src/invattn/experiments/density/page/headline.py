"""What came out of a density run, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from invattn.experiments.density.page.tables import Measure, kind_of, measure_of, name_of, recipe_of, subject_of
from invattn.experiments.density.record import DensityRecord, DensityResult
from invattn.experiments.kit.page.artifacts import Array, Artifact, MissingPartError

Stored = Callable[[DensityResult], Array | None]
"""Returns -log p / d of every test sample of a result, shape (n,), in nats; None where it is not known."""

CONTROLS = ("pointwise", "uniform", "convolution", "none")
_AGAINST = {
    "pointwise": "the control P = I",
    "convolution": "one more convolution",
    "uniform": "uniform pooling",
    "none": "no such block",
}
_WORTH = 0.01
"""Bits per dimension by which attention has to beat both controls to be said to help; a convention."""


def headline(record: DensityRecord, stored: Stored = lambda result: None) -> list[str]:
    """Say of each attention what it reached and how it compares to its controls; standard errors need ``stored``."""
    measure, subject = measure_of(record), subject_of(record)
    if subject == "images":
        sentences = _of_images(record.results, measure, stored)
    else:
        sentences = (_of_plane if subject == "plane" else _of_points)(record.results, measure)
    refused = [f"{name_of(r)}: no likelihood, because {r.refused}." for r in record.results if r.refused]
    return [*sentences, *refused] or ["Controls only: no attention was trained."]


def _of_plane(results: Sequence[DensityResult], measure: Measure) -> list[str]:
    return [
        f"{value:.3f} {measure.long} (seed {result.seed})."
        for result in results
        if (value := result.metrics.per_dim) is not None
    ]


def _of_points(results: Sequence[DensityResult], measure: Measure) -> list[str]:
    sentences = []
    control = [result for result in results if kind_of(result) == "pointwise"]
    for result in results:
        value = result.metrics.per_dim
        if kind_of(result) in CONTROLS or value is None:
            continue
        sentence = f"{name_of(result)}: {value:.3f} {measure.long} (seed {result.seed})"
        same = [other.metrics.per_dim for other in control if other.seed == result.seed]
        if same and same[0] is not None:
            gain = same[0] - value
            word = "less" if gain > 0 else "more"
            sentence += f", {abs(gain):.3f} {word} than the control whose points do not see each other"
        sentences.append(f"{sentence}.")
    return sentences


def _of_images(results: Sequence[DensityResult], measure: Measure, stored: Stored) -> list[str]:
    measured = [result for result in results if kind_of(result) not in CONTROLS and result.metrics.per_dim is not None]
    variants = dict.fromkeys(result.variant for result in measured)
    return [_sentence([r for r in results if r.variant == variant], results, measure, stored) for variant in variants]


def _sentence(own: Sequence[DensityResult], results: Sequence[DensityResult], measure: Measure, stored: Stored) -> str:
    values = {result.seed: value for result in own if (value := result.metrics.per_dim) is not None}
    seeds = f"seed {next(iter(values))}" if len(values) == 1 else f"mean of {len(values)} seeds"
    text = f"{name_of(own[0])}: {sum(values.values()) / len(values):.3f} {measure.long} ({seeds})"
    gains = {kind: gain for kind in CONTROLS if (gain := _gain(kind, own, results, measure, stored)) is not None}
    if not gains:
        return f"{text}."
    words = [f"{gain.text} against {_AGAINST[kind]}" for kind, gain in gains.items()]
    return f"{text}: {', '.join(words)}.{_verdict(gains)}"


@dataclass(frozen=True)
class _Gain:
    """A mean difference to a control, below 0 where it is better, and its paired standard error if it is known."""

    mean: float
    error: float | None

    @property
    def text(self) -> str:
        """Such as ``-0.050 ± 0.003``."""
        return f"{self.mean:+.3f}" if self.error is None else f"{self.mean:+.3f} ± {self.error:.3f}"

    @property
    def worth(self) -> bool:
        """Whether it is better by more than ``_WORTH``, and by more than two standard errors."""
        return self.mean < -max(_WORTH, 2 * (self.error or 0.0))


def _gain(
    kind: str, own: Sequence[DensityResult], results: Sequence[DensityResult], measure: Measure, stored: Stored
) -> _Gain | None:
    """Compare with a control of the same recipe, or else the certified one, over the seeds that both have."""
    controls = [result for result in results if kind_of(result) == kind and result.metrics.per_dim is not None]
    same = [result for result in controls if recipe_of(result) == recipe_of(own[0])]
    certified = [result for result in controls if recipe_of(result) == "certified"]
    chosen = {result.seed: result for result in same or certified}
    pairs = [(mine, chosen[mine.seed]) for mine in own if mine.seed in chosen and mine.metrics.per_dim is not None]
    if not pairs:
        return None
    differences = [(mine.metrics.per_dim or 0.0) - (other.metrics.per_dim or 0.0) for mine, other in pairs]
    return _Gain(sum(differences) / len(pairs), _paired_error(pairs, measure, stored))


def _paired_error(
    pairs: Sequence[tuple[DensityResult, DensityResult]], measure: Measure, stored: Stored
) -> float | None:
    """Return the standard error over the test samples, which both saw, of the mean difference over the seeds."""
    rows = [(stored(mine), stored(other)) for mine, other in pairs]
    found = [mine - other for mine, other in rows if mine is not None and other is not None and len(mine) == len(other)]
    if len(found) < len(pairs) or len({len(row) for row in found}) != 1 or len(found[0]) < 2:
        return None
    per_sample = measure.factor * np.mean(found, axis=0)
    error = float(per_sample.std(ddof=1)) / float(len(per_sample)) ** 0.5
    return error if np.isfinite(error) else None


def _verdict(gains: Mapping[str, _Gain]) -> str:
    if not {"pointwise", "convolution"} <= gains.keys():
        return ""
    if gains["pointwise"].worth and gains["convolution"].worth:
        return f" It beats both controls by more than {_WORTH:g}."
    return f" It does not beat both controls by more than {_WORTH:g}: what mixing adds is not visible here."


def stored_likelihoods(folder: Path) -> Stored:
    """Return a function that reads -log p / d of every test sample of a result, in nats; None where it is missing."""

    def read(result: DensityResult) -> Array | None:
        repeat = result.extra.get("repeat") or 0
        recipe = f"{recipe_of(result)}-{repeat}" if repeat else recipe_of(result)
        try:
            return Artifact(folder, attention=kind_of(result), recipe=recipe).take("nats")[0]
        except MissingPartError:
            return None

    return read
