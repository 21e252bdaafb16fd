"""The pages of a run and of maps that were measured against masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from invattn.experiments.camouflage.page import parts, tables
from invattn.experiments.camouflage.record import CamouflageRecord, MapMetrics
from invattn.experiments.kit.page import formatting, pictures
from invattn.experiments.kit.page.artifacts import Artifact
from invattn.experiments.kit.page.environment import render_page, write_page

TOLERANCE = 1e-4
"""Relative error up to which an attention module counts as inverted."""


def write_report(folder: Path) -> Path:
    """Write ``report.html`` from ``results.json`` and ``artifacts/`` of a run's folder, as ``write_page`` does."""
    return write_page(folder / "report.html", render(CamouflageRecord.read(folder / "results.json"), folder=folder))


def render(record: CamouflageRecord, *, folder: Path) -> str:
    """Return the page of a run's results as text; the artifacts of the figures lie in ``folder``."""
    groups = tables.ordered_groups(record)
    stored = [Artifact(folder, attention=group[0].attention, recipe=group[0].recipe) for group in groups]
    compared = tables.comparisons(record)
    return render_page(
        "camouflage",
        "camouflage.html",
        record=record,
        parts=[
            parts.threshold_curves(stored),
            parts.predicted_maps(stored),
            parts.training_losses([row for group in groups for row in group]),
        ],
        headline=headline(record, compared),
        scores=tables.SCORES,
        tables=tables.score_tables(record),
        networks=tables.network_rows(record),
        comparisons=compared,
        label_of=tables.label_of,
    )


def headline(record: CamouflageRecord, compared: Sequence[tables.Comparison]) -> list[str]:
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


COLUMNS = {
    "s_measure": "S",
    "f_mean": "F mean",
    "f_max": "F max",
    "f_adaptive": "F adaptive",
    "f_weighted": "F weighted",
    "e_mean": "E mean",
    "e_max": "E max",
    "e_adaptive": "E adaptive",
    "mae": "MAE",
}


def render_maps(sets: Mapping[str, MapMetrics], sheets: Mapping[str, bytes]) -> str:
    """Return the page of measured sets as text; a sheet is a PNG of the first maps of a set, below their masks."""
    uris = {name: pictures.address(sheet) for name, sheet in sheets.items()}
    return render_page("camouflage", "maps.html", sets=sets, columns=COLUMNS, pictures=uris)
