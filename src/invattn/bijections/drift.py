"""What a backward pass that reconstructs its inputs reports about them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BlockDrift:
    """How well one block's input was recovered in a backward pass; each number is the largest over the samples.

    Attributes:
        block: The block's place in the chain, from 0.
        residual: |f(x) - z| at the recovered x, in the block's norm; None where the input was kept, not recovered.
        error_bound: A proven bound of what this one inversion adds to the error, rounding included; None where the
            input was kept or the block has no certificate.
        num_steps: Updates of x; None where the input was kept.
        drift: The largest entry of |recovered - true| at the block's OUTPUT, accumulated over all blocks that were
            inverted on the way there; None where it is not known. It is known at every block whose input was kept
            (always the first): running the block again gives its true output.
    """

    block: int
    residual: float | None
    error_bound: float | None
    num_steps: int | None
    drift: float | None


@dataclass(frozen=True)
class Drift:
    """The report of one backward pass.

    Attributes:
        blocks: One entry a block, in the order of the chain.
        log_det: The largest |log-determinant recomputed - that of the forward pass| over the samples, in nats; None
            where no gradient came through the log-determinant.
    """

    blocks: tuple[BlockDrift, ...]
    log_det: float | None

    @property
    def largest(self) -> float:
        """The largest drift that is known; 0 where nothing had to be reconstructed."""
        return max((block.drift for block in self.blocks if block.drift is not None), default=0.0)
