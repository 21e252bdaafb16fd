"""Every kind in every uncertified recipe equals a loop over its printed formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from invattn import ATTENTION_KINDS, invertible_attention
from invattn.bijections import Bijection
from invattn.recipes import Paper, Recipe, Released, ReleasedGenerative, Unconstrained

from .blocks import (
    CHANNELS,
    EXPONENTIAL,
    KEY_CHANNELS,
    StoredMaps,
    assert_equal,
    random_tokens,
    randomise,
)
from .formulas import printed_attention, released_attention

COEFFICIENT = 0.9
AXIS_OF_PAPER = {"column": "first", "row": "second", "total": "both"}
AXIS_OF_RELEASED = {"row": "first", "column": "second", "total": "both"}

both_heads = pytest.mark.parametrize("heads", [1, 4])
every_kind = pytest.mark.parametrize("kind", ATTENTION_KINDS)


def make(kind: str, recipe: Recipe, heads: int, *, train: bool = False) -> Bijection:
    block = invertible_attention(
        CHANNELS, kind=kind, recipe=recipe, key_channels=KEY_CHANNELS, num_heads=heads, layout="tokens"
    ).double()
    randomise(block, seed=heads)
    block(random_tokens(3))  # in training mode: the stored vectors follow the new weights
    return block.train(train)


def printed(x: torch.Tensor, maps: StoredMaps, kind: str, **options: Any) -> list[list[list[float]]]:
    """g(x) of the invertible form of Table 1 for every sample."""
    response = COEFFICIENT if options.get("constrain_response", False) else None
    phi = "exp" if kind in EXPONENTIAL else options.get("phi", "elu+1")
    return [
        printed_attention(
            sample,
            responses=maps.responses(phi, coefficient=response),
            axis=AXIS_OF_PAPER[options.get("normalize", "column")],
            total=options.get("column_sum", 1.0),
            value=maps.affine("value", coefficient=COEFFICIENT),
            last=maps.affine("output", coefficient=COEFFICIENT),
        )
        for sample in x.tolist()
    ]


def released(x: torch.Tensor, maps: StoredMaps, kind: str, **options: Any) -> list[list[list[float]]]:
    """g(x) of the released code for every sample."""
    response = COEFFICIENT if options.get("constrain_response", True) else None
    scalar = options.get("scalar_gate", kind == "gaussian")
    phi = "exp" if kind in EXPONENTIAL else options.get("phi", "elu")
    return [
        released_attention(
            sample,
            responses=maps.responses(phi, coefficient=response),
            axis=AXIS_OF_RELEASED[options.get("normalize", "row")],
            total=options.get("column_sum", 1 / 1.5),
            value=maps.affine("value", coefficient=options.get("value", 0.5 if kind == "dot_product" else COEFFICIENT)),
            gate=maps.tanh_gate() if scalar else maps.affine("output", coefficient=COEFFICIENT),
        )
        for sample in x.tolist()
    ]


PAPER_OPTIONS: list[dict[str, Any]] = [
    {},
    {"phi": "softplus"},
    {"phi": "relu"},
    {"column_sum": 1 / 3},
    {"normalize": "row"},
    {"normalize": "total"},
    {"normalize": "total", "phi": "relu"},
    {"constrain_response": True},
    {"constrain_response": True, "normalize": "total", "column_sum": 0.5, "phi": "softplus"},
]


@both_heads
@every_kind
@pytest.mark.parametrize("options", PAPER_OPTIONS, ids=str)
def test_paper(kind: str, heads: int, options: dict[str, Any]) -> None:
    block = make(kind, Paper(**options), heads)
    x = random_tokens(5)
    maps = StoredMaps(block.state_dict(), heads=heads, kind=kind)
    assert_equal(block(x) - x, printed(x, maps, kind, **options))


RELEASED_OPTIONS: list[dict[str, Any]] = [
    {},
    {"phi": "elu+1"},
    {"phi": "relu"},
    {"phi": "softplus"},
    {"column_sum": 1 / 3},
    {"normalize": "total"},
    {"normalize": "column"},
    {"constrain_response": False},
    {"scalar_gate": True},
    {"scalar_gate": False},
]


@both_heads
@every_kind
@pytest.mark.parametrize("options", RELEASED_OPTIONS, ids=str)
def test_released(kind: str, heads: int, options: dict[str, Any]) -> None:
    block = make(kind, Released(**options), heads)
    x = random_tokens(5)
    maps = StoredMaps(block.state_dict(), heads=heads, kind=kind)
    assert_equal(block.branch(x), released(x, maps, kind, **options))


@both_heads
@every_kind
@pytest.mark.parametrize("options", [{}, {"phi": "elu+1"}, {"column_sum": 1.0}], ids=str)
def test_released_generative(kind: str, heads: int, options: dict[str, Any]) -> None:
    block = make(kind, ReleasedGenerative(**options), heads)
    x = random_tokens(5)
    maps = StoredMaps(block.state_dict(), heads=heads, kind=kind)
    fixed = {"normalize": "total", "constrain_response": False, "scalar_gate": False, "value": COEFFICIENT}
    assert_equal(block.branch(x), released(x, maps, kind, **fixed, **options))


@both_heads
@every_kind
def test_unconstrained(kind: str, heads: int) -> None:
    block = make(kind, Unconstrained(), heads)
    x = random_tokens(5)
    maps = StoredMaps(block.state_dict(), heads=heads, kind=kind)
    exponential = kind in EXPONENTIAL
    reference = [
        printed_attention(
            sample,
            responses=maps.responses("exp" if exponential else "none", coefficient=None),
            axis="second" if exponential else "count",
            total=1.0,
            value=maps.affine("value", coefficient=None),
            last=None,
        )
        for sample in x.tolist()
    ]
    assert_equal(block.branch(x), reference)


@both_heads
@pytest.mark.parametrize(
    ("recipe", "coefficient"),
    [(Paper(), 0.9), (Released(), 0.9), (ReleasedGenerative(), 0.9), (Unconstrained(), None)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_pointwise(recipe: Recipe, coefficient: float | None, heads: int) -> None:
    block = make("pointwise", recipe, heads)
    x = random_tokens(5)
    maps = StoredMaps(block.state_dict(), heads=heads, kind="pointwise")
    value = maps.affine("value", coefficient=coefficient)
    last = (lambda row: row) if coefficient is None else maps.affine("output", coefficient=coefficient)
    assert_equal(block.branch(x), [[last(value(token)) for token in sample] for sample in x.tolist()])


@every_kind
@pytest.mark.parametrize("recipe", [Paper(constrain_response=True), Released()], ids=lambda recipe: recipe.name)
def test_training_forward_uses_the_vectors_it_stores(kind: str, recipe: Recipe) -> None:
    block = make(kind, recipe, 1, train=True)
    randomise(block, seed=11)
    x = random_tokens(6)
    before = block.state_dict()["g.value.left"].clone()
    result = block.branch(x)
    after = block.state_dict()
    assert not torch.equal(before, after["g.value.left"])
    maps = StoredMaps(after, heads=1, kind=kind)
    reference = (
        printed(x, maps, kind, constrain_response=True) if isinstance(recipe, Paper) else released(x, maps, kind)
    )
    assert_equal(result, reference)


@every_kind
def test_constraint_after_the_step_leaves_forward_alone(kind: str) -> None:
    """App. B: the stored weights are the weights used, and they obey Eq. 4 by their exact norm."""
    block = make(kind, Paper(enforce="after_step"), 1)
    for part in (block.branch.value, block.branch.output):
        assert float(torch.linalg.matrix_norm(part.weight.detach(), 2)) > COEFFICIENT  # drawn anew: not yet projected
        part.project()
        assert float(torch.linalg.matrix_norm(part.weight.detach(), 2)) == pytest.approx(COEFFICIENT, abs=1e-12)
    x = random_tokens(5)
    maps = StoredMaps(block.state_dict(), heads=1, kind=kind)
    reference = [
        printed_attention(
            sample,
            responses=maps.responses("exp" if kind in EXPONENTIAL else "elu+1", coefficient=None),
            axis="first",
            total=1.0,
            value=maps.affine("value", coefficient=None),
            last=maps.affine("output", coefficient=None),
        )
        for sample in x.tolist()
    ]
    assert_equal(block.branch(x), reference)


def test_eq_4_holds_the_norm_where_the_vectors_are_right() -> None:
    """Eq. 4 with the leading singular vectors gives a spectral norm of exactly c; with a small weight, the weight."""
    block = make("embedded_gaussian", Paper(), 1)
    value = block.branch.value
    left, _, right = torch.linalg.svd(value.weight.detach())
    with torch.no_grad():
        value.left.copy_(left[:, 0])
        value.right.copy_(right[0])
    scaled = StoredMaps(block.state_dict(), heads=1, kind="embedded_gaussian").affine("value", coefficient=COEFFICIENT)
    assert float(torch.linalg.matrix_norm(torch.tensor(scaled.weight, dtype=torch.float64), 2)) == pytest.approx(
        COEFFICIENT, abs=1e-12
    )
    with torch.no_grad():
        value.weight.mul_(1e-2)
    assert torch.equal(value.scaled_weight(), value.weight)
