"""Compares constant-memory with ordinary gradients in two processes; started by test_distributed_memory.py.

Every process takes its half of one batch. The folder receives, a process, the gradients of the ordinary chain alone on
the whole batch and those of each wrapped module.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from invattn import WithLogDet, invertible_attention
from invattn.bijections import Bijection, Composed, ConstantMemory
from invattn.flows import Flow, StandardNormal
from invattn.logdet import Exact, LogDetEstimator, PowerSeries

PROCESSES, BATCH, TOKENS, CHANNELS = 2, 4, 3, 4


def build(estimator: LogDetEstimator, *, recipe: str = "certified") -> Composed:
    """Make a chain in which one block stands twice."""
    torch.manual_seed(0)
    kinds = ("gaussian", "embedded_gaussian", "concatenation")
    made = [
        invertible_attention(CHANNELS, kind=kind, recipe=recipe, layout="tokens", log_det_estimator=estimator)
        for kind in kinds
    ]
    return Composed([*made, made[0]]).double()


def loss_of(module: nn.Module, x: Tensor) -> Tensor:
    """The negative log-likelihood under a normal base, for a module that returns z and the log-determinant."""
    z, log_det = module(x)
    loss: Tensor = (z.square().flatten(1).sum(dim=1) / 2 - log_det).mean()
    return loss


def gradients(module: nn.Module) -> Tensor:
    """Take all gradients, in one vector."""
    found = [parameter.grad for parameter in module.parameters()]
    module.zero_grad()
    assert all(gradient is not None for gradient in found)
    return torch.cat([gradient.flatten() for gradient in found if gradient is not None])


def exact(x: Tensor, rank: int) -> dict[str, Tensor]:
    """Whole batch without wrappers, and the halves in WithLogDet, in Flow, and in two accumulated parts."""
    half = x.chunk(PROCESSES)[rank]
    found = {}
    loss_of(WithLogDet(chain := build(Exact())), x).backward()
    found["ordinary"] = gradients(chain)
    module: nn.Module = DistributedDataParallel(WithLogDet(ConstantMemory(chain := build(Exact()))))
    for step in range(2):
        loss_of(module, half).backward()
        found[f"constant {step}"] = gradients(chain)
    for place, part in enumerate(half.chunk(2)):
        with module.no_sync() if place == 0 else nullcontext():  # type: ignore[operator]
            (loss_of(module, part) / 2).backward()
    found["accumulated"] = gradients(chain)
    flow = Flow(ConstantMemory(chain := build(Exact())), StandardNormal((TOKENS, CHANNELS)))
    module = DistributedDataParallel(flow)
    (-module(half).mean()).backward()
    found["flow"] = gradients(chain)
    return found


def sampled(x: Tensor, rank: int, *, recipe: str, constant: bool) -> Tensor:
    """Return the gradient of the halves with probes of the process, and the state after it, in one vector."""
    chain: Bijection = build(PowerSeries(terms=3), recipe=recipe)
    own = ConstantMemory(chain) if constant else chain
    torch.manual_seed(rank)
    loss_of(DistributedDataParallel(WithLogDet(own)), x.chunk(PROCESSES)[rank]).backward()
    return torch.cat([gradients(chain), *(buffer.flatten() for buffer in chain.buffers()), torch.rand(1).double()])


def process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    meeting_point = (folder / "meeting").resolve().as_uri()
    dist.init_process_group("gloo", init_method=meeting_point, rank=rank, world_size=PROCESSES)
    try:
        x = torch.randn(BATCH, TOKENS, CHANNELS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        found = exact(x, rank)
        for recipe in ("certified", "paper"):
            for constant in (False, True):
                name = f"{recipe} {'constant' if constant else 'ordinary'}"
                found[name] = sampled(0.2 * x, rank, recipe=recipe, constant=constant)
        torch.save(found, folder / f"gradients-{rank}.pt")
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    torch.func.jvp(torch.sin, (torch.zeros(1),), (torch.ones(1),))
    torch.multiprocessing.start_processes(process, (Path(sys.argv[1]),), nprocs=PROCESSES, start_method="fork")
