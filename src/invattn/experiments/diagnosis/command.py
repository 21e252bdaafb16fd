"""``invattn diagnose``: which test images a model's inverse will lose, why, and which inputs share an output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from invattn.experiments.diagnosis.config import DiagnosisConfig
from invattn.experiments.kit.options import IMAGE_SIZES
from invattn.experiments.kit.parser import OneLineParser, even_number, one_of, whole_number

if TYPE_CHECKING:
    from invattn.experiments.diagnosis.record import DiagnosisRecord

_DEFAULTS = {option.name: option.default for option in fields(DiagnosisConfig)}


def diagnose_parser() -> OneLineParser:
    """Return the parser of the command's arguments; the defaults are those of the experiment."""
    parser = OneLineParser(
        description="Diagnose a stored block on test images: spectral radius and norm, folds, other inputs with the "
        "same output. Writes OUTPUT/results.json, OUTPUT/diagnose.html and pictures. The exit status is 0 also where "
        "images are flagged."
    )
    parser.add_argument("model", type=str, metavar="MODEL", help="a model folder: OUTPUT/model/VARIANT of a run")
    _add(parser, "data", str, "NAME|DIR", "photos, cifar10, svhn, celeba or a folder of images")
    _add(parser, "data_root", str, "DIR", "where cifar10, svhn or celeba lie as published; without it: download")
    _add(parser, "images", whole_number(1), "N", "most test images (default: all)")
    _add(parser, "image_size", one_of(IMAGE_SIZES, what="image size"), "|".join(IMAGE_SIZES), "side in pixels")
    _add(parser, "starts", even_number(2), "K", "starts of the search for second preimages, an even number")
    parser.add_argument(
        "--det", action="store_true", help="the sign of det(I + J) of 32x32 images too: about ten seconds each"
    )
    _add(parser, "batch_size", whole_number(1), "N", "images that are diagnosed together")
    _add(parser, "seed", whole_number(0), "N", "decides everything that is random; that of the training run")
    parser.add_argument("--output", type=str, required=True, metavar="DIR", help="folder to write (required)")
    return parser


def _add(parser: OneLineParser, name: str, kind: Callable[..., object], metavar: str, text: str) -> None:
    option = "--" + name.replace("_", "-")
    parser.add_argument(option, type=kind, default=_DEFAULTS[name], metavar=metavar, help=text)


def execute(options: Namespace) -> None:
    """Diagnose, write the page, and print the counts and the paths.

    Args:
        options: The values of ``diagnose_parser``.

    Raises:
        KeyboardInterrupt: If the user stopped the work; its text says what to do.
    """
    from rich.console import Console

    from invattn.experiments.diagnosis.page.page import write_diagnosis
    from invattn.experiments.diagnosis.run import run_diagnosis
    from invattn.experiments.kit.progress import progress_for

    values = {key: value for key, value in vars(options).items() if key not in ("model", "data_root", "output")}
    output = Path(options.output)
    root = None if options.data_root is None else Path(options.data_root)
    config = DiagnosisConfig(**values, model=Path(options.model), data_root=root, output=output)
    try:
        record = run_diagnosis(config, progress=progress_for(Console(stderr=True)))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "interrupted: nothing was written. Run the command again, with --images N for fewer images."
        ) from None
    written = write_diagnosis(output)
    show_counts(record)
    page, *pictures = written
    for picture in pictures:
        print(f"picture: {picture.resolve()}")
    print(f"page: {page.resolve()}")


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
