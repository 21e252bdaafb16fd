"""The paper's practical form, the released forms with the authors' weights, and plain attention: none has a proof."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from invattn._kinds import KINDS
from invattn.branches import Branch, RelaxedAttention, RelaxedPointwise, TanhGate, Visibility
from invattn.branches.attention.scores import LinearFactory, plain_linear
from invattn.functional import Response, get_kernel
from invattn.lipschitz import ConstrainedLinear
from invattn.recipes.base import BlockShape, Recipe


@dataclass(frozen=True)
class Paper(Recipe):
    """Sec. 2.4 as printed: columns sum to 1, Lip(F) = Lip(W_L) = c by power iteration, the response left alone.

    The fields are the paper's remedies for a block that does not invert (App. C); its first remedy, a smaller
    learning rate, belongs to the optimiser, and the third, a smaller c with more iterations, to ``lipschitz`` and
    ``solver`` of :func:`invattn.invertible_attention`.

    Attributes:
        phi: Kernel of the dot-product and concatenation kinds: elu+1, softplus or relu (remedy 2: one with a
            continuous derivative). The Gaussian kinds always use exp.
        column_sum: What the normalised responses sum to (remedy 4: smaller).
        normalize: column, row or total (remedy 6: total, all elements of the map sum to 1).
        constrain_response: Hold the maps inside the response to c as well (remedy 5).
        enforce: "forward" scales at every use, "after_step" after each optimiser step (App. B; see
            :func:`constrain_after_step`).
        power_iterations: Steps of power iteration in a training forward.

    References:
        Zha et al. 2021, Sec. 2.4, Table 1, Eq. 4, App. B, App. C.
    """

    name: ClassVar[str] = "paper"

    phi: str = "elu+1"
    column_sum: float = 1.0
    normalize: str = "column"
    constrain_response: bool = False
    enforce: str = "forward"
    power_iterations: int = 5

    def build(self, shape: BlockShape) -> Branch:
        constrained = _constrained(shape.lipschitz, self.enforce, self.power_iterations)
        return _build(
            shape,
            phi=_kernel(shape, self.phi),
            normalize=self.normalize,
            weight_sum=self.column_sum,
            response_linear=constrained if self.constrain_response else plain_linear,
            value=constrained(shape.channels, shape.channels, bias=True),
            output=constrained(shape.channels, shape.channels, bias=True),
        )


@dataclass(frozen=True)
class Released(Recipe):
    """The authors' released reconstruction code: what Table 2 was measured with.

    It differs from the paper (query and key exchanged and rows normalised, the factor 1/1.5, ELU which changes sign,
    constrained query, key and concatenation maps, coefficient 0.5 for the values of the dot product, a scalar gate
    tanh(gamma) for the Gaussian kind). The authors' ``state_dict`` loads into a block of this recipe.

    Attributes:
        phi: Kernel of the dot-product and concatenation kinds.
        column_sum: What the normalised responses sum to.
        normalize: row or total.
        constrain_response: Hold the maps inside the response to c as well.
        enforce: As in :class:`Paper`.
        power_iterations: Steps of power iteration in a training forward.
        scalar_gate: A gate tanh(gamma) instead of W_L; None: for the Gaussian kind only.

    References:
        github.com/Schwartz-Zha/InvertibleAttention (read, not copied).
    """

    name: ClassVar[str] = "released"

    phi: str = "elu"
    column_sum: float = 1 / 1.5
    normalize: str = "row"
    constrain_response: bool = True
    enforce: str = "forward"
    power_iterations: int = 5
    scalar_gate: bool | None = None

    def build(self, shape: BlockShape) -> Branch:
        constrained = _constrained(shape.lipschitz, self.enforce, self.power_iterations)
        # 0.5 where all others have 0.9: kept in that proportion for other coefficients.
        coefficient = shape.lipschitz * 5 / 9 if shape.kind == "dot_product" else shape.lipschitz
        value = _constrained(coefficient, self.enforce, self.power_iterations)
        gate = shape.kind == "gaussian" if self.scalar_gate is None else self.scalar_gate
        return _build(
            shape,
            phi=_kernel(shape, self.phi),
            normalize=self.normalize,
            weight_sum=self.column_sum,
            response_linear=constrained if self.constrain_response else plain_linear,
            value=value(shape.channels, shape.channels, bias=True),
            output=TanhGate() if gate else constrained(shape.channels, shape.channels, bias=True),
            exchange=True,
        )


@dataclass(frozen=True)
class ReleasedGenerative(Recipe):
    """The authors' released generative code: as :class:`Released`, but the whole map sums to 1/1.5.

    Query, key and concatenation maps are unconstrained there, the values of every kind have the same coefficient, and
    every kind ends in a constrained convolution. With N tokens each output is about 1/N of a mean of values, so that
    the block is nearly the identity.

    Attributes:
        phi: Kernel of the dot-product and concatenation kinds.
        column_sum: What all entries of the map sum to.
        power_iterations: Steps of power iteration in a training forward.

    References:
        github.com/Schwartz-Zha/InvertibleAttention-iResNet (facts only).
    """

    name: ClassVar[str] = "released_generative"

    phi: str = "elu"
    column_sum: float = 1 / 1.5
    power_iterations: int = 5

    def build(self, shape: BlockShape) -> Branch:
        constrained = _constrained(shape.lipschitz, "forward", self.power_iterations)
        return _build(
            shape,
            phi=_kernel(shape, self.phi),
            normalize="total",
            weight_sum=self.column_sum,
            response_linear=plain_linear,
            value=constrained(shape.channels, shape.channels, bias=True),
            output=constrained(shape.channels, shape.channels, bias=True),
            exchange=True,
        )


@dataclass(frozen=True)
class Unconstrained(Recipe):
    """The non-invertible attention of Table 1 and Fig. 1: no kernel on dot and concatenation, no W_L.

    References:
        Zha et al. 2021, Table 1 (upper half), Fig. 1; Wang et al. 2018 (non-local networks).
    """

    name: ClassVar[str] = "unconstrained"

    def build(self, shape: BlockShape) -> Branch:
        exponential = _kernel(shape, "identity") == "exp"
        return _build(
            shape,
            phi=_kernel(shape, "identity"),
            normalize="row" if exponential else "count",
            weight_sum=1.0,
            response_linear=plain_linear,
            value=nn.Linear(shape.channels, shape.channels),
            output=nn.Identity(),
        )


def constrain_after_step(optimizer: Optimizer, module: nn.Module) -> RemovableHandle:
    """Project every constrained map of a module after each step of an optimiser.

    The paper (App. B) regrets that nothing runs after the weight update; torch has had such a hook since 2.0.

    Args:
        optimizer: The optimiser of the module's parameters.
        module: A module built with ``enforce="after_step"``.

    Returns:
        A handle that removes the hook.

    Raises:
        ValueError: If the module holds no map with ``enforce="after_step"``.
    """
    maps = [part for part in module.modules() if isinstance(part, ConstrainedLinear) and part.enforce == "after_step"]
    if not maps:
        raise ValueError("nothing to constrain: build the block with a recipe that has enforce='after_step'.")

    def project(*_: object) -> None:
        for part in maps:
            part.project()

    return optimizer.register_step_post_hook(project)


_AUTHORS_MAPS = {
    "query_conv": "score.query",
    "key_conv": "score.key",
    "concat_conv": "score.mix.0",
    "value_conv": "value",
    "gamma": "output",
}
_AUTHORS_TENSORS = {"weight_orig": "weight", "weight_u": "left", "weight_v": "right", "bias": "bias"}
_AUTHORS_MARK = "res_branch."


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
        _, found, rest = name.rpartition(_AUTHORS_MARK)
        owner, _, entry = rest.partition(".")
        if not found or owner not in _AUTHORS_MAPS:
            raise ValueError(
                f"{name!r} is not an entry of the authors' attention layer; expected ...{_AUTHORS_MARK}query_conv etc."
            )
        if entry == "weight_sigma":
            continue
        if owner == "gamma" and not entry:
            converted["output.gamma"] = tensor
        elif entry in _AUTHORS_TENSORS:
            converted[f"{_AUTHORS_MAPS[owner]}.{_AUTHORS_TENSORS[entry]}"] = (
                tensor.flatten(1) if tensor.dim() == 4 else tensor
            )
        else:
            raise ValueError(f"{name!r} is not an entry of the authors' attention layer.")
    return converted


def translate_on_load(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    """Translate the authors' entries in place before a block of the recipe ``released`` loads them."""
    theirs = {name: state_dict[name] for name in list(state_dict) if name.startswith(prefix) and _AUTHORS_MARK in name}
    if not theirs:
        return
    inside = "tokens.g." if hasattr(module, "tokens") else "g."
    for name in theirs:
        del state_dict[name]
    for name, tensor in convert_authors_state_dict(theirs).items():
        state_dict[f"{prefix}{inside}{name}"] = tensor


