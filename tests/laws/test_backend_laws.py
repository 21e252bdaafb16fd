"""Every back end of attention is one function with the dense formula, in value and in all derivatives.

The tile size is lowered so that a handful of tokens make several tiles, the last one uneven.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from invattn.functional import Response, attend, get_kernel, response_weights

from .registry import KERNELS, NORMALIZATIONS, seeded

BATCH, HEADS, TOKENS, WIDTH, CHANNELS = 2, 2, 5, 2, 3
SOFTMAX = ("exp", "elu+1", "softplus")
CLOSE = 1e-10  # of the largest entry, float64; 2e-15 to 6e-14 are seen


@dataclass(frozen=True)
class AttentionCase:
    """A back end and what it computes."""

    backend: str
    kernel: str
    normalize: str
    additive: bool = False
    sees: str = "all"

    def __str__(self) -> str:
        return "-".join([self.backend, self.kernel, self.normalize, "sum" if self.additive else "product", self.sees])

    @property
    def response(self) -> Response:
        return Response(
            get_kernel(self.kernel),
            normalize=self.normalize,
            additive=self.additive,
            weight_sum=0.7,
            backend=self.backend,
        )

    def inputs(self, seed: int = 0, tokens: int = TOKENS) -> list[Tensor]:
        """Query, key, value and, where the case has one, a logit bias."""
        generator = seeded(500 + seed)
        width = 1 if self.additive else WIDTH
        # As many keys as queries: a causal order of rows needs it.
        shapes = [(BATCH, HEADS, tokens, size) for size in (width, width, CHANNELS)]
        shapes += [(HEADS, tokens, tokens)] if "bias" in self.sees else []
        drawn = [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]
        if self.kernel in ("elu", "identity"):
            # Sums of responses of changing sign may vanish: scores above 0 keep away from there.
            drawn[0], drawn[1] = drawn[0].abs() + 0.1, drawn[1].abs() + 0.1
        return drawn

    def attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None, **options: Any) -> Tensor:
        tokens = query.shape[-2]
        position = torch.arange(tokens)
        mask = (position[:, None] + 2 * position[None]) % 3 != 1 if "mask" in self.sees else None
        if "blind" in self.sees:
            mask = position[:, None].expand(tokens, tokens) != 2
        response, causal = self.response, "causal" in self.sees
        return attend(query, key, value, response=response, logit_bias=bias, mask=mask, causal=causal, **options)


def every_case() -> Iterator[AttentionCase]:
    for kernel in KERNELS:
        for normalize in NORMALIZATIONS:
            if (kernel, normalize) == ("exp", "count"):
                continue  # exp without a normaliser overflows: nobody uses it
            softmax = kernel in SOFTMAX and normalize != "count"
            for additive in (False, True):
                for sees in ("all", "mask", "causal", "blind mask", *(("bias", "causal mask bias") if softmax else ())):
                    yield AttentionCase("streamed", kernel, normalize, additive, sees)
    for kernel in ("elu+1", "relu"):
        for normalize in ("row", "column", "total"):
            yield AttentionCase("sorted", kernel, normalize, additive=True)
    yield AttentionCase("fused", "exp", "row")
    yield AttentionCase("fused", "exp", "row", sees="causal")
    yield AttentionCase("fused", "exp", "column")


FUSED_BY_TRITON = [
    AttentionCase("fused", kernel, normalize, sees=sees)
    for kernel in SOFTMAX
    for normalize, sees in (("row", "all"), ("row", "causal"), ("column", "all"))
]
"""What the fused back end computes on a GPU: see test_triton_kernels and test_backends_on_gpu."""

ALL = list(every_case())
SOME = [
    case
    for case in ALL
    if case.backend != "streamed"
    or (case.kernel in SOFTMAX and case.normalize in ("row", "column") and case.sees in ("all", "causal"))
    or (case.kernel in ("exp", "relu") and not case.additive and case.sees in ("blind mask", "causal mask bias"))
    or (case.normalize == "total" and case.sees == "mask" and not case.additive)
    or (case.normalize == "count" and case.kernel == "identity" and case.sees == "mask" and not case.additive)
]
"""Each way through the code at least once; the others are slow tests."""

some_and_slow_rest = pytest.mark.parametrize(
    "case", [case if case in SOME else pytest.param(case, marks=pytest.mark.slow) for case in ALL], ids=str
)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of three rows or columns, and samples in separate chunks where two do not fit."""
    monkeypatch.setattr("invattn.functional.streamed.TILE_SCORES", 3 * BATCH * HEADS * TOKENS)
    monkeypatch.setattr("invattn.functional.streamed.LEAST_ROWS", 2)


