"""What each residual block of a flow does, and how far one place of an image reaches through it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from invattn.bijections import Composed, ResidualBijection
from invattn.experiments.density.likelihood import block_inputs
from invattn.flows import Flow
from invattn.logdet import PowerSeries

TERMS, PROBES = 12, 1
"""Terms and probes of the power series; every evaluation of a block draws the same probes."""


@dataclass(frozen=True)
class BlockEffect:
    """What one residual block does, over some images.

    Attributes:
        path: Its place in the bijection.
        kind: What its branch is, in words.
        log_det: Mean of log|det(I + J)| / d, in nats per dimension of an image.
        size: Mean of |g(x)| / |x|, Euclidean norms, at its own input.
        change: Mean rise of -log p / d when the identity stands in its place, nats per dimension; NaN if not measured.
        change_error: Standard error of that mean over the images.
    """

    path: str
    kind: str
    log_det: float
    size: float
    change: float
    change_error: float


@torch.no_grad()
def block_effects(flow: Flow, x: Tensor, *, seed: int, without: bool = True) -> list[BlockEffect]:
    """Measure every residual block of a flow at the same images, in the order in which data reach them.

    A block is replaced by the identity while all others stay as they were trained together with it. The rise of -log p
    says how much the trained flow relies on the block; a flow trained without it might do better.

    Samples have shape (B, ...); ``without`` evaluates the flow once more for each block, without it.
    """
    own = copy.deepcopy(flow).eval()
    blocks = [part for part in own.bijection.modules() if isinstance(part, ResidualBijection)]
    device = next(flow.bijection.parameters()).device
    for part in blocks:
        # A block with a generator of its own has the same probes whether or not another one stands before it:
        # differences are paired.
        if not part.log_det_estimator.needs_separate_tokens:
            part.log_det_estimator = PowerSeries(terms=TERMS, probes=PROBES, generator=torch.Generator(device))
    whole = _score(own, blocks, x, seed=seed)
    found = []
    for path, (block, point) in block_inputs(own.bijection, x).items():
        _reset(blocks, seed)
        _, log_det = block.forward_and_log_det(point)
        change = whole.new_full((len(x),), math.nan)
        if without:
            with _left_out(own, path) as rest:
                change = _score(rest, blocks, x, seed=seed) - whole
        length = point.flatten(1).norm(dim=1).clamp_min(torch.finfo(point.dtype).tiny)
        found.append(
            BlockEffect(
                path=path,
                kind=block.branch.kind,
                log_det=float(log_det.double().mean()) / x[0].numel(),
                size=float((block.branch(point).flatten(1).norm(dim=1) / length).double().mean()),
                change=float(change.mean()),
                change_error=float(change.std()) / math.sqrt(len(x)),
            )
        )
    return found


@contextmanager
def _left_out(flow: Flow, path: str) -> Iterator[Flow]:
    """Give a flow with the identity in the place of one part; the part is put back afterwards."""
    identity = Composed([])
    if not path:
        yield Flow(identity, flow.base)
        return
    part = flow.bijection.get_submodule(path)
    flow.bijection.set_submodule(path, identity)
    try:
        yield flow
    finally:
        flow.bijection.set_submodule(path, part)


def _score(flow: Flow, blocks: list[ResidualBijection], x: Tensor, *, seed: int) -> Tensor:
    """Return -log p / d of each sample, float64, with the probes that the seed gives."""
    _reset(blocks, seed)
    return -flow.log_prob(x).double() / x[0].numel()


def _reset(blocks: list[ResidualBijection], seed: int) -> None:
    for number, block in enumerate(blocks):
        for generator in block.generators:
            generator.manual_seed(seed + number)


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

    Returns:
        At most three fields; none where the first residual block does not map images of more than one place.
    """
    on_grid = _first_scale(list(block_inputs(flow.bijection, x).values()))
    if not on_grid or on_grid[0][1].shape[-2:].numel() == 1:
        return []
    height, width = on_grid[0][1].shape[-2:]
    place = (height // 2, width // 2)
    first, last = on_grid[0][0], on_grid[-1][0]
    wanted = [("convolution", first, first), ("scale", first, last)]
    attention = [block for block, point in on_grid if block.branch.mixes_tokens and point.dim() == 3]
    wanted += [("attention", part, part) for part in attention[:1]]
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
    return list(takewhile(lambda entry: tuple(entry[1].shape[1:]) in shapes, entries))


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
