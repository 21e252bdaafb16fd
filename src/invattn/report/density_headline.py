"""What came out of a density run, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from invattn.records import DensityRecord, DensityResult
from invattn.report.density_measure import Measure, measure_of, subject_of
from invattn.report.density_parts import kind_of, name_of

CONTROLS = ("pointwise", "uniform", "convolution", "none")
_AGAINST = {
    "pointwise": "the control P = I",
    "convolution": "one more convolution",
    "uniform": "uniform pooling",
    "none": "no such block",
}
_WORTH = 0.01
"""Bits per dimension by which attention has to beat both controls to be said to help; a convention."""


def headline(record: DensityRecord) -> list[str]:
    """Say of each attention what it reached, and by how much it beats or misses its controls."""
    measure, subject = measure_of(record), subject_of(record)
    make = {"images": _of_images, "plane": _of_plane, "sets": _of_points}[subject]
    sentences = make(record.results, measure)
    refused = [f"{name_of(r)}: no likelihood, because {r.refused}." for r in record.results if r.refused]
    return [*sentences, *refused] or ["Controls only: no attention was trained."]


def _of_plane(results: Sequence[DensityResult], measure: Measure) -> list[str]:
    return [
        f"{value:.3f} {measure.long} (seed {result.seed})."
        for result in results
        if (value := measure.of(result)) is not None
    ]


def _of_points(results: Sequence[DensityResult], measure: Measure) -> list[str]:
    sentences = []
    control = [result for result in results if kind_of(result) == "pointwise"]
    for result in results:
        value = measure.of(result)
        if kind_of(result) in CONTROLS or value is None:
            continue
        sentence = f"{name_of(result)}: {value:.3f} {measure.long} (seed {result.seed})"
        same = [measure.of(other) for other in control if other.seed == result.seed]
        if same and same[0] is not None:
            gain = same[0] - value
            word = "less" if gain > 0 else "more"
            sentence += f", {abs(gain):.3f} {word} than the control whose points do not see each other"
        sentences.append(f"{sentence}.")
    return sentences


def _of_images(results: Sequence[DensityResult], measure: Measure) -> list[str]:
    variants = dict.fromkeys(result.variant for result in results if kind_of(result) not in CONTROLS)
    return [_sentence([r for r in results if r.variant == variant], results, measure) for variant in variants]


def _sentence(own: Sequence[DensityResult], results: Sequence[DensityResult], measure: Measure) -> str:
    values = {result.seed: value for result in own if (value := measure.of(result)) is not None}
    if not values:
        return f"{name_of(own[0])}: no likelihood."
    seeds = f"seed {next(iter(values))}" if len(values) == 1 else f"mean of {len(values)} seeds"
    text = f"{name_of(own[0])}: {sum(values.values()) / len(values):.3f} {measure.long} ({seeds})"
    gains = {kind: gain for kind in CONTROLS if (gain := _gain(kind, values, results, measure)) is not None}
    if not gains:
        return f"{text}."
    words = [f"{gain:+.3f} against {_AGAINST[kind]}" for kind, gain in gains.items()]
    return f"{text}: {', '.join(words)}.{_verdict(gains)}"


def _gain(kind: str, values: dict[int, float], results: Sequence[DensityResult], measure: Measure) -> float | None:
    """Return the mean difference to a control, over the seeds that both have; below 0 is better than the control."""
    pairs = [
        (values[result.seed], value)
        for result in results
        if kind_of(result) == kind and result.seed in values and (value := measure.of(result)) is not None
    ]
    return sum(own - other for own, other in pairs) / len(pairs) if pairs else None


def _verdict(gains: dict[str, float]) -> str:
    if not {"pointwise", "convolution"} <= gains.keys():
        return ""
    if max(gains["pointwise"], gains["convolution"]) < -_WORTH:
        return f" It beats both controls by more than {_WORTH:g}."
    return f" It does not beat both controls by more than {_WORTH:g}: what mixing adds is not visible here."
