"""Independent seeds for the parts of a run, from the one seed of the user."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a seed that depends on every argument and on nothing else.

    Adding numbers to a seed makes runs share random streams (repeat 1 of seed 0 is repeat 0 of seed 1); hashing the
    purpose with it does not.

    Args:
        seed: The seed of the run.
        purpose: What the stream is for, for example ``"order", 3`` for the batch order of epoch 3.

    Returns:
        A number in 0 .. 2^63 - 1, the same on every machine.
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
