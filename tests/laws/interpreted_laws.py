"""The laws of Triton's attention, for its interpreter: TRITON_INTERPRET=1 and tensors of a processor.

test_triton_kernels.py runs this file in a process of its own, as the variable must be set before Triton is imported.
Blocks have 16 rows and columns, so that some tens of tokens make several, the last one uneven.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from invattn.functional import Response, attend, explain, get_kernel, triton_kernels
from invattn.functional.fused import PRIMITIVES, fused_kernels_work
from invattn.functional.fused_primitives import Pair, Triple, primitives_right
from invattn.functional.triton_attention import WIDEST, TritonKernels, block_of

from . import test_backend_laws as laws
from .registry import seeded

CASES = laws.FUSED_BY_TRITON


class Interpreted(TritonKernels):
    """Triton's attention, in float64 too: the interpreter has products of matrices in it."""

    def obstacle(self, itemsize: int, width: int) -> str | None:
        return super().obstacle(min(itemsize, 4), width)


@pytest.fixture(scope="module", autouse=True)
def on_the_processor() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRIMITIVES, "cpu", Interpreted())
        patch.setattr("invattn.functional.triton_attention.block_of", lambda width: 16)
        fused_kernels_work.cache_clear()
        yield
    fused_kernels_work.cache_clear()


def some_of(names: tuple[str, ...]) -> list[Any]:
    """All cases: those named, and the others as slow tests."""
    slow = pytest.mark.slow
    return [case if str(case) in names else pytest.param(case, marks=slow) for case in CASES]


QUICK = ("fused-exp-row-product-all", "fused-elu+1-row-product-causal", "fused-softplus-column-product-all")


@pytest.mark.parametrize("case", some_of(QUICK), ids=str)
def test_all_derivatives_are_those_of_the_dense_form(case: laws.AttentionCase) -> None:
    """One sample with two heads, in one block: several are those of the tests below."""
    inputs = [tensor[:1] for tensor in case.inputs()]

    def dense(*tensors: Tensor) -> Tensor:
        return case.attend(*tensors, backend="dense")

    found = dict(laws.derivatives(case.attend, inputs, seed=1))
    for what, expected in laws.derivatives(dense, inputs, seed=1):
        laws.assert_close(found[what], expected, what)


