"""How far one place of an image reaches: |dz_i / dx_j| for a middle place i and every place j."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invattn.bijections import ResidualBijection
from invattn.evaluation.likelihood import block_inputs
from invattn.flows import Flow


@dataclass(frozen=True)
class ReceptiveField:
    """What one place of a result depends on.

    Attributes:
        what: ``convolution`` or ``attention``, one block alone, or ``scale``, all blocks of the first scale in a row.
        values: |dz_i / dx_j| at every place j, Frobenius norm over channels, mean over images, shape (H, W), float64.
        place: i, (row, column).
    """

    what: str
    values: Tensor
    place: tuple[int, int]


def receptive_fields(flow: Flow, x: Tensor) -> list[ReceptiveField]:
    """Return the fields of single blocks of the first scale, and of all its blocks together.

    The places are those of the grid on which the first residual block works, so that what whitening mixes before it
    does not count. Which blocks: the first one that maps images (a convolution), the first attention block, and the
    chain of all blocks of that grid.

    Args:
        flow: A flow over images whose first residual block maps images (B, C, H, W).
        x: Images with shape (B, C, H, W).

    Returns:
        At most three fields; none where the first residual block does not map images of more than one place.
    """
    inputs = block_inputs(flow.bijection, x)
    on_grid = _first_scale(list(inputs.values()))
    if not on_grid or on_grid[0][1].shape[-2:].numel() == 1:
        return []
    height, width = on_grid[0][1].shape[-2:]
    place = (height // 2, width // 2)
    attention = [block for block, point in on_grid if block.branch.mixes_tokens and point.dim() == 3]
    first, last = on_grid[0][0], on_grid[-1][0]
    wanted = [
        ("convolution", first, first),
        ("scale", first, last),
        *(("attention", part, part) for part in attention[:1]),
    ]
    fields = []
    for what, start, end in wanted:
        reaching, leaving = _run(flow, x, first=start, last=end)
        fields.append(ReceptiveField(what, _norms(leaving, reaching, (height, width), place), place))
    return fields


def _first_scale(entries: Sequence[tuple[ResidualBijection, Tensor]]) -> list[tuple[ResidualBijection, Tensor]]:
    """Return the first blocks, as long as they work on as many places and channels as the first one."""
    if not entries or entries[0][1].dim() != 4:
        return []
    _, channels, height, width = entries[0][1].shape
    shapes = ((channels, height, width), (height * width, channels))
    found = []
    for entry in entries:
        if tuple(entry[1].shape[1:]) not in shapes:
            break
        found.append(entry)
    return found


@torch.enable_grad()
def _run(flow: Flow, x: Tensor, *, first: ResidualBijection, last: ResidualBijection) -> tuple[Tensor, Tensor]:
    """Return what reaches one block and what leaves a later one, with the graph between them."""
    seen: dict[str, Tensor] = {}

    def before(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen["start"] = inputs[0].detach().requires_grad_()
        return (seen["start"], *inputs[1:])

    def after(_: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen["end"] = output

    handles = [first.register_forward_pre_hook(before), last.register_forward_hook(after)]
    try:
        flow.bijection(x)
    finally:
        for handle in handles:
            handle.remove()
    return seen["start"], seen["end"]


@torch.enable_grad()
def _norms(z: Tensor, x: Tensor, grid: tuple[int, int], place: tuple[int, int]) -> Tensor:
    """Return the field of z with respect to x, both images or both tokens of a grid, shape ``grid``."""
    number = place[0] * grid[1] + place[1]
    outputs = z[:, number] if z.dim() == 3 else z[:, :, place[0], place[1]]
    squares = x.new_zeros((x.shape[0], *grid), dtype=torch.float64)
    for channel in range(outputs.shape[1]):
        (gradient,) = torch.autograd.grad(outputs[:, channel].sum(), x, retain_graph=True)
        by_place = gradient if gradient.dim() == 4 else gradient.transpose(1, 2).reshape(len(x), -1, *grid)
        squares += by_place.double().square().sum(dim=1)
    return squares.sqrt().mean(dim=0).detach()
