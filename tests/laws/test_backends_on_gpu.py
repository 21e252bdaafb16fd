"""The laws of the back ends on a GPU: value and all derivatives of the dense form on the processor, in float64.

The fused back end computes in float32 there: its error is held against that of the dense form in float32.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from invattn import invertible_attention
from invattn.functional import attend, explain
from invattn.functional.fused import fused_kernels_work

from .registry import seeded
from .test_backend_laws import FUSED_BY_TRITON, SOME, AttentionCase, derivatives

DEVICE = "cuda"
CLOSE = 1e-9  # of the largest entry, float64; a GPU sums in another order
CASES = [case for case in SOME if case.backend != "fused" and case.sees in ("all", "causal")]


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES, ids=str)
def test_all_derivatives_are_those_of_the_dense_form_on_the_processor(
    case: AttentionCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invattn.functional.streamed.TILE_SCORES", 64)
    monkeypatch.setattr("invattn.functional.streamed.LEAST_ROWS", 2)
    inputs = case.inputs()

    def there(*tensors: Tensor) -> Tensor:
        return case.attend(*[tensor.to(DEVICE) for tensor in tensors]).cpu()

    def dense(*tensors: Tensor) -> Tensor:
        return case.attend(*tensors, backend="dense")

    found = dict(derivatives(there, inputs, seed=1))
    for what, expected in derivatives(dense, inputs, seed=1):
        pairs = [(found[what], expected)] if isinstance(expected, Tensor) else zip(found[what], expected, strict=True)
        for one, other in pairs:
            error = float((one - other).detach().abs().max())
            assert error <= CLOSE * max(1.0, float(other.detach().abs().max())), f"{what}: {error:.2g}"


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", ["exp", "elu+1", "softplus"])
def test_the_fused_kernels_work(kernel: str) -> None:
    assert fused_kernels_work(DEVICE, kernel)


def size(tensor: Tensor) -> float:
    return float(tensor.detach().double().square().mean().sqrt())


def errors(found: Any, exact: Any) -> list[tuple[float, float]]:
    """Root mean squares of errors and of what is exact, tensor by tensor."""
    pairs = [(found, exact)] if isinstance(exact, Tensor) else zip(found, exact, strict=True)
    return [(size(one.detach().cpu().double() - other.detach()), size(other)) for one, other in pairs]


@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [5, 100])
@pytest.mark.parametrize("case", FUSED_BY_TRITON, ids=str)
def test_derivatives_of_fused_are_as_good_as_those_of_the_dense_form_in_single_precision(
    case: AttentionCase, tokens: int
) -> None:
    """At most 4 times its error, both against the dense form in float64; 5 tokens are one block, 100 several."""
    narrow = [tensor.float() for tensor in case.inputs(tokens=tokens)]

    def there(backend: str) -> dict[str, Any]:
        def function(*tensors: Tensor) -> Tensor:
            return case.attend(*[tensor.to(DEVICE) for tensor in tensors], backend=backend).cpu()

        return dict(derivatives(function, narrow, seed=1))

    def dense(*tensors: Tensor) -> Tensor:
        return case.attend(*[tensor.double() for tensor in tensors], backend="dense")

    ours, own = there("fused"), there("dense")
    for what, exact in derivatives(dense, narrow, seed=1):
        for (error, scale), (reference, _) in zip(errors(ours[what], exact), errors(own[what], exact), strict=True):
            # 2e-7 is two units of rounding: an error below it is no worse for being four times another one.
            assert error <= 4 * max(reference, 2e-7 * scale), f"{what}: {error:.2g} against {reference:.2g}"


@pytest.mark.gpu
@pytest.mark.parametrize("width", [3, 16, 40, 128])
@pytest.mark.parametrize("case", [case for case in FUSED_BY_TRITON if case.sees == "all"], ids=str)
def test_fused_with_many_tokens_and_channels(case: AttentionCase, width: int) -> None:
    """Values and gradients of 700 queries and 500 keys: no multiple of a block."""
    generator = seeded(530)
    query, key, value = (torch.randn(2, 2, count, width, generator=generator) for count in (700, 500, 500))
    incoming = torch.randn(2, 2, 700, width, generator=generator)
    query = query / width**0.5

    def results(dtype: torch.dtype, device: str, backend: str) -> list[Tensor]:
        tensors = [tensor.to(device, dtype).requires_grad_() for tensor in (query, key, value)]
        out = attend(*tensors, response=case.response, backend=backend)
        return [out.detach(), *torch.autograd.grad(out, tensors, incoming.to(out))]

    truth = results(torch.float64, "cpu", "dense")
    ours, own = (results(torch.float32, DEVICE, backend) for backend in ("fused", "dense"))
    for (error, scale), (reference, _) in zip(errors(ours, truth), errors(own, truth), strict=True):
        assert error <= 4 * max(reference, 2e-7 * scale), f"{error:.2g} against {reference:.2g}"


@pytest.mark.gpu
def test_a_block_says_that_it_is_fused_and_what_float64_does() -> None:
    x = torch.randn(1, 12, 109, 89, device=DEVICE)
    for kind in ("gaussian", "embedded_gaussian", "dot_product"):
        block = invertible_attention(12, kind=kind).to(DEVICE)
        assert block.explain(x).backend == "fused"
        assert block.double().explain(x.double()).backend == "streamed"
        assert torch.isfinite(block.float()(x)).all()
    case = FUSED_BY_TRITON[0]
    inputs = [tensor.to(DEVICE) for tensor in case.inputs()]
    with pytest.raises(ValueError, match="computes in float32 on GPUs"):
        case.attend(*inputs)
    assert explain(*[tensor.float() for tensor in inputs], response=case.response).backend == "fused"