def drawn(rows: int, columns: int, width: int, channels: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Query, key, value and the gradient of the output; two samples."""
    generator = seeded(520)
    shapes = ((rows, width), (columns, width), (columns, channels), (rows, channels))
    return [torch.randn(2, 1, *shape, dtype=torch.float64, generator=generator).to(dtype) for shape in shapes]


def plain(kernel: str, query: Tensor, key: Tensor, *, causal: bool = False) -> Tensor:
    """phi of every score, zero where it is not seen."""
    phi = get_kernel(kernel).value(query @ key.mT)
    return phi.tril() if causal else phi


@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
@pytest.mark.parametrize("sizes", [(37, 21, 3, 5), (17, 20, 17, 2), (1, 1, 1, 1), (16, 32, 16, 33)], ids=str)
@pytest.mark.parametrize("kernel", TritonKernels.kernels)
def test_rows_of_any_number_and_width(kernel: str, sizes: tuple[int, int, int, int], causal: bool) -> None:
    """Output, normaliser and gradients against phi / sum phi and autograd."""
    tensors = [tensor.requires_grad_() for tensor in drawn(*sizes)]
    query, key, value, incoming = tensors
    phi = plain(kernel, query, key, causal=causal)
    expected = phi @ value / phi.sum(dim=-1, keepdim=True)
    gradients = torch.autograd.grad(expected, tensors[:3], incoming)
    with torch.no_grad():
        out, normaliser = Interpreted().forward(query, key, value, kernel=kernel, causal=causal)
        inputs = (query, key, value)
        found = Interpreted().backward(incoming, inputs, (out, normaliser), kernel=kernel, causal=causal)
    laws.assert_close(out, expected, "output")
    laws.assert_close(normaliser.sum(dim=-1), phi.sum(dim=-1).log(), "log-sum-exp")
    laws.assert_close(found, gradients, "gradients")


@pytest.mark.parametrize("kernel", TritonKernels.kernels)
def test_columns_of_another_number(kernel: str) -> None:
    query, key, value, _ = drawn(37, 21, 3, 5)
    phi = plain(kernel, query, key)
    out, shares = Interpreted().column(query, key, value, kernel=kernel)
    weights = phi / phi.sum(dim=-2, keepdim=True)
    laws.assert_close(out, weights @ value, "output")
    laws.assert_close(shares.sum(dim=-1), weights.sum(dim=-1).log(), "weights of a query")


def test_tensors_need_not_be_contiguous() -> None:
    """Heads that are a view of channels, and a gradient that is expanded from one number."""
    tokens = torch.randn(2, 19, 3 * 2 * 4, dtype=torch.float64, generator=seeded(521)).requires_grad_()

    def results(backend: str) -> list[Tensor]:
        query, key, value = tokens.unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        out = attend(query, key, value, response=Response(get_kernel("exp")), backend=backend)
        return [out.detach(), *torch.autograd.grad(out.sum(), tokens)]

    laws.assert_close(results("fused"), results("dense"), "views")


@pytest.mark.parametrize("size", [pytest.param(1e2, marks=pytest.mark.slow), 1e4])
@pytest.mark.parametrize("case", [case for case in CASES if case.sees == "all"], ids=str)
def test_large_scores_in_single_precision(case: laws.AttentionCase, size: float) -> None:
    laws.test_large_scores_in_single_precision(case, size)


@pytest.mark.parametrize("kernel", TritonKernels.kernels)
@pytest.mark.parametrize("normalize", ["row", "column"])
def test_scores_near_to_one_another_at_ten_thousand(kernel: str, normalize: str) -> None:
    """Scores are 10^4 and some eighths, exact in float32. A log-sum-exp in one number would be off by 5e-4."""
    generator = seeded(522)
    offset = torch.randint(-16, 17, (2, 1, 1, 20, 1), generator=generator) / 8
    query, key = (torch.cat([part, torch.ones_like(part)], dim=-1) for part in offset)
    query[..., 1], key[..., 0], key[..., 1] = 8192.0, 1.0, 1 + key[..., 0] / 8192  # query + 8192 + key
    value, incoming = torch.randn(2, 1, 1, 20, 3, generator=generator)
    response = Response(get_kernel(kernel), normalize=normalize)

    def results(dtype: torch.dtype, backend: str) -> list[Tensor]:
        tensors = [tensor.to(dtype).requires_grad_() for tensor in (query, key, value)]
        out = attend(*tensors, response=response, backend=backend)
        return [out.detach(), *torch.autograd.grad(out, tensors, incoming.to(dtype))]

    truth, own = results(torch.float64, "dense"), results(torch.float32, "dense")
    for found, exact, dense in zip(results(torch.float32, "fused"), truth, own, strict=True):
        error, reference = (float((tensor.double() - exact).abs().max()) for tensor in (found, dense))
        assert error <= 4 * max(reference, 2e-7 * float(exact.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case.sees == "all"], ids=str)
def test_single_precision_is_as_good_as_that_of_the_dense_form(
    monkeypatch: pytest.MonkeyPatch, case: laws.AttentionCase
) -> None:
    monkeypatch.setattr("invattn.functional.triton_attention.block_of", block_of)
    of_its_own = pytest.MonkeyPatch()  # the law undoes what it is given
    laws.test_single_precision_is_as_good_as_that_of_the_dense_form(of_its_own, case, scale=10.0)


@pytest.mark.parametrize("normalize", ["row", "column"])
def test_lower_precisions_are_computed_in_single_precision(normalize: str) -> None:
    tensors = drawn(20, 20, 3, 5, torch.bfloat16)[:3]
    response = Response(get_kernel("elu+1"), normalize=normalize)
    out = attend(*tensors, response=response, backend="fused")
    exact = attend(*(tensor.double() for tensor in tensors), response=response, backend="dense")
    assert out.dtype == torch.bfloat16
    assert float((out - exact).abs().max()) <= 2**-8 * float(exact.abs().max())


def test_what_is_too_wide_goes_elsewhere() -> None:
    tensors = drawn(4, 4, WIDEST + 1, 2)[:3]
    with pytest.raises(ValueError, match=f"at most {WIDEST} channels a head on GPUs; got {WIDEST + 1}"):
        explain(*tensors, response=Response(get_kernel("exp")), backend="fused")
    assert "computes in float32 on GPUs" in str(TritonKernels().obstacle(8, 2))


@pytest.mark.parametrize("kernel", TritonKernels.kernels)
def test_the_trial_passes_what_is_right(kernel: str) -> None:
    """In float32; with Interpreted, in float64, every test that asks for "fused" by name has passed it."""
    assert primitives_right(TritonKernels(), kernel, "cpu")


def test_the_first_trial_may_happen_inside_a_transform() -> None:
    """There tensors have no memory that a program could read."""
    fused_kernels_work.cache_clear()
    query, key, value, _ = drawn(4, 4, 2, 2)
    response = Response(get_kernel("exp"), backend="fused")
    _, pull = torch.func.vjp(lambda tensor: attend(tensor, key, value, response=response), query)
    assert pull(query)[0].shape == query.shape


class WithoutLogarithmOfTwo(Interpreted):
    """A log-sum-exp to base 2 somewhere."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *, kernel: str, causal: bool) -> Pair:
        out, normaliser = super().forward(query, key, value, kernel=kernel, causal=causal)
        return out, normaliser + 0.5 * torch.log(torch.tensor(2.0, dtype=out.dtype))


class OneColumnShort(Interpreted):
    """The last key is not seen in a gradient."""

    def backward(self, incoming: Tensor, inputs: Triple, found: Pair, *, kernel: str, causal: bool) -> Triple:
        by_query, by_key, by_value = super().backward(incoming, inputs, found, kernel=kernel, causal=causal)
        columns = by_value.shape[-2]
        return by_query, by_key, by_value * (torch.arange(columns) < columns - 1)[:, None]


@pytest.mark.parametrize("wrong", [WithoutLogarithmOfTwo(), OneColumnShort()], ids=lambda wrong: type(wrong).__name__)
def test_the_trial_notices_wrong_results(wrong: Interpreted) -> None:
    assert not primitives_right(wrong, "softplus", "cpu")


@triton.jit
def score_itself(score, KERNEL: tl.constexpr):
    return score


@triton.jit
def slope_of_one(score, KERNEL: tl.constexpr):
    return score * 0 + 1


@pytest.mark.parametrize(
    ("kernel", "part", "wrong"),
    [("elu+1", "log_phi", score_itself), ("softplus", "log_phi_slope", slope_of_one)],
)
def test_the_trial_notices_a_missing_kernel_or_slope(
    monkeypatch: pytest.MonkeyPatch, kernel: str, part: str, wrong: Any
) -> None:
    monkeypatch.setattr(triton_kernels, part, wrong)
    assert not primitives_right(Interpreted(), kernel, "cpu")
    assert primitives_right(Interpreted(), "exp", "cpu")  # which has neither: the wrong program runs
