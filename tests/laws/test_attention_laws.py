"""Tiles, batch chunks and the dense form of attention are one function, for every kernel and normalisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from invattn.functional import Response, attend, get_kernel, response_weights

from .registry import KERNELS, NORMALIZATIONS, seeded

BATCH, HEADS, QUERIES, KEYS, WIDTH = 2, 2, 7, 6, 3
TOTALS = {"row": (-1,), "column": (-2,), "total": (-2, -1)}

every_form = pytest.mark.parametrize(
    ("kernel", "normalize"), [(kernel, normalize) for kernel in KERNELS for normalize in NORMALIZATIONS]
)


def make(seed: int, additive: bool) -> tuple[Tensor, Tensor, Tensor]:
    generator = seeded(seed)
    width = 1 if additive else WIDTH
    shapes = ((QUERIES, width), (KEYS, width), (KEYS, 4))
    query, key, value = (
        torch.randn(BATCH, HEADS, *shape, dtype=torch.float64, generator=generator).requires_grad_() for shape in shapes
    )
    return query, key, value


def force_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use tiles of two or three rows or columns for every sequence."""
    monkeypatch.setattr("invattn.functional.dispatch._LEAN", ("streamed",))
    monkeypatch.setattr("invattn.functional.dispatch.ALWAYS_STREAMED", 0)
    monkeypatch.setattr("invattn.functional.streamed.TILE_SCORES", 60)
    monkeypatch.setattr("invattn.functional.streamed.LEAST_ROWS", 2)


@pytest.mark.parametrize("form", ["plain", "additive", "mask", "mask and bias"])
@every_form
def test_tiles_equal_the_dense_form_in_value_and_gradient(
    monkeypatch: pytest.MonkeyPatch, kernel: str, normalize: str, form: str
) -> None:
    query, key, value = make(1, form == "additive")
    response = Response(get_kernel(kernel), normalize=normalize, additive=form == "additive", weight_sum=0.7)
    mask = torch.rand(QUERIES, KEYS, generator=seeded(2)) < 0.7 if "mask" in form else None
    inputs = [query, key, value]
    bias = None
    if "bias" in form and response.kernel.log_value is not None:
        bias = torch.randn(HEADS, QUERIES, KEYS, dtype=torch.float64, generator=seeded(3)).requires_grad_()
        inputs.append(bias)
    incoming = torch.randn(BATCH, HEADS, QUERIES, 4, dtype=torch.float64, generator=seeded(4))

    def run() -> tuple[Tensor, ...]:
        out = attend(query, key, value, response=response, logit_bias=bias, mask=mask)
        return out, *torch.autograd.grad((incoming * out).sum(), inputs, materialize_grads=True)

    dense = run()
    weights = response_weights(query, key, response=response, logit_bias=bias, mask=mask)
    torch.testing.assert_close(weights @ value, dense[0], rtol=1e-12, atol=1e-12)
    force_tiles(monkeypatch)
    for one, other in zip(run(), dense, strict=True):
        # Sums of plain responses of changing sign may nearly vanish: relative to the largest entry.
        assert float((one - other).detach().abs().max()) <= 1e-10 * max(1.0, float(other.detach().abs().max()))


