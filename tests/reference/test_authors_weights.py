"""The authors' saved weights load into the recipe `released` and compute what their code computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from invattn import ATTENTION_KINDS, invertible_attention
from invattn.bijections import Bijection, Composed, Squeeze
from invattn.recipes import Released

CHANNELS, KEY_CHANNELS = 12, 3
PREFIXES = ["res_branch.", "attention_layer.res_branch.", "module.attention_layer.res_branch."]
GATES = {"gaussian": True, "embedded_gaussian": False, "dot_product": False, "concatenation": False}


def saved(kind: str, prefix: str, *, seed: int = 0, scalar_gate: bool | None = None) -> dict[str, Tensor]:
    """A state_dict as the released code saves it: float32, 1 x 1 convolutions, singular vectors, logged norms."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def convolution(name: str, inputs: int, outputs: int, *, bias: bool = True) -> None:
        weight = torch.randn(outputs, inputs, generator=generator) * torch.rand((), generator=generator)
        left = F.normalize(torch.randn(outputs, generator=generator), dim=0)
        for _ in range(4):
            right = F.normalize(weight.T @ left, dim=0)
            left = F.normalize(weight @ right, dim=0)
        owner = f"{prefix}{name}"
        if bias:
            state[f"{owner}.bias"] = torch.randn(outputs, generator=generator)
        state[f"{owner}.weight_orig"] = weight[:, :, None, None]
        state[f"{owner}.weight_u"] = left
        state[f"{owner}.weight_v"] = right
        state[f"{owner}.weight_sigma"] = torch.ones(1)

    if kind != "gaussian":
        convolution("query_conv", CHANNELS, KEY_CHANNELS)
        convolution("key_conv", CHANNELS, KEY_CHANNELS)
    if kind == "concatenation":
        convolution("concat_conv", 2 * KEY_CHANNELS, 1, bias=False)
    convolution("value_conv", CHANNELS, CHANNELS)
    if GATES[kind] if scalar_gate is None else scalar_gate:
        state[f"{prefix}gamma"] = torch.tensor([0.7])
    else:
        convolution("gamma", CHANNELS, CHANNELS)
    return state


def released_branch(state: dict[str, Tensor], prefix: str, kind: str, x: Tensor) -> Tensor:
    """The released formula in evaluation mode, from those tensors: images (B, C, H, W) to the residual branch."""

    def convolve(name: str, image: Tensor, coefficient: float = 0.9) -> Tensor:
        weight, u, v = (state[f"{prefix}{name}.weight_{part}"].double() for part in ("orig", "u", "v"))
        sigma = u @ weight[:, :, 0, 0] @ v
        bias = state.get(f"{prefix}{name}.bias")
        scaled = weight / max(1.0, float(sigma) / coefficient)
        return F.conv2d(image, scaled, None if bias is None else bias.double())

    batch, channels, height, width = x.shape
    positions = height * width
    query = key = x.reshape(batch, channels, positions)
    if kind != "gaussian":
        query = convolve("query_conv", x).reshape(batch, -1, positions)
        key = convolve("key_conv", x).reshape(batch, -1, positions)
    if kind == "concatenation":
        left = query[:, :, :, None].expand(-1, -1, -1, positions)
        right = key[:, :, None, :].expand(-1, -1, positions, -1)
        scores = convolve("concat_conv", torch.cat([left, right], dim=1))[:, 0]
    else:
        scores = torch.einsum("bci,bcj->bij", query, key)
    energy = scores.exp() if kind in ("gaussian", "embedded_gaussian") else F.elu(scores)
    energy = energy / (1.5 * energy.sum(dim=1, keepdim=True))  # over the first of its two axes
    value = convolve("value_conv", x, 0.5 if kind == "dot_product" else 0.9).reshape(batch, channels, positions)
    out = torch.einsum("bci,bij->bcj", value, energy).reshape(x.shape)
    if f"{prefix}gamma" in state:
        return torch.tanh(state[f"{prefix}gamma"].double()) * out
    return convolve("gamma", out)


