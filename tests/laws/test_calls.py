"""How often one call computes a spectral norm: no norm twice, and nothing kept from one call to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import invattn
from invattn.bijections import ResidualBijection
from invattn.branches import Branch, CertifiedMLP, CertifiedPooling
from invattn.logdet import RussianRoulette

KINDS = ("gaussian", "embedded_gaussian", "dot_product", "concatenation", "pointwise")


class Norms(TorchDispatchMode):
    """Counts decompositions, each of one matrix or a stack of them: what a spectral norm of few channels costs."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._linalg_svd.default
        return func(*args, **(kwargs or {}))


def norms_of(call: Callable[[], object]) -> int:
    with Norms() as norms:
        call()
    return norms.count


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_of_a_block_computes_no_norm_twice(kind: str) -> None:
    """V, the pair Q and K, W_L: three of forward; a certificate adds that of W_L as forward scales it."""
    torch.manual_seed(0)
    block = invattn.invertible_attention(12, kind=kind)
    x = torch.rand(2, 12, 6, 6) - 0.5
    z = block(x).detach()
    assert 2 <= norms_of(lambda: block(x)) <= 3
    assert 2 <= norms_of(lambda: block.inverse(z)) <= 4
    assert 3 <= norms_of(lambda: block.solve(z)) <= 4
    assert 3 <= norms_of(block.lipschitz_bound) <= 4
    assert norms_of(lambda: block.forward_and_log_det(x)) <= 3
    assert norms_of(lambda: block.norm) == 0


@pytest.mark.parametrize(
    ("branch", "least"), [(CertifiedMLP(channels=4, hidden_channels=(8, 8)), 3), (CertifiedPooling(channels=4), 2)]
)
def test_a_solve_computes_the_norms_of_a_chain_once_and_that_of_its_scaled_map(branch: Branch, least: int) -> None:
    block, z = ResidualBijection(branch), torch.randn(2, 5, 4)
    assert norms_of(lambda: block(z)) == least
    assert norms_of(lambda: block.solve(z)) == least + 1
    assert norms_of(lambda: block.inverse(z)) == least


def test_a_report_of_the_log_determinant_asks_for_one_certificate() -> None:
    block = invattn.invertible_attention(12, layout="tokens", log_det_estimator=RussianRoulette())
    x = torch.randn(2, 5, 12)
    assert norms_of(lambda: block.forward_and_log_det_report(x)) <= 7


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_call_sees_weights_that_were_changed(kind: str) -> None:
    torch.manual_seed(0)
    block = invattn.invertible_attention(6, kind=kind, layout="tokens").double()
    x = torch.randn(3, 7, 6, dtype=torch.float64)
    images: list[Tensor] = []
    for _ in range(2):
        with torch.no_grad():
            images.append(block(x))
            assert float((block.inverse(images[-1]) - x).abs().max()) < 1e-9
            assert float((block.solve(images[-1]).value - x).abs().max()) < 1e-9
            for parameter in block.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    assert float((images[0] - images[1]).abs().max()) > 1e-3
