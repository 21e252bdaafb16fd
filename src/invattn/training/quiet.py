"""A trainer that writes nothing of its own."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

BENIGN_WARNINGS: tuple[tuple[str, type[Warning]], ...] = (
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning),
    (r"The '.*_dataloader' does not have many workers", UserWarning),
    (r"(?s)Grad strides do not match bucket view strides.*grad\.sizes\(\) = \[1, ", UserWarning),
)
"""What a plain fit raises: an outdated call of torch, advice on reading files in parallel, and DDP's remark on
gradients of matrices of one row, whose entries lie in memory as they should whatever stride the row has."""

_LOGGERS = ("lightning.pytorch", "lightning.fabric")


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's notices and the known benign warnings inside the block; other warnings pass."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message, category in BENIGN_WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=category)
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
