"""What each residual block of a trained flow does: its log-determinant, its size, and what is lost without it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from invattn.bijections import Bijection, Composed, ResidualBijection
from invattn.evaluation.likelihood import block_inputs
from invattn.flows import Flow
from invattn.logdet import PowerSeries

TERMS = 12
PROBES = 1
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

    Args:
        flow: The distribution.
        x: Images or other samples with shape (B, ...).
        seed: Decides the probes of the log-determinants.
        without: Whether to evaluate the flow once more for each block, without it.
    """
    own = _with_own_probes(flow)
    blocks = _blocks(own.bijection)
    whole = _score(own, blocks, x, seed=seed)
    found = []
    for path, (block, point) in block_inputs(own.bijection, x).items():
        _reset(blocks, seed)
        _, log_det = block.forward_and_log_det(point)
        change = whole.new_full((len(x),), math.nan)
        if without:
            with _left_out(own, path) as rest:
                change = _score(rest, blocks, x, seed=seed) - whole
        found.append(
            BlockEffect(
                path=path,
                kind=block.branch.kind,
                log_det=float(log_det.double().mean()) / x[0].numel(),
                size=_relative_size(block, point),
                change=float(change.mean()),
                change_error=float(change.std()) / math.sqrt(len(x)),
            )
        )
    return found


def _relative_size(block: ResidualBijection, point: Tensor) -> float:
    length = point.flatten(1).norm(dim=1).clamp_min(torch.finfo(point.dtype).tiny)
    return float((block.branch(point).flatten(1).norm(dim=1) / length).double().mean())


def _with_own_probes(flow: Flow) -> Flow:
    """Return a copy in eval mode in which every block draws its probes from a generator of its own.

    A block then has the same probes whether or not another one stands before it, and differences are paired.
    """
    other = copy.deepcopy(flow).eval()
    device = next(flow.bijection.parameters()).device
    for part in _blocks(other.bijection):
        if not part.log_det_estimator.needs_separate_tokens:
            generator = torch.Generator(device)
            part.log_det_estimator = PowerSeries(terms=TERMS, probes=PROBES, generator=generator)
    return other


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


def _blocks(bijection: Bijection) -> list[ResidualBijection]:
    return [part for part in bijection.modules() if isinstance(part, ResidualBijection)]
