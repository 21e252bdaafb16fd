"""Which back end is chosen, what can be forced, and what is said about it."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from invattn import ATTENTION_KINDS, invertible_attention
from invattn.functional import Response, attend, explain, get_kernel
from invattn.functional.dispatch import MEMORY_BUDGET, TABLE, Case, choose
from invattn.functional.fused import Flash, fused_kernels_work
from invattn.functional.fused_primitives import primitives_right
from invattn.functional.triton_attention import TritonKernels
from invattn.recipes import Certified, Paper


def case(kernel: str = "exp", normalize: str = "row", **options: Any) -> Case:
    additive = options.pop("additive", False)
    sizes = {"batch": 1, "heads": 1, "queries": 16, "keys": 16} | options
    return Case(Response(get_kernel(kernel), normalize=normalize, additive=additive), **sizes)


def long(**options: Any) -> Case:
    return case(queries=9701, keys=9701, **options)


def test_this_build_has_the_fused_kernels() -> None:
    """Nothing breaks without them, but all figures of speed are with them."""
    assert fused_kernels_work("cpu", "exp")
    assert not fused_kernels_work("cpu", "softplus")
    assert not fused_kernels_work("meta", "exp")


def test_a_few_tokens_are_dense() -> None:
    for kernel in ("exp", "elu+1", "softplus", "relu"):
        for additive in (False, True):
            assert choose(case(kernel, additive=additive)).backend == "dense"


@pytest.mark.parametrize(
    ("normalize", "tokens", "batch", "backend"),
    [
        ("row", 512, 1, "dense"),
        ("row", 700, 1, "sorted"),
        ("row", 256, 8, "dense"),
        ("row", 400, 4, "sorted"),
        ("row", 128, 64, "dense"),
        ("row", 160, 32, "sorted"),
        ("total", 700, 1, "sorted"),
        ("column", 600, 1, "dense"),
        ("column", 800, 1, "sorted"),
        ("column", 400, 4, "dense"),
        ("column", 512, 4, "sorted"),
        ("column", 160, 64, "dense"),
        ("column", 256, 64, "sorted"),
    ],
)
def test_sums_are_sorted_from_where_it_was_measured_to_pay(
    normalize: str, tokens: int, batch: int, backend: str
) -> None:
    found = choose(case("elu+1", normalize, additive=True, queries=tokens, keys=tokens, batch=batch))
    assert found.backend == backend


@pytest.mark.parametrize("order", [0, 2])
@pytest.mark.parametrize(
    ("options", "backend"),
    [
        ({}, "fused"),
        ({"causal": True}, "fused"),
        ({"masked": True}, "streamed"),
        ({"biased": True}, "streamed"),
        ({"device": "mps"}, "streamed"),
        ({"normalize": "column"}, "streamed"),
        ({"normalize": "total"}, "streamed"),
        ({"kernel": "elu+1"}, "streamed"),
        ({"kernel": "elu+1", "additive": True}, "sorted"),
        ({"kernel": "elu+1", "additive": True, "causal": True}, "streamed"),
        ({"kernel": "relu", "additive": True, "normalize": "column"}, "sorted"),
        ({"kernel": "softplus", "additive": True}, "streamed"),
        ({"kernel": "identity", "normalize": "count"}, "streamed"),
    ],
)
def test_images_of_celeba_are_never_dense(options: dict[str, Any], backend: str, order: int) -> None:
    assert choose(long(order=order, **options)).backend == backend


def test_every_line_of_the_table_can_be_reached() -> None:
    for entry in TABLE:
        response = Response(get_kernel(entry.kernels[0]), normalize=entry.normalize[0], additive=entry.additive)
        reached = Case(response, batch=entry.batch, heads=1, queries=entry.tokens, keys=entry.tokens, order=entry.order)
        found = choose(reached)
        assert (found.backend, str(entry.tokens) in found.reason) == (entry.backend, True)
        fewer = replace(reached, queries=entry.tokens - 1)
        assert choose(fewer).reason != found.reason


def test_what_would_not_fit_is_not_dense() -> None:
    many = case(normalize="total", batch=4096, queries=256, keys=256, order=2)
    chosen = choose(many)
    assert chosen.backend == "streamed"
    assert "the dense form would take" in chosen.reason
    assert chosen.memory < MEMORY_BUDGET
    assert choose(replace(many, order=0)).backend == "dense"  # in chunks of the batch


def test_compilation_sees_the_formula() -> None:
    assert choose(case(queries=1024, keys=1024, compiling=True)).backend == "dense"
    assert choose(long(compiling=True)).backend == "streamed"


@pytest.mark.parametrize(
    ("forced", "options", "message"),
    [
        ("sortd", {}, r"unknown back end 'sortd'. Did you mean 'sorted'\?"),
        ("sorted", {}, "needs additive scores .*; got product scores, kernel exp, normalisation row"),
        ("sorted", {"kernel": "elu+1", "additive": True, "causal": True}, "knows no mask.*Use backend='streamed'"),
        ("fused", {"kernel": "softplus"}, "needs product scores, kernel exp"),
        ("fused", {"normalize": "total"}, "normalisation row or column; got .* normalisation total"),
        ("fused", {"masked": True}, "knows no mask"),
        ("fused", {"normalize": "column", "causal": True}, "only for rows"),
        ("fused", {"keys": 8, "causal": True}, "as many queries as keys"),
        ("fused", {"device": "mps"}, "runs on cpu and cuda alone; this is mps"),
        ("fused", {"device": "cuda", "itemsize": 8}, "computes in float32 on GPUs"),
        ("fused", {"device": "cuda", "width": 129}, "at most 128 channels a head on GPUs; got 129"),
        ("fused", {"device": "cuda", "normalize": "total"}, r"kernel exp or elu\+1 or softplus on cuda"),
    ],
)
def test_what_cannot_be_forced(forced: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose(case(**options), forced)


def test_without_the_fused_kernels_there_are_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("invattn.functional.dispatch.fused_kernels_work", lambda device, kernel: False)
    for device in ("cpu", "cuda"):
        assert choose(long(device=device)).backend == "streamed"
        with pytest.raises(ValueError, match=f"needs fused kernels that work on {device}"):
            choose(case(device=device), "fused")


def test_triton_need_not_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)  # importing it fails
    monkeypatch.delitem(sys.modules, "invattn.functional.triton_kernels", raising=False)
    assert not primitives_right(TritonKernels(), "exp", "cpu")


@pytest.mark.parametrize("order", [0, 2])
@pytest.mark.parametrize("kernel", ["exp", "elu+1", "softplus"])
def test_on_a_gpu_fused_is_chosen_where_the_formula_is_out_of_the_question(
    monkeypatch: pytest.MonkeyPatch, kernel: str, order: int
) -> None:
    """No size was measured there from which on it is faster."""
    monkeypatch.setattr("invattn.functional.dispatch.fused_kernels_work", lambda device, kernel: device == "cuda")
    for normalize in ("row", "column"):
        found = choose(long(kernel=kernel, normalize=normalize, device="cuda", order=order, width=12))
        assert (found.backend, found.reason) == ("fused", "more than 4,194,304 scores a sample")
        assert choose(case(kernel, normalize, device="cuda"), "fused").backend == "fused"
    assert choose(case(kernel, queries=1024, keys=1024, device="cuda", order=2)).backend == "dense"
    for options in ({"width": 512}, {"itemsize": 8}, {"masked": True}):
        assert choose(long(kernel=kernel, device="cuda", order=order, **options)).backend == "streamed"


def test_a_build_whose_kernels_differ_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(*_: object, **__: object) -> None:
        raise AttributeError

    assert primitives_right(Flash(), "exp", "cpu")
    assert not primitives_right(Flash(), "elu+1", "cpu")
    monkeypatch.setattr(Flash, "forward", other)
    assert not primitives_right(Flash(), "exp", "cpu")
    monkeypatch.setattr(Flash, "forward", lambda self, q, k, v, kernel, causal: (v, q.sum(dim=-1, keepdim=True)))
    assert not primitives_right(Flash(), "exp", "cpu")


def test_an_argument_goes_before_the_response() -> None:
    tokens = torch.randn(1, 1, 4, 2)
    response = Response(get_kernel("exp"), backend="streamed")
    assert explain(tokens, tokens, tokens, response=response).backend == "streamed"
    assert explain(tokens, tokens, tokens, response=response, backend="dense").backend == "dense"
    with pytest.raises(ValueError, match="'sorted' needs additive"):
        attend(tokens, tokens, tokens, response=response, backend="sorted")


@pytest.mark.parametrize("recipe", ["certified", "paper", "unconstrained"])
@pytest.mark.parametrize("layout", ["tokens", "image"])
def test_a_block_explains_itself(recipe: str, layout: str) -> None:
    x = torch.randn(2, 9, 4) if layout == "tokens" else torch.randn(2, 4, 3, 3)
    block = invertible_attention(4, recipe=recipe, layout=layout)
    chosen = block.explain(x)
    assert (chosen.backend, chosen.scores) == ("dense", 2 * 9 * 9)
    assert str(chosen).startswith("dense: the quickest for so few tokens; 162 scores, about 0.0 MiB")
    forced = invertible_attention(4, recipe=recipe, layout=layout, backend="streamed")
    forced.load_state_dict(block.state_dict())
    assert str(forced.explain(x)).startswith("streamed: asked for by name")
    torch.testing.assert_close(forced.eval()(x), block.eval()(x))


@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_a_block_refuses_an_unsuitable_back_end_when_it_is_made(kind: str) -> None:
    with pytest.raises(ValueError, match="back end 'quick'"):
        invertible_attention(4, kind=kind, backend="quick")
    unsuitable = "fused" if kind == "concatenation" else "sorted"
    for recipe in (Certified(), Paper()):
        with pytest.raises(ValueError, match=f"the back end '{unsuitable}' needs"):
            invertible_attention(4, kind=kind, recipe=recipe, backend=unsuitable)


def test_what_some_device_can_compute_is_refused_where_it_cannot() -> None:
    block = invertible_attention(4, kind="dot_product", backend="fused", layout="tokens")
    with pytest.raises(ValueError, match=r"kernel exp on cpu.*got product scores, kernel elu\+1"):
        block(torch.randn(1, 5, 4))


def test_what_a_causal_block_refuses() -> None:
    with pytest.raises(ValueError, match="knows no mask"):
        invertible_attention(4, kind="concatenation", backend="sorted", causal=True)
    with pytest.raises(ValueError, match="knows no mask and no logit bias"):
        invertible_attention(4, recipe=Certified(position_grid=(3, 3)), backend="fused")
    assert invertible_attention(4, backend="fused", causal=True, layout="tokens").explain(torch.randn(1, 5, 4))


def test_the_pointwise_control_has_no_back_end() -> None:
    with pytest.raises(ValueError, match="no back end to choose"):
        invertible_attention(4, kind="pointwise", backend="dense")
    with pytest.raises(ValueError, match="no attention to explain"):
        invertible_attention(4, kind="pointwise").explain(torch.randn(1, 4, 2, 2))
