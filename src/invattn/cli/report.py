"""``invattn report``: write the page of a finished run anew, or one page about several runs."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

from invattn.experiments.kit.parser import OneLineParser


def report_parser() -> OneLineParser:
    """Return the parser of the command's arguments."""
    parser = OneLineParser(
        description="Write FOLDER/report.html anew from FOLDER/results.json and FOLDER/artifacts. Of several folders, "
        "of any experiments, write one page with the paper's tables beside all of them: OUTPUT/merged.html."
    )
    parser.add_argument("folders", type=str, nargs="+", metavar="FOLDER", help="the output folder of a run, or several")
    parser.add_argument("--output", type=str, default=".", metavar="DIR", help="where merged.html goes")
    return parser


def execute(options: Namespace) -> None:
    """Write the page and print its path.

    Args:
        options: The values of ``report_parser``.
    """
    from invattn.experiments.merged.page import write_merged, write_report

    folders = [Path(folder) for folder in options.folders]
    page = write_report(folders[0]) if len(folders) == 1 else write_merged(folders, Path(options.output))
    print(f"page: {page.resolve()}")