def released_block(kind: str, *, layout: str = "image", scalar_gate: bool | None = None) -> Bijection:
    recipe = Released(scalar_gate=scalar_gate)
    return invertible_attention(CHANNELS, kind=kind, recipe=recipe, layout=layout).double().eval()


def image(seed: int) -> Tensor:
    return torch.rand(2, CHANNELS, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) - 0.5


def assert_same(result: Tensor, expected: Tensor) -> None:
    """1e-12 of the size of the result: ELU sums may be small, and then the result is large."""
    assert float((result.detach() - expected).abs().max()) <= 1e-12 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_the_authors_weights_compute_the_released_formula(kind: str, prefix: str) -> None:
    state = saved(kind, prefix)
    names = list(state)
    block = released_block(kind)
    assert not block.load_state_dict(state, strict=True).missing_keys
    assert list(state) == names  # the caller's dict is left alone
    x = image(1)
    expected = released_branch(state, prefix, kind, x)
    assert float(expected.abs().max()) > 1e-2
    assert_same(block(x) - x, expected)


@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_token_layout_and_the_other_gate(kind: str) -> None:
    scalar = not GATES[kind]
    state = saved(kind, PREFIXES[0], seed=3, scalar_gate=scalar)
    block = released_block(kind, layout="tokens", scalar_gate=scalar)
    block.load_state_dict(state, strict=True)
    x = image(2)
    expected = released_branch(state, PREFIXES[0], kind, x)
    assert_same(block.branch(x.flatten(2).transpose(1, 2)), expected.flatten(2).transpose(1, 2))


def test_inside_a_model_the_prefix_of_the_part_is_kept() -> None:
    state = saved("dot_product", "")
    model = Composed([Squeeze(2), released_block("dot_product")]).double().eval()
    model.load_state_dict({f"bijections.1.res_branch.{name}": tensor for name, tensor in state.items()}, strict=True)
    x = torch.rand(2, 3, 6, 6, dtype=torch.float64) - 0.5
    squeezed = Squeeze(2)(x)
    assert_same(model(x) - squeezed, released_branch(state, "", "dot_product", squeezed))


@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_our_own_state_dict_still_loads(kind: str) -> None:
    first, second = released_block(kind), released_block(kind)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.normal_(std=0.3)
    second.load_state_dict(first.state_dict(), strict=True)
    x = image(4)
    assert torch.equal(first(x), second(x))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("attention_layer.res_branch.querry_conv.weight_orig", "querry_conv"),
        ("attention_layer.res_branch.query_conv.weight", "query_conv.weight"),
        ("attention_layer.res_branch.query_conv.weight_bar", "weight_bar"),
        ("attention_layer.res_branch.gamma.scale", "gamma.scale"),
    ],
)
def test_an_entry_of_another_name_is_refused_in_one_line(wrong: str, message: str) -> None:
    state = saved("dot_product", PREFIXES[1]) | {wrong: torch.zeros(1)}
    with pytest.raises(ValueError, match=message) as caught:
        released_block("dot_product").load_state_dict(state, strict=True)
    assert "authors" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_foreign_entry_beside_them_is_refused() -> None:
    state = saved("dot_product", PREFIXES[1]) | {"attention_layer.other.weight": torch.zeros(1)}
    with pytest.raises(RuntimeError, match=r"Unexpected key.*attention_layer\.other\.weight"):
        released_block("dot_product").load_state_dict(state, strict=True)


def test_a_missing_entry_is_refused() -> None:
    state = saved("concatenation", PREFIXES[0])
    del state["res_branch.concat_conv.weight_orig"]
    with pytest.raises(RuntimeError, match=r"Missing key.*score\.mix\.0\.weight"):
        released_block("concatenation").load_state_dict(state, strict=True)


def test_weights_of_another_kind_are_refused() -> None:
    with pytest.raises(RuntimeError, match=r"Missing key.*score\.query"):
        released_block("dot_product").load_state_dict(saved("gaussian", PREFIXES[0]), strict=True)


def test_only_the_released_recipes_translate() -> None:
    block = invertible_attention(CHANNELS, kind="dot_product", recipe="paper")
    with pytest.raises(RuntimeError, match="Unexpected key"):
        block.load_state_dict(saved("dot_product", PREFIXES[0]), strict=True)