def assert_close(found: Any, expected: Any, what: str) -> None:
    pairs = zip(found, expected, strict=True) if isinstance(found, tuple | list) else [(found, expected)]
    for i, (one, other) in enumerate(pairs):
        error = float((one - other).detach().abs().max())
        assert error <= CLOSE * max(1.0, float(other.detach().abs().max())), f"{what}, {i}: {error:.2g}"


def derivatives(function: Callable[..., Tensor], inputs: list[Tensor], seed: int) -> Iterator[tuple[str, Any]]:
    """Yield value and derivatives of a function along drawn vectors, by name."""
    generator = seeded(600 + seed)

    def draw(like: Tensor) -> Tensor:
        return torch.randn(like.shape, dtype=like.dtype, generator=generator)

    value = function(*inputs)
    incoming, along = draw(value), tuple(draw(tensor) for tensor in inputs)

    def pulled(*tensors: Tensor) -> tuple[Tensor, ...]:
        result: tuple[Tensor, ...] = torch.func.vjp(function, *tensors)[1](incoming)
        return result

    def pushed(*tensors: Tensor) -> Tensor:
        result: Tensor = torch.func.jvp(function, tensors, along)[1]
        return result

    yield "value", value
    yield "vjp", pulled(*inputs)
    yield "jvp", pushed(*inputs)
    yield "vjp of vjp", torch.func.vjp(pulled, *inputs)[1](along)
    yield "jvp of vjp", torch.func.jvp(pulled, tuple(inputs), along)[1]
    yield "vjp of jvp", torch.func.vjp(pushed, *inputs)[1](incoming)
    yield "jvp of jvp", torch.func.jvp(pushed, tuple(inputs), along)[1]
    queries = torch.stack([inputs[0], inputs[0] / 2])
    dims = (0, *(None for _ in inputs[1:]))
    yield "vmap", torch.func.vmap(function, in_dims=dims)(queries, *inputs[1:])
    yield "vmap of vjp", torch.func.vmap(pulled, in_dims=dims)(queries, *inputs[1:])
    yield "second gradient by the queries alone", _double_backward(function, inputs, incoming, along[0])


def _double_backward(function: Callable[..., Tensor], inputs: list[Tensor], incoming: Tensor, along: Tensor) -> Tensor:
    """The route of the log-determinant: autograd, with the other inputs constant."""
    query = inputs[0].clone().requires_grad_()
    (first,) = torch.autograd.grad(function(query, *inputs[1:]), query, incoming, create_graph=True)
    if not first.requires_grad:
        return torch.zeros_like(query)  # identity: linear in the queries
    (second,) = torch.autograd.grad((first * along).sum(), query, materialize_grads=True)
    return second


@some_and_slow_rest
def test_all_derivatives_are_those_of_the_dense_form(case: AttentionCase) -> None:
    inputs = case.inputs()

    def dense(*tensors: Tensor) -> Tensor:
        return case.attend(*tensors, backend="dense")

    found = dict(derivatives(case.attend, inputs, seed=1))
    for what, expected in derivatives(dense, inputs, seed=1):
        assert_close(found[what], expected, what)


