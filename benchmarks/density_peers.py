"""Flows of other libraries on vectors, for the table of digits: one class a library, one way to train and measure.

Used by ``benchmarks/density_tables.py digits``. normflows, nflows and FrEIA are in the ``dev`` extra.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

WIDTH = 128
LEARNING_RATE = 1e-3


class Peer(nn.Module, ABC):
    """A flow of another library over vectors (B, d)."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) in nats, shape (B,)."""

    @abstractmethod
    def round_trip(self, x: Tensor) -> Tensor:
        """Return inverse(forward(x))."""

    def after_step(self) -> None:
        """Do what the library asks for after each step of the optimiser."""


class NormflowsSpline(Peer):
    """normflows: rational-quadratic spline couplings with a learned permutation after each."""

    def __init__(self, dimensions: int, *, layers: int = 6) -> None:
        super().__init__()
        import normflows as nf

        parts: list[nn.Module] = []
        for index in range(layers):
            coupling = nf.flows.CoupledRationalQuadraticSpline(dimensions, 2, WIDTH, reverse_mask=index % 2 == 1)
            parts += [coupling, nf.flows.LULinearPermute(dimensions)]
        self.flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(dimensions, trainable=False), parts)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.flow.log_prob(x)

    def round_trip(self, x: Tensor) -> Tensor:
        return self.flow.forward(self.flow.inverse(x))


class NormflowsResidual(Peer):
    """normflows: residual blocks of Lipschitz-constrained MLPs with ActNorm after each, Neumann gradient."""

    def __init__(self, dimensions: int, *, blocks: int = 8) -> None:
        super().__init__()
        import normflows as nf

        parts: list[nn.Module] = []
        for _ in range(blocks):
            net = nf.nets.LipschitzMLP([dimensions, WIDTH, WIDTH, dimensions], init_zeros=True, lipschitz_const=0.9)
            parts += [nf.flows.Residual(net, reduce_memory=True), nf.flows.ActNorm((dimensions,))]
        self.flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(dimensions, trainable=False), parts)
        self._update = nf.utils.update_lipschitz

    def log_prob(self, x: Tensor) -> Tensor:
        return self.flow.log_prob(x)

    def round_trip(self, x: Tensor) -> Tensor:
        return self.flow.forward(self.flow.inverse(x))

    def after_step(self) -> None:
        self._update(self, 5)


class NflowsMaf(Peer):
    """nflows: a masked autoregressive flow."""

    def __init__(self, dimensions: int, *, layers: int = 5) -> None:
        super().__init__()
        from nflows.flows import MaskedAutoregressiveFlow

        self.flow = MaskedAutoregressiveFlow(
            features=dimensions, hidden_features=WIDTH, num_layers=layers, num_blocks_per_layer=2
        )

    def log_prob(self, x: Tensor) -> Tensor:
        return self.flow.log_prob(x)

    def round_trip(self, x: Tensor) -> Tensor:
        z, _ = self.flow._transform(x)
        return self.flow._transform.inverse(z)[0]


class FreiaAllInOne(Peer):
    """FrEIA: affine couplings with soft permutations."""

    def __init__(self, dimensions: int, *, blocks: int = 8) -> None:
        super().__init__()
        from FrEIA.framework import SequenceINN
        from FrEIA.modules import AllInOneBlock

        def subnet(inputs: int, outputs: int) -> nn.Module:
            return nn.Sequential(
                nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, outputs)
            )

        self.flow = SequenceINN(dimensions)
        for _ in range(blocks):
            self.flow.append(AllInOneBlock, subnet_constructor=subnet, permute_soft=True)

    def log_prob(self, x: Tensor) -> Tensor:
        z, log_det = self.flow(x)
        return log_det - 0.5 * (z.square().sum(dim=1) + z.shape[1] * math.log(2 * math.pi))

    def round_trip(self, x: Tensor) -> Tensor:
        return self.flow(self.flow(x)[0], rev=True)[0]


PEERS: dict[str, Callable[[int], Peer]] = {
    "normflows-spline": NormflowsSpline,
    "nflows-maf": NflowsMaf,
    "normflows-residual": NormflowsResidual,
    "freia-all-in-one": FreiaAllInOne,
}
TITLES = {
    "normflows-spline": "normflows, RQ-spline coupling",
    "nflows-maf": "nflows, MAF",
    "normflows-residual": "normflows, Residual / LipschitzMLP, 8 blocks",
    "freia-all-in-one": "FrEIA, AllInOne x 8",
}


@dataclass(frozen=True)
class Front:
    """A fixed map before a peer.

    Attributes:
        forward: Returns the image of a batch and the log-determinant of each sample.
        inverse: Its inverse.
    """

    forward: Callable[[Tensor], tuple[Tensor, Tensor]]
    inverse: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PeerResult:
    """What was measured of a peer.

    Attributes:
        nats: -log p(x) of each test sample in nats.
        inverse_error: Largest |inverse(f(x)) - x| over test samples and entries, in the units of the data.
        cpu_seconds: CPU time of the training.
        steps: Steps that it made in that time.
        parameters: Number of learned numbers.
    """

    nats: Tensor
    inverse_error: float
    cpu_seconds: float
    steps: int
    parameters: int


def train_and_measure(
    name: str,
    sample: Callable[[int], Tensor],
    fitting: Tensor,
    test: Tensor,
    *,
    seconds: float,
    seed: int,
    front: Front | None = None,
) -> PeerResult:
    """Train a peer for a time on one thread and measure it.

    Adam, the learning rate falls to 0 along a cosine over the time, gradient norm clipped at 1: as ours.

    Args:
        name: One of :data:`PEERS`.
        sample: Returns the training batch of a step, shape (B, d).
        fitting: Training data to which mean and scale of each entry are fitted, shape (n, d).
        test: Test data, shape (m, d).
        seconds: CPU time of the training.
        seed: Decides weights and probes.
        front: A fixed map before it; None: the data are standardised, with one mean and scale.
    """
    torch.manual_seed(seed)
    peer = PEERS[name](fitting.shape[1])
    front = _standardise(fitting) if front is None else front
    optimizer = torch.optim.Adam(peer.parameters(), lr=LEARNING_RATE)
    start, steps = time.process_time(), 0
    while (spent := time.process_time() - start) < seconds:
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * spent / seconds))
        x, log_det = front.forward(sample(steps))
        loss = -(peer.log_prob(x) + log_det).mean() / x.shape[1]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        optimizer.step()
        peer.after_step()
        steps += 1
    cpu_seconds = time.process_time() - start
    peer.eval()
    nats: list[Tensor] = []
    error = 0.0
    for rows in test.split(100):
        with torch.no_grad():
            x, log_det = front.forward(rows)
            nats.append(-(peer.log_prob(x) + log_det).detach())
            error = max(error, float((front.inverse(peer.round_trip(x)) - rows).abs().max()))
    parameters = sum(parameter.numel() for parameter in peer.parameters())
    return PeerResult(torch.cat(nats), error, cpu_seconds, steps, parameters)


def _standardise(fitting: Tensor) -> Front:
    """Shift and scale the data, all entries alike: an entry that hardly varies would be blown up on its own."""
    mean, spread = fitting.mean(), fitting.std()

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return (x - mean) / spread, -(x.shape[1] * spread.log()).expand(len(x))

    return Front(forward, lambda z: z * spread + mean)
