"""``invattn report``: write the page of a finished run anew."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

from invattn.cli.parser import OneLineParser


def report_parser() -> OneLineParser:
    """Return the parser of the command's arguments."""
    parser = OneLineParser(description="Write FOLDER/report.html anew from FOLDER/results.json and FOLDER/artifacts.")
    parser.add_argument("folder", type=str, metavar="FOLDER", help="the output folder of a run")
    return parser


def execute(options: Namespace) -> None:
    """Write the page and print its path.

    Args:
        options: The values of ``report_parser``.
    """
    from invattn.report import write_report

    print(f"page: {write_report(Path(options.folder)).resolve()}")