@every_form
def test_weights_have_the_sum_that_was_asked_for(kernel: str, normalize: str) -> None:
    query, key, _ = make(5, additive=False)
    weights = response_weights(
        query, key, response=Response(get_kernel(kernel), normalize=normalize, weight_sum=1 / 1.5)
    )
    assert weights.shape == (BATCH, HEADS, QUERIES, KEYS)
    if normalize == "count":
        expected = get_kernel(kernel).value(query @ key.mT) * (1 / 1.5) / KEYS
        torch.testing.assert_close(weights, expected)
        return
    total = weights.sum(dim=TOTALS[normalize])
    something = weights.ne(0).any(dim=TOTALS[normalize][0])
    if normalize == "total":
        something = something.any(dim=-1)
    assert kernel == "relu" or bool(something.all())  # relu without a positive score has nothing to share out
    torch.testing.assert_close(total, something.to(total.dtype) / 1.5, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("kernel", ["exp", "elu+1", "softplus"])
@pytest.mark.parametrize("score", [1e4, -1e4, 1e30, -1e30])
def test_extreme_scores_are_finite(kernel: str, normalize: str, score: float) -> None:
    if (kernel, normalize) == ("exp", "count"):
        pytest.skip("exp without a normaliser is what it is")
    query = torch.tensor([1.0, 0.5, -1.0])[None, None, :, None].requires_grad_()
    key = torch.tensor([1.0, -0.25])[None, None, :, None]
    value = torch.tensor([[1.0], [2.0]])[None, None]
    out = attend(score * query, key, value, response=Response(get_kernel(kernel), normalize=normalize))
    out.sum().backward()
    assert out.isfinite().all()
    assert query.grad is not None
    assert query.grad.isfinite().all()


def test_a_whole_batch_and_its_chunks_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = make(6, additive=False)
    response = Response(get_kernel("exp"))
    whole = attend(query, key, value, response=response)
    monkeypatch.setattr("invattn.functional.dense.CHUNK_SCORES", 1)
    torch.testing.assert_close(attend(query, key, value, response=response), whole, rtol=1e-13, atol=1e-13)


@every_form
def test_tiles_under_torch_func(monkeypatch: pytest.MonkeyPatch, kernel: str, normalize: str) -> None:
    """Recomputation in the backward pass is left out under transforms, which do not know it."""
    query, key, value = (tensor.detach() for tensor in make(7, additive=False))
    response = Response(get_kernel(kernel), normalize=normalize)

    def run(tensor: Tensor) -> Tensor:
        return attend(tensor, key, value, response=response)

    function: Callable[..., Any] = torch.func.jvp
    dense = function(run, (query,), (query,))
    force_tiles(monkeypatch)
    for one, other in zip(function(run, (query,), (query,)), dense, strict=True):
        assert float((one - other).abs().max()) <= 1e-10 * max(1.0, float(other.abs().max()))


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_tiles_can_be_differentiated_twice(monkeypatch: pytest.MonkeyPatch, normalize: str) -> None:
    query, key, value = make(8, additive=False)
    response = Response(get_kernel("softplus"), normalize=normalize)

    def second() -> Tensor:
        out = attend(query, key, value, response=response)
        (grad,) = torch.autograd.grad(out.square().sum(), query, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), key)[0]

    dense = second()
    force_tiles(monkeypatch)
    torch.testing.assert_close(second(), dense, rtol=1e-9, atol=1e-9)


def test_a_relu_without_a_positive_score_gives_zero_and_zero_gradient() -> None:
    query = torch.full((1, 1, 2, 1), -1.0, requires_grad=True)
    key, value = torch.ones(1, 1, 3, 1), torch.ones(1, 1, 3, 2)
    for normalize in ("row", "column", "total"):
        out = attend(query, key, value, response=Response(get_kernel("relu"), normalize=normalize))
        assert not out.any()
        (grad,) = torch.autograd.grad(out.sum(), query)
        assert not grad.any()


def test_column_sums_have_a_response_that_grows_with_the_number_of_tokens() -> None:
    """Column sums of 1: sum_i |dg_i / dq_1| is exactly Lambda N / 2, which no bound without N can hold."""
    for tokens in (4, 16, 64, 256):
        strength = 0.5 * torch.tensor(tokens - 1.0, dtype=torch.float64).log()
        query = -torch.ones(1, 1, tokens, 1, dtype=torch.float64)
        query[0, 0, 0] = 1.0
        ones = torch.ones_like(query)
        response = Response(get_kernel("exp"), normalize="column")
        direction = torch.zeros_like(query)
        direction[0, 0, 0] = 1.0

        def scaled(factor: Tensor, ones: Tensor = ones, response: Response = response) -> Tensor:
            return attend(factor, ones, ones, response=response)

        function: Callable[..., Any] = torch.func.jvp
        _, moved = function(scaled, (strength * query,), (strength * direction,))
        assert float(moved.abs().sum()) == pytest.approx(float(strength) * tokens / 2, rel=1e-12)
