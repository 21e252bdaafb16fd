"""The one function that makes a block, and its recipes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from invattn import ATTENTION_KINDS, KINDS, RECIPES, attention_map, invertible_attention
from invattn.bijections import ImageLayout, ResidualBijection
from invattn.branches import CertifiedAttention, RelaxedAttention, TanhGate
from invattn.lipschitz import ConstrainedLinear
from invattn.recipes import (
    Certified,
    Paper,
    Recipe,
    Released,
    ReleasedGenerative,
    Strict,
    Unconstrained,
    constrain_after_step,
    convert_authors_state_dict,
)


def relaxed(block: torch.nn.Module) -> RelaxedAttention:
    (branch,) = (part for part in block.modules() if isinstance(part, RelaxedAttention))
    return branch


def test_the_names() -> None:
    assert ATTENTION_KINDS == ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
    assert list(KINDS) == [*ATTENTION_KINDS, "pointwise"]
    assert RECIPES == ("certified", "paper", "released", "released_generative", "unconstrained")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "gausian"}, r"attention kind 'gausian'. Did you mean 'gaussian'\?"),
        ({"kind": "embeded_gaussian"}, r"Did you mean 'embedded_gaussian'\?"),
        ({"kind": "xyz"}, r"unknown attention kind 'xyz'. Known: gaussian, embedded_gaussian, dot_product"),
        ({"recipe": "certifed"}, r"recipe 'certifed'. Did you mean 'certified'\?"),
        ({"layout": "images"}, r"layout 'images'. Did you mean 'image'\?"),
        ({"num_heads": 3}, "4 channels cannot be divided among 3 heads"),
        ({"num_heads": 0}, "must be at least 1; got 4, 0, None"),
        ({"key_channels": 0}, "must be at least 1; got 4, 1, 0"),
        ({"lipschitz": 1.0}, "strictly between 0 and 1"),
        ({"lipschitz": 0.0, "recipe": "paper"}, "coefficient must be positive"),
        ({"kind": "pointwise", "causal": True}, "neither mask nor causal"),
        ({"kind": "pointwise", "mask": torch.ones(2, 2, dtype=torch.bool)}, "neither mask nor causal"),
        ({"kind": "concatenation", "recipe": Certified(phi="exp")}, "cancels the query"),
        ({"kind": "dot_product", "recipe": Certified(phi="relu")}, "a certificate needs"),
        ({"kind": "dot_product", "recipe": Paper(phi="eluu")}, r"response kernel 'eluu'. Did you mean 'elu'\?"),
        ({"recipe": Paper(normalize="rows")}, r"normalisation 'rows'. Did you mean 'row'\?"),
        ({"recipe": Paper(enforce="after")}, "'forward' or 'after_step'"),
    ],
)
def test_what_is_wrong_is_refused_with_what_would_be_right(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        invertible_attention(4, **options)  # type: ignore[arg-type]


def test_a_misspelt_argument_is_not_swallowed() -> None:
    with pytest.raises(TypeError, match="num_head"):
        invertible_attention(4, num_head=2)  # type: ignore[call-arg]


def test_channels_must_be_positive() -> None:
    with pytest.raises(ValueError, match="at least 1; got 0, 1, None"):
        invertible_attention(0)


@pytest.mark.parametrize(("channels", "key_channels", "expected"), [(12, None, 3), (3, None, 1), (12, 5, 5)])
def test_key_channels(channels: int, key_channels: int | None, expected: int) -> None:
    block = invertible_attention(channels, key_channels=key_channels, num_heads=3)
    weight = block.state_dict()["tokens.g.score.query.weight"]
    assert weight.shape == (3 * expected, channels)


def test_layouts() -> None:
    assert isinstance(invertible_attention(4, layout="tokens"), ResidualBijection)
    image = invertible_attention(4, layout="image")
    assert isinstance(image, ImageLayout)
    assert isinstance(image.branch, CertifiedAttention)


@pytest.mark.parametrize("recipe", [Certified(), Paper(), Released(), ReleasedGenerative(), Unconstrained()])
@pytest.mark.parametrize("kind", KINDS)
def test_a_name_is_its_recipe_object(recipe: Recipe, kind: str) -> None:
    x = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    images = []
    for choice in (recipe.name, recipe):
        torch.manual_seed(1)
        images.append(invertible_attention(4, kind=kind, recipe=choice, layout="tokens")(x).detach())
    assert torch.equal(*images)


def test_strict_is_an_object_only() -> None:
    with pytest.raises(ValueError, match="unknown recipe 'strict'"):
        invertible_attention(4, recipe="strict")
    assert invertible_attention(4, recipe=Strict()).lipschitz_bound().derivation.startswith("Theorem 1, kernel exp")


def test_without_attention_strict_is_certified() -> None:
    blocks = [invertible_attention(4, kind="pointwise", recipe=recipe) for recipe in (Certified(), Strict())]
    blocks[1].load_state_dict(blocks[0].state_dict())
    x = torch.randn(2, 4, 3, 3)
    assert torch.equal(blocks[0](x), blocks[1](x))
    assert blocks[0].lipschitz_bound() == blocks[1].lipschitz_bound()


@pytest.mark.parametrize("recipe", [Certified, Strict])
@pytest.mark.parametrize("kind", ["dot_product", "concatenation", "gaussian", "embedded_gaussian"])
def test_every_certified_kernel_can_be_chosen(kind: str, recipe: type[Certified] | type[Strict]) -> None:
    for phi in ("softplus", "elu+1"):
        block = invertible_attention(4, kind=kind, recipe=recipe(phi=phi), layout="tokens").double()
        x = torch.randn(2, 3, 4, dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(block.inverse(block(x)), x, rtol=1e-10, atol=1e-10)
        assert phi in block.lipschitz_bound().derivation


REMEDIES: list[tuple[Recipe, Callable[[RelaxedAttention, Tensor], bool]]] = [
    (Paper(phi="relu"), lambda branch, weights: branch.response.kernel.name == "relu"),
    (Paper(phi="softplus"), lambda branch, weights: branch.response.kernel.name == "softplus"),
    (Paper(column_sum=0.5), lambda branch, weights: bool(((weights.sum(-2) - 0.5).abs() < 1e-6).all())),
    (Paper(normalize="total"), lambda branch, weights: bool(((weights.sum((-1, -2)) - 1).abs() < 1e-6).all())),
    (Paper(normalize="row"), lambda branch, weights: bool(((weights.sum(-1) - 1).abs() < 1e-6).all())),
    (Paper(), lambda branch, weights: bool(((weights.sum(-2) - 1).abs() < 1e-6).all())),
    (Paper(constrain_response=True), lambda branch, _: isinstance(branch.score.query, ConstrainedLinear)),
    (Paper(), lambda branch, _: not isinstance(branch.score.query, ConstrainedLinear)),
    (Released(), lambda branch, weights: bool(((weights.sum(-1) - 1 / 1.5).abs() < 1e-4).all()) and branch.exchange),
    (ReleasedGenerative(), lambda branch, weights: bool(((weights.sum((-1, -2)) - 1 / 1.5).abs() < 1e-4).all())),
    (Released(scalar_gate=True), lambda branch, _: isinstance(branch.output, TanhGate)),
    (Released(), lambda branch, _: isinstance(branch.output, ConstrainedLinear)),
    (Unconstrained(), lambda branch, _: isinstance(branch.output, torch.nn.Identity)),
    (Paper(power_iterations=9), lambda branch, _: getattr(branch.value, "power_iterations") == 9),  # noqa: B009
]


@pytest.mark.parametrize(("recipe", "holds"), REMEDIES)
def test_arguments_of_the_recipes_do_what_they_say(
    recipe: Recipe, holds: Callable[[RelaxedAttention, Tensor], bool]
) -> None:
    torch.manual_seed(2)
    block = invertible_attention(4, kind="dot_product", recipe=recipe, layout="tokens")
    assert holds(relaxed(block), attention_map(block, torch.randn(2, 5, 4)).detach())


def test_the_coefficient_reaches_the_constrained_maps() -> None:
    for kind, value in (("embedded_gaussian", 0.5), ("dot_product", 0.5 * 5 / 9)):
        branch = relaxed(invertible_attention(4, kind=kind, recipe="released", lipschitz=0.5))
        assert isinstance(branch.value, ConstrainedLinear)
        assert branch.value.coefficient == pytest.approx(value)


def test_attention_maps_of_images_and_tokens() -> None:
    block = invertible_attention(4, num_heads=2)
    x = torch.randn(3, 4, 2, 5)
    weights = attention_map(block, x)
    assert weights.shape == (3, 2, 10, 10)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, 2, 10))
    assert torch.equal(attention_map(block, x.flatten(2).mT), weights)
    mixed = weights[0, 0, 4] @ torch.eye(10)
    assert mixed.shape == (10,)
    with pytest.raises(ValueError, match="no attention map"):
        attention_map(invertible_attention(4, kind="pointwise"), x)


def test_attention_maps_of_relaxed_blocks_are_what_forward_uses() -> None:
    torch.manual_seed(3)
    block = invertible_attention(4, kind="dot_product", recipe="released", num_heads=2, layout="tokens").eval()
    x = torch.randn(2, 5, 4)
    branch = relaxed(block)
    value = branch.value(x).unflatten(-1, (2, 2)).transpose(1, 2)
    mixed = (attention_map(block, x) @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(block(x), x + branch.output(mixed))


def test_constraints_after_each_step_of_an_optimiser() -> None:
    torch.manual_seed(4)
    block = invertible_attention(4, recipe=Paper(enforce="after_step", constrain_response=True), layout="tokens")
    optimizer = torch.optim.SGD(block.parameters(), lr=5.0)
    handle = constrain_after_step(optimizer, block)
    maps = [part for part in block.modules() if isinstance(part, ConstrainedLinear)]
    assert len(maps) == 4
    x = torch.randn(8, 5, 4)

    def largest() -> float:
        optimizer.zero_grad()
        (block(x) - x.roll(1, 0)).square().mean().backward()
        optimizer.step()
        return max(float(torch.linalg.svd(part.weight.detach())[1][0]) for part in maps)

    for _ in range(3):
        assert largest() <= 0.9 * (1 + 1e-5)
    handle.remove()
    assert max(largest() for _ in range(3)) > 0.9 * 1.01
    with pytest.raises(ValueError, match="enforce='after_step'"):
        constrain_after_step(optimizer, invertible_attention(4, recipe="paper"))


def authors_entries(prefix: str = "") -> dict[str, Tensor]:
    torch.manual_seed(5)
    entries: dict[str, Tensor] = {}
    for name, rows, columns in (("query", 1, 4), ("key", 1, 4), ("value", 4, 4)):
        owner = f"{prefix}res_branch.{name}_conv"
        entries |= {
            f"{owner}.weight_orig": torch.randn(rows, columns, 1, 1),
            f"{owner}.weight_u": torch.randn(rows),
            f"{owner}.weight_v": torch.randn(columns),
            f"{owner}.weight_sigma": torch.ones(1),
            f"{owner}.bias": torch.randn(rows),
        }
    return entries | {f"{prefix}res_branch.gamma": torch.ones(1)}


@pytest.mark.parametrize(("prefix", "layout"), [("", "image"), ("net.0.", "tokens")])
def test_the_authors_entries_load_by_name(prefix: str, layout: str) -> None:
    theirs = authors_entries(prefix)
    converted = convert_authors_state_dict(theirs)
    assert sorted(converted) == sorted(
        [
            f"{owner}.{entry}"
            for owner in ("score.query", "score.key", "value")
            for entry in ("weight", "left", "right", "bias")
        ]
        + ["output.gamma"]
    )
    block = invertible_attention(4, kind="embedded_gaussian", recipe=Released(scalar_gate=True), layout=layout)
    holder = block if not prefix else torch.nn.ModuleDict({"net": torch.nn.ModuleList([block])})
    holder.load_state_dict(theirs)
    expected = theirs[f"{prefix}res_branch.value_conv.weight_orig"][:, :, 0, 0]
    assert torch.equal(relaxed(block).state_dict()["value.weight"], expected)
    own = block.state_dict()
    block.load_state_dict(own)  # its own entries load as before


@pytest.mark.parametrize("name", ["conv.weight", "res_branch.other_conv.weight_orig", "res_branch.key_conv.momentum"])
def test_an_entry_of_something_else_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not an entry of the authors' attention layer"):
        convert_authors_state_dict({name: torch.zeros(1)})
