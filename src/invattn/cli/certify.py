"""``invattn certify``: recompute what is proven of a stored model, and compare it with its certificate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from invattn._errors import CertificateError
from invattn.experiments.kit.options import ModelFolder, Switch
from invattn.experiments.kit.parser import Command

if TYPE_CHECKING:
    from torch import nn

    from invattn.hub import BlockCertificate


@dataclass(frozen=True, kw_only=True)
class CertifyOptions:
    """Options of ``invattn certify``.

    Attributes:
        model: A model folder: OUTPUT/model/VARIANT of a run.
        derivation: Print how each bound came about.
        shape: Shape of one input; prints how much the whole model stretches and shrinks distances.
    """

    model: ModelFolder
    derivation: Switch = False
    shape: Annotated[str | None, "C,H,W"] = None


def certify(options: CertifyOptions) -> None:
    """Print the table, and raise unless every block is proven and nothing differs.

    Raises:
        CertificateError: If a block has no bound below 1, or the model differs from its certificate.
        DataError: If the folder is no readable model.
    """
    from invattn.experiments.camouflage.network import NetworkConfig
    from invattn.hub import block_certificates, read_model

    shape = None if options.shape is None else parse_shape(options.shape)
    loaded = read_model(options.model, families=(NetworkConfig,))
    blocks = block_certificates(loaded.model)
    print(f"{options.model}: Lipschitz bounds of g in every block x + g(x), recomputed from the weights", flush=True)
    print(format_table(blocks))
    if options.derivation:
        for name, block in blocks.items():
            print(f"{name}: {block.derivation}")
    if shape is not None:
        print(_constants(loaded.model, shape))
    _raise_unless_proven(options.model, blocks, loaded.problems)
    print("certified: every block is proven invertible for every input, and the model is the one that was certified.")


COMMAND = Command(
    name="certify",
    summary="verify the certificate of a stored model",
    description="Recompute the certificate of every block of MODEL from its weights and print it. Exit status 1 if a "
    "block has none, if its bound is 1 or more, or if anything differs from MODEL/certificate.json.",
    options=CertifyOptions,
    run=certify,
)


def format_table(blocks: Mapping[str, BlockCertificate]) -> str:
    """Return the table of blocks: path, kind, bound, norm, and worst-case plain steps to a relative error of 1e-6."""
    rows = [("block", "kind", "bound", "norm", "steps to 1e-6")]
    for name, block in blocks.items():
        bound = "none" if block.bound is None else f"{block.bound:.9f}"
        steps = block.steps()
        rows.append((name, block.kind, bound, block.norm or "-", "-" if steps is None else str(steps)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def parse_shape(text: str) -> tuple[int, ...]:
    """Return the shape that "3,32,32" stands for.

    Raises:
        CertificateError: If it is none; one line.
    """
    try:
        shape = tuple(int(number) for number in text.split(","))
    except ValueError:
        shape = ()
    if len(shape) not in (1, 2, 3) or min(shape) < 1:
        raise CertificateError(f"--shape {text} is no shape of an input; write C,H,W for images or N,C for tokens.")
    return shape


def _constants(model: nn.Module, shape: tuple[int, ...]) -> str:
    from invattn.bijections import Bijection

    if not isinstance(model, Bijection):
        raise CertificateError("--shape is for a bijection; this model only has blocks that are some. Leave it out.")
    try:
        return f"whole model at {shape}: {model.bi_lipschitz(shape)}"
    except CertificateError:
        return f"whole model at {shape}: none, as a block has no certificate"


def _raise_unless_proven(folder: Path, blocks: Mapping[str, BlockCertificate], problems: tuple[str, ...]) -> None:
    from invattn.hub import refuse

    refuse(folder, problems)
    missing = [name for name, block in blocks.items() if not block.holds]
    if missing or not blocks:
        names = ", ".join(missing) or "the model has no residual block"
        raise CertificateError(
            f"{folder} is not proven invertible ({names}). Train it with --recipe certified, or run `invattn diagnose` "
            "to see where it fails."
        )
