"""What the processes of a training tell each other; nothing is sent where there is one."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def processes() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def summed(values: list[float], *, near: Tensor) -> list[float]:
    """Return the sums over all processes; every process must call it.

    Args:
        values: Of this process.
        near: A tensor on the device that the processes talk through.
    """
    if processes() == 1:
        return values
    totals = torch.tensor(values, dtype=torch.float64, device=near.device)
    distributed.all_reduce(totals)
    return [float(total) for total in totals.tolist()]


def first_text(text: str) -> str:
    """Return the text of the first process that has one; every process must call it."""
    if processes() == 1:
        return text
    texts: list[str] = [""] * processes()
    distributed.all_gather_object(texts, text)
    return next((found for found in texts if found), "")
