"""Load the weights of the authors' released code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

_MAPS = {
    "query_conv": "score.query",
    "key_conv": "score.key",
    "concat_conv": "score.mix.0",
    "value_conv": "value",
    "gamma": "output",
}
_TENSORS = {"weight_orig": "weight", "weight_u": "left", "weight_v": "right", "bias": "bias"}
_MARK = "res_branch."


def convert_authors_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the authors' entries to those of a branch of the recipe ``released``.

    Args:
        state_dict: What the released code saves for one attention layer, with any prefix before ``res_branch.``.

    Returns:
        Entries of :class:`invattn.branches.RelaxedAttention`; 1 x 1 convolution weights (o, i, 1, 1) become (o, i);
        the logged norms are left out.

    Raises:
        ValueError: If an entry is not one of the released code's.

    References:
        github.com/Schwartz-Zha/InvertibleAttention (names only).
    """
    converted: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        _, found, rest = name.rpartition(_MARK)
        owner, _, entry = rest.partition(".")
        if not found or owner not in _MAPS:
            raise ValueError(
                f"{name!r} is not an entry of the authors' attention layer; expected ...{_MARK}query_conv etc."
            )
        if entry == "weight_sigma":
            continue
        if owner == "gamma" and not entry:
            converted["output.gamma"] = tensor
        elif entry in _TENSORS:
            converted[f"{_MAPS[owner]}.{_TENSORS[entry]}"] = tensor.flatten(1) if tensor.dim() == 4 else tensor
        else:
            raise ValueError(f"{name!r} is not an entry of the authors' attention layer.")
    return converted


def translate_on_load(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    """Translate the authors' entries in place before a block of the recipe ``released`` loads them."""
    theirs = {name: state_dict[name] for name in list(state_dict) if name.startswith(prefix) and _MARK in name}
    if not theirs:
        return
    inside = "tokens.g." if hasattr(module, "tokens") else "g."
    for name in theirs:
        del state_dict[name]
    for name, tensor in convert_authors_state_dict(theirs).items():
        state_dict[f"{prefix}{inside}{name}"] = tensor
