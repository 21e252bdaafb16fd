"""Where attention stands in a flow of several scales."""

from __future__ import annotations

from collections.abc import Sequence

Positions = Sequence[tuple[int, int]] | str
"""(scale, after which block) for each attention block; or "interleaved:k"."""

_INTERLEAVED = "interleaved:"


def attention_blocks(positions: Positions, blocks: Sequence[int]) -> frozenset[tuple[int, int]]:
    """Return (scale, block) for each block that attention follows, both counted from 0.

    Args:
        positions: Pairs, where -1 is the last; or ``interleaved:k`` for after every k-th block of every scale.
        blocks: Blocks at each scale.

    Raises:
        ValueError: If a position does not exist.

    Example:
        >>> sorted(attention_blocks("interleaved:2", (4, 3)))
        [(0, 1), (0, 3), (1, 1)]
    """
    if isinstance(positions, str):
        step = positions.removeprefix(_INTERLEAVED)
        if step == positions or not step.isdigit() or int(step) < 1:
            raise ValueError(
                f"attention positions are pairs (scale, after which block), or interleaved:k with k >= 1; "
                f"got {positions!r}."
            )
        every = int(step)
        return frozenset((s, b) for s, number in enumerate(blocks) for b in range(every - 1, number, every))
    return frozenset(_resolve(tuple(pair), blocks) for pair in positions)


def _resolve(pair: tuple[int, ...], blocks: Sequence[int]) -> tuple[int, int]:
    if len(pair) == 2:
        scale, block = pair
        if -len(blocks) <= scale < len(blocks) and -blocks[scale] <= block < blocks[scale]:
            return scale % len(blocks), block % blocks[scale]
    raise ValueError(
        f"there is no attention position {pair} in {tuple(blocks)} blocks: give (scale, after which block), "
        f"scale 0 to {len(blocks) - 1}, -1 for the last."
    )
