"""The page of a run of ``invattn camouflage train``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from invattn.records import CamouflageRecord
from invattn.report import camouflage_parts, formatting
from invattn.report.artifacts import Artifact
from invattn.report.camouflage_comparison import Comparison, comparisons
from invattn.report.camouflage_tables import SCORES, label_of, network_rows, ordered_groups, score_tables

TOLERANCE = 1e-4
"""Relative error up to which an attention module counts as inverted."""


def render_camouflage(record: CamouflageRecord, *, folder: Path) -> str:
    """Return the page as text.

    Args:
        record: The results to show.
        folder: Where the artifacts of the figures lie.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("invattn.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("camouflage.html").render(**_content(record, folder))


def _content(record: CamouflageRecord, folder: Path) -> dict[str, Any]:
    groups = ordered_groups(record)
    stored = [Artifact(folder, attention=group[0].attention, recipe=group[0].recipe) for group in groups]
    compared = comparisons(record)
    parts = [
        camouflage_parts.threshold_curves(stored),
        camouflage_parts.predicted_maps(stored),
        camouflage_parts.training_losses([row for group in groups for row in group]),
    ]
    return {
        "record": record,
        "data": {key: record.data.get(key) for key in ("name", "train", "notes")},
        "headline": headline(record, compared),
        "scores": list(SCORES.values()),
        "tables": score_tables(record),
        "networks": network_rows(record),
        "comparisons": compared,
        "stopped": _stopped(record),
        "settings": [(name, _setting(value)) for name, value in record.settings.items()],
        "parts": {part.anchor: part for part in parts},
    }


def headline(record: CamouflageRecord, compared: Sequence[Comparison]) -> list[str]:
    """Return what the run shows, in sentences."""
    sentences = []
    if compared:
        worst = min(compared, key=lambda entry: entry.mean)
        sentences.append(
            f"Against unconstrained attention, certified attention changes the S-measure by at worst {worst.text()} "
            f"({worst.label} on {worst.dataset}; {_seeds(len(worst.differences))})."
        )
    certified = [row for row in record.rows if row.certificate and row.inverse]
    if certified:
        errors = [row.inverse["error_max"] for row in certified if row.inverse]
        finite = [float(error) for error in errors if error is not None]
        if len(finite) == len(errors) and max(finite) <= TOLERANCE:
            sentences.append(
                f"Every certified module inverts what it sees in the trained network: relative error at most "
                f"{formatting.error(max(finite), digits=1)} over all test images looked at."
            )
        else:
            sentences.append(
                "A certified module did not invert to a relative error of 1e-4: see the table of networks."
            )
    return sentences


def _seeds(count: int) -> str:
    return "one seed, no interval" if count == 1 else f"95% interval over {count} seeds"


def _stopped(record: CamouflageRecord) -> list[str]:
    return [
        f"{label_of(row.attention, row.recipe)}, seed {row.seed}: {row.extra['stopped']}; it was not measured."
        for row in record.rows
        if row.extra.get("stopped")
    ]


def _setting(value: Any) -> str:
    if value is None:
        return "default"
    return ", ".join(str(entry) for entry in value) if isinstance(value, list) else str(value)
