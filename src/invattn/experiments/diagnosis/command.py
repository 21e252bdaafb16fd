"""``invattn diagnose``: which test images a model's inverse will lose, why, and which inputs share an output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invattn.experiments.diagnosis.config import DiagnosisConfig
from invattn.experiments.kit.parser import Command

if TYPE_CHECKING:
    from invattn.experiments.diagnosis.record import DiagnosisRecord


def diagnose(config: DiagnosisConfig) -> None:
    """Diagnose, write the page, and print the counts and the paths.

    Raises:
        KeyboardInterrupt: If the user stopped the work; its text says what to do.
    """
    from invattn.experiments.diagnosis.page.page import write_diagnosis
    from invattn.experiments.diagnosis.run import run_diagnosis
    from invattn.experiments.kit.terminal import progress_shown, show_path

    try:
        with progress_shown() as progress:
            record = run_diagnosis(config, progress=progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "interrupted: nothing was written. Run the command again, with --images N for fewer images."
        ) from None
    page, *pictures = write_diagnosis(config.output)
    show_counts(record)
    for picture in pictures:
        show_path("picture", picture)
    show_path("page", page)


COMMAND = Command(
    name="diagnose",
    summary="find what the inverse of a model loses, and why",
    description="Diagnose a stored block on test images: spectral radius and norm, folds, other inputs with the same "
    "output. Writes OUTPUT/results.json, OUTPUT/diagnose.html and pictures. The exit status is 0 also where images are "
    "flagged.",
    options=DiagnosisConfig,
    run=diagnose,
)


def show_counts(record: DiagnosisRecord) -> None:
    """Print the counts, and the notes on the data."""
    summary = record.summary()
    name = f"{record.model['attention']}-{record.model['recipe']}"
    print(f"{name} on {summary['images']} test images of {record.data['name']}")
    print(
        f"flagged: {summary['flagged']} (repelling {summary['repelling']}, slow {summary['slow']}, "
        f"competing {summary['competing']})"
    )
    print(
        f"second preimages: {summary['second_preimages']}; pairs of visibly different images with one output: "
        f"{summary['pairs']}"
    )
    if summary["det_computed"]:
        print(f"det(I + J) < 0: {summary['det_negative']} of {summary['det_computed']}")
    print(f"lost by the inverse: {summary['lost']}, of these flagged: {summary['lost_and_flagged']}")
    for name in ("recall", "precision"):
        print(f"{name} of the flag: {'-' if summary[name] is None else format(summary[name], '.3f')}")
    for note in record.data.get("notes", ()):
        print(f"note: {note}")
