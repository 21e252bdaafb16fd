"""The picture of docs/camouflage.md: generated pairs at several difficulties.

python benchmarks/camouflage_picture.py --output docs/images/camouflage.png
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from invattn._files import atomic_write
from invattn.experiments.camouflage.synthetic import SOURCES, SyntheticCamouflage

DIFFICULTIES = (0.0, 0.5, 1.0)
SIDE = 96
SHOWN = 7
"""Pictures of each part."""


def picture(*, seed: int = 0) -> Tensor:
    """Return one column for each source shown, one row for each difficulty, then masks: uint8, shape (3, H, W)."""
    rows: list[list[Tensor]] = [[] for _ in range(len(DIFFICULTIES) + 1)]
    for part, sources in SOURCES.items():
        for row, difficulty in zip(rows, DIFFICULTIES, strict=False):
            count = min(SHOWN, len(sources))
            pairs = SyntheticCamouflage(part, count=count, side=SIDE, difficulty=difficulty, seed=seed)
            row += [pairs.pair(number)[0] for number in range(len(pairs))]
        rows[-1] += [pairs.pair(number)[1][None].expand(3, -1, -1) for number in range(len(pairs))]
    return torch.cat([torch.cat(row, dim=2) for row in rows], dim=1)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("docs/images/camouflage.png"))
    options = parser.parse_args(argv)
    stream = io.BytesIO()
    Image.fromarray(picture().permute(1, 2, 0).contiguous().numpy()).save(stream, format="PNG", optimize=True)
    atomic_write(options.output, stream.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main())