@some_and_slow_rest
def test_derivatives_against_finite_differences(case: AttentionCase) -> None:
    """relu and elu have kinks; the random scores here are none of them."""
    inputs = [tensor.requires_grad_() for tensor in case.inputs(seed=3, tokens=4)]
    assert torch.autograd.gradcheck(case.attend, inputs, fast_mode=True, check_forward_ad=True)
    if (case.kernel, case.normalize) == ("identity", "count"):
        return  # linear in each input, so that some second derivatives are none at all
    assert torch.autograd.gradgradcheck(case.attend, inputs, fast_mode=True, check_fwd_over_rev=True, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("case", SOME, ids=str)
def test_every_entry_against_finite_differences(case: AttentionCase) -> None:
    inputs = [
        tensor[:1].requires_grad_() if tensor.dim() == 4 else tensor.requires_grad_() for tensor in case.inputs(4, 3)
    ]
    assert torch.autograd.gradcheck(case.attend, inputs, check_forward_ad=True)
    if (case.kernel, case.normalize) != ("identity", "count"):
        assert torch.autograd.gradgradcheck(case.attend, inputs, atol=1e-4)


PLAIN = [
    case for case in ALL if case.sees == "all" and case.kernel not in ("elu", "identity") and case.normalize != "count"
]


@pytest.mark.parametrize("scale", [1.0, 10.0])
@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_single_precision_is_as_good_as_that_of_the_dense_form(
    monkeypatch: pytest.MonkeyPatch, case: AttentionCase, scale: float
) -> None:
    """At most 4 times the error of the dense form in float32, both against the dense form in float64."""
    monkeypatch.undo()  # whole tiles
    wide = [scale**0.5 * tensor if i < 2 else tensor for i, tensor in enumerate(case.inputs(5, tokens=400))]
    narrow = [tensor.float() for tensor in wide]
    wide = [tensor.double() for tensor in narrow]
    incoming = torch.randn(wide[2].shape, generator=seeded(6))

    def results(inputs: list[Tensor], backend: str) -> list[Tensor]:
        tensors = [tensor.clone().requires_grad_() for tensor in inputs]
        out = case.attend(*tensors, backend=backend)
        found = [out, *torch.autograd.grad(out, tensors, incoming.to(out.dtype))]
        return [tensor.detach() for tensor in found]

    truth = results(wide, "dense")
    for i, (exact, ours, dense) in enumerate(
        zip(truth, results(narrow, case.backend), results(narrow, "dense"), strict=True)
    ):
        size = float(exact.square().mean().sqrt())
        error, own = (float((found.double() - exact).square().mean().sqrt()) / size for found in (ours, dense))
        # 2e-7 is two units of rounding: an error below it is no worse for being four times another one.
        assert error <= 4 * max(own, 2e-7), f"result {i}: {error:.2g} against {own:.2g}"


@pytest.mark.parametrize("size", [1e2, 1e4])
@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_large_scores_in_single_precision(case: AttentionCase, size: float) -> None:
    """Factors are small binary fractions times a power of two: scores are exact in both precisions."""
    unit = 2.0 ** round(torch.tensor(size).log2().item())
    drawn = [torch.randint(-8, 9, tensor.shape, generator=seeded(7 + i)) / 8 for i, tensor in enumerate(case.inputs())]
    query, key, value = (unit**power * tensor for power, tensor in zip((1, case.additive, 0), drawn, strict=True))
    incoming = torch.randn(value.shape, generator=seeded(8))

    def results(dtype: torch.dtype, backend: str) -> list[Tensor]:
        tensors = [tensor.to(dtype).requires_grad_() for tensor in (query, key, value)]
        out = case.attend(*tensors, backend=backend)
        return [out.detach(), *torch.autograd.grad(out, tensors, incoming.to(dtype))]

    truth, own = results(torch.float64, "dense"), results(torch.float32, "dense")
    for found, exact, dense in zip(results(torch.float32, case.backend), truth, own, strict=True):
        assert found.isfinite().all()
        # The dense form in float32 is off by up to 4e-5 itself, where kernels of scores of 10^4 cancel.
        error, reference = (float((tensor.double() - exact).abs().max()) for tensor in (found, dense))
        assert error <= max(4 * reference, 1e-5 * max(1.0, float(exact.abs().max())))


@pytest.mark.parametrize("normalize", ["row", "column", "total"])
@pytest.mark.parametrize("shift", [-200.0, -6.0, 40.0])
def test_sorted_sums_do_not_underflow(normalize: str, shift: float) -> None:
    """At a shift of -200 the exponentials of all scores underflow in float32."""
    case = AttentionCase("sorted", "elu+1", normalize, additive=True)
    query, key, value = case.inputs(9, tokens=50)
    dense = case.attend(query, key + shift, value, backend="dense")
    found = case.attend(query.float(), key.float() + shift, value.float())
    # A rounding of the shifted scores, 40 or 200 in size, is up to 1e-5.
    assert float((found - dense).abs().max()) <= 5e-5


@pytest.mark.parametrize("normalize", ["row", "column", "total"])
@pytest.mark.parametrize("kernel", ["elu+1", "relu"])
def test_ties_and_kinks(kernel: str, normalize: str) -> None:
    """Integer scores: many are equal, many exactly 0. The derivatives are those that autograd has for the formula."""
    case = AttentionCase("sorted", kernel, normalize, additive=True)
    generator = seeded(10)
    query, key = (torch.randint(-2, 3, (2, 1, 6, 1), generator=generator).double() for _ in range(2))
    query[..., 0, :], key[..., 0, :] = 3.0, 3.0  # some positive score in every row and column
    value = torch.randn(2, 1, 6, 3, dtype=torch.float64, generator=generator)

    def results(backend: str) -> list[Tensor]:
        tensors = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
        first = torch.autograd.grad(case.attend(*tensors, backend=backend).square().sum(), tensors, create_graph=True)
        second = torch.autograd.grad(sum(part.square().sum() for part in first), tensors)
        return [*first, *second]

    assert_close(results("sorted"), results("dense"), "ties")


@pytest.mark.parametrize("normalize", ["row", "column", "total"])
@pytest.mark.parametrize("backend", ["streamed", "sorted"])
def test_relu_without_a_positive_score_gives_zero_and_zero_gradient(backend: str, normalize: str) -> None:
    case = AttentionCase(backend, "relu", normalize, additive=True)
    query, key, value = (-tensor.abs() for tensor in case.inputs(11))
    query.requires_grad_()
    out = case.attend(query, key, value)
    assert not out.any()
    assert not torch.autograd.grad(out.sum(), query)[0].any()


@pytest.mark.parametrize("case", [case for case in SOME if case.sees == "all"], ids=str)
def test_fewer_keys_than_queries(case: AttentionCase) -> None:
    query, key, value = case.inputs(12)
    key, value = key[:, :, :3], value[:, :, :3]
    weights = response_weights(query, key, response=case.response)
    assert_close(case.attend(query, key, value), weights @ value, "value")


@pytest.mark.parametrize("normalize", ["row", "column"])
def test_fused_computes_numbers_of_lower_precision_in_single_precision(normalize: str) -> None:
    case = AttentionCase("fused", "exp", normalize)
    tensors = [tensor.bfloat16() for tensor in case.inputs(14)]
    out, exact = case.attend(*tensors), case.attend(*(tensor.double() for tensor in tensors), backend="dense")
    assert out.dtype == torch.bfloat16
    assert float((out - exact).abs().max()) <= 2**-8 * float(exact.abs().max())  # the rounding of the result alone


@pytest.mark.parametrize("backend", ["streamed", "fused", "sorted"])
def test_autocast_computes_in_single_precision_and_returns_the_lower_one(backend: str) -> None:
    case = next(case for case in SOME if case.backend == backend)
    tensors = [tensor.float().requires_grad_() for tensor in case.inputs(13)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = case.attend(*tensors)
    assert out.dtype == torch.bfloat16
    exact = case.attend(*(tensor.detach().double() for tensor in tensors), backend="dense")
    assert float((out.detach() - exact).abs().max()) <= 2**-8 * float(
        exact.abs().max()
    )  # the rounding of the result alone
    for grad in torch.autograd.grad(out.float().sum(), tensors):
        assert grad.dtype == torch.float32
