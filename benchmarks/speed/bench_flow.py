"""Training steps of residual flows, log-determinants included, beside normflows and FrEIA at the same widths.

All have ten terms of the power series, one probe and Adam. Ours computes the norms of its weights anew in every step,
differentiably, and proves its bound; normflows makes five power iterations after the step, FrEIA ten.
"""

from __future__ import annotations

from collections.abc import Callable

import FrEIA.framework
import FrEIA.modules
import normflows
import torch
from torch import Tensor, nn
from turns import Turns

from invattn.bijections import Composed, ResidualBijection
from invattn.branches import CertifiedConvolution, CertifiedMLP
from invattn.logdet import PowerSeries

TERMS = 10
BLOCKS, WIDTH, BATCH, IMAGE = 32, 64, 16, (3, 32, 32)
ENTRIES, VECTOR_WIDTH, VECTORS = 64, 128, 256


def bench_flow_step(row: str, turns: Turns) -> None:
    """32 blocks 3x3 - 1x1 - 3x3 of width 64 on 16 images 3 x 32 x 32."""
    turns.measure(row, flow_variants(BLOCKS), rounds=3, warm=1)


def flow_variants(blocks: int) -> dict[str, Callable[[], object]]:
    """Return the training step of a flow of so many blocks, ours and normflows'."""
    x = torch.randn(BATCH, *IMAGE)
    own = Composed([_convolution() for _ in range(blocks)])
    peer = nn.ModuleList([_peer_convolution() for _ in range(blocks)])
    return {
        "invattn": training_step(own, own.forward_and_log_det, x),
        "normflows": training_step(peer, _chain(peer), x, after=lambda: normflows.utils.update_lipschitz(peer, 5)),
    }


def bench_vector_step(row: str, turns: Turns) -> None:
    """One block 64 - 128 - 128 - 64 on 256 vectors."""
    x = torch.randn(VECTORS, ENTRIES)
    turns.measure(row, _vector_variants(x), rounds=20, wall_rounds=5)


def _vector_variants(x: Tensor) -> dict[str, Callable[[], object]]:
    widths = (VECTOR_WIDTH, VECTOR_WIDTH)
    own = ResidualBijection(
        CertifiedMLP(channels=ENTRIES, hidden_channels=widths, lipschitz=0.9),
        log_det_estimator=PowerSeries(terms=TERMS),
    )
    net = normflows.nets.LipschitzMLP([ENTRIES, *widths, ENTRIES], init_zeros=False, lipschitz_const=0.97)
    peer = nn.ModuleList([normflows.flows.Residual(net, n_power_series=TERMS)])
    freia = FrEIA.framework.SequenceINN(ENTRIES)
    freia.append(
        FrEIA.modules.IResNetLayer,
        internal_size=VECTOR_WIDTH,
        n_internal_layers=1,
        jacobian_iterations=TERMS,
        spectral_norm_max=0.9,
    )
    layer = freia.module_list[0]

    def own_map(tokens: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = own.forward_and_log_det(tokens.unsqueeze(1))
        return z.squeeze(1), log_det

    return {
        "invattn": training_step(own, own_map, x),
        "normflows": training_step(peer, _chain(peer), x, after=lambda: normflows.utils.update_lipschitz(peer, 5)),
        "FrEIA": training_step(freia, freia, x, after=layer.lipschitz_correction),
    }


def training_step(
    module: nn.Module,
    apply: Callable[[Tensor], tuple[Tensor, Tensor]],
    x: Tensor,
    *,
    after: Callable[[], object] = lambda: None,
) -> Callable[[], object]:
    """Return a step of Adam on the negative log-likelihood under a standard normal base."""
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4)

    def step() -> None:
        z, log_det = apply(x)
        loss = (0.5 * z.flatten(1).square().sum(dim=1) - log_det).mean() / x[0].numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after()

    return step


def _convolution() -> ResidualBijection:
    branch = CertifiedConvolution(channels=IMAGE[0], hidden_channels=WIDTH, activate_first=True, lipschitz=0.9)
    return ResidualBijection(branch, log_det_estimator=PowerSeries(terms=TERMS))


def _peer_convolution() -> normflows.flows.Residual:
    net = normflows.nets.LipschitzCNN(
        [IMAGE[0], WIDTH, WIDTH, IMAGE[0]], [3, 1, 3], init_zeros=False, lipschitz_const=0.97
    )
    return normflows.flows.Residual(net, n_power_series=TERMS)


def _chain(blocks: nn.ModuleList) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return x -> (z, log|det|) of normflows' blocks, in the direction from data to the base."""

    def apply(x: Tensor) -> tuple[Tensor, Tensor]:
        total: Tensor | float = 0.0
        for block in blocks:
            x, log_det = block.inverse(x)
            total = total + log_det
        return x, total

    return apply