def _kernel(shape: BlockShape, phi: str) -> str:
    """Return the kernel of a kind whose recipe has phi for all but the Gaussian ones."""
    kind = KINDS.get(shape.kind)
    return "exp" if kind is not None and kind.kernel == "exp" else phi


def _constrained(coefficient: float, enforce: str, power_iterations: int) -> LinearFactory:
    return partial(ConstrainedLinear, coefficient=coefficient, enforce=enforce, power_iterations=power_iterations)


def _build(
    shape: BlockShape,
    *,
    phi: str,
    normalize: str,
    weight_sum: float,
    response_linear: LinearFactory,
    value: nn.Module,
    output: nn.Module,
    exchange: bool = False,
) -> Branch:
    if shape.kind == "pointwise":
        return RelaxedPointwise(channels=shape.channels, value=value, output=output)
    score = shape.make_score(response_linear)
    return RelaxedAttention(
        score=score,
        channels=shape.channels,
        response=Response(
            get_kernel(phi),
            normalize=normalize,
            additive=score.additive,
            weight_sum=weight_sum,
            backend=shape.backend,
        ),
        value=value,
        output=output,
        num_heads=shape.num_heads,
        exchange=exchange,
        visibility=Visibility(mask=shape.mask, causal=shape.causal),
    )
