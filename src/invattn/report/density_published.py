"""The paper's density table beside this run."""

from __future__ import annotations

from dataclasses import dataclass

from invattn.records import DensityRecord, published_rows
from invattn.report import labels
from invattn.report.density_measure import measure_of
from invattn.report.density_parts import kind_of, name_of

PUBLISHED_TRAINING = 50_000
"""Training images of CIFAR-10, which the published figures are of."""

_MODELS = {
    "none": "i-ResNet",
    "dot_product": "i-ResNet + Dot-product attention",
    "concatenation": "i-ResNet + Concatenation attention",
}


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One model; every field is ready to print, empty where there is no figure."""

    kind: str
    label: str
    published: str
    ours: str


def published_table(record: DensityRecord) -> list[PublishedRow]:
    """Return Table 3 of the paper, our certified variants beside the models they stand for, and then all others.

    Ours are means over the seeds that were not refused.
    """
    measure = measure_of(record)
    groups: dict[tuple[str, str], list[float | None]] = {}
    names: dict[tuple[str, str], str] = {}
    for result in record.results:
        key = (kind_of(result), result.variant)
        groups.setdefault(key, []).append(measure.of(result))
        names[key] = name_of(result)
    shown = {key: _mean(values) for key, values in groups.items()}
    rows, used = [], set()
    for published in published_rows("table3"):
        kind = next((kind for kind, model in _MODELS.items() if model == published["model"]), "")
        key = (kind, f"{kind}-certified")
        used.add(key)
        row = PublishedRow(
            kind=kind, label=published["model"], published=published["bits_per_dim"], ours=shown.get(key, "")
        )
        rows.append(row)
    kinds = labels.in_order((kind for kind, _ in shown), labels.MIXERS)
    rest = sorted((key for key in shown if key not in used), key=lambda key: (kinds.index(key[0]), key[1]))
    return [*rows, *(PublishedRow(kind=key[0], label=names[key], published="", ours=shown[key]) for key in rest)]


def _mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.3f}" if known else "refused"


def comparison_note(record: DensityRecord) -> str:
    """Say whether our figures are of the data that the published ones are of."""
    name, train, dimensions = (record.data.get(key) for key in ("name", "train", "dimensions"))
    if name == "cifar10" and dimensions == 3 * 32 * 32 and isinstance(train, int) and train >= PUBLISHED_TRAINING:
        return "Both are of CIFAR-10 at 32×32 with all 50,000 training images."
    count = f"{train:,}" if isinstance(train, int) else "other"
    return (
        f"The two columns must not be compared: the published figures are of CIFAR-10 at 32×32 with 50,000 training "
        f"images, ours of {labels.dataset(str(name))} at {shape_words(record)} with {count} training images."
    )


def shape_words(record: DensityRecord) -> str:
    """Return the size of an image, such as ``16×16``."""
    shape = record.data.get("event_shape") or ()
    return "×".join(str(side) for side in shape[1:]) if len(shape) == 3 else "another size"
