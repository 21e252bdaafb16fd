"""``invattn report``: write the page of a finished run anew, or one page about several runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from invattn.experiments.kit.options import Mark
from invattn.experiments.kit.parser import Command


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Options of ``invattn report``.

    Attributes:
        folders: The output folder of a run, or several.
        output: Where merged.html goes.
    """

    folders: Annotated[tuple[Path, ...], Mark.POSITIONAL, "FOLDER"]
    output: Path = Path(".")


def report(options: ReportOptions) -> None:
    """Write the page and print its path."""
    from invattn.experiments.merged.page import write_merged, write_report

    one = len(options.folders) == 1
    page = write_report(options.folders[0]) if one else write_merged(options.folders, options.output)
    print(f"page: {page.resolve()}")


COMMAND = Command(
    name="report",
    summary="write the page of a finished run anew",
    description="Write FOLDER/report.html anew from FOLDER/results.json and FOLDER/artifacts. Of several folders, of "
    "any experiments, write one page with the paper's tables beside all of them: OUTPUT/merged.html.",
    options=ReportOptions,
    run=report,
)
