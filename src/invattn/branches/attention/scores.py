"""The four classical scores, as maps from tokens to two factors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from typing import Protocol

import torch
from torch import Tensor, nn

from invattn._errors import check_name
from invattn._kinds import KINDS
from invattn.branches.attention.masks import split_heads
from invattn.functional import spectral_norm, squash
from invattn.lipschitz import ConstrainedLinear

_PERTURBATION = 0.1


class LinearFactory(Protocol):
    """Makes the linear maps of a score, constrained or not."""

    def __call__(self, in_features: int, out_features: int, *, bias: bool) -> nn.Linear:
        """Return a linear map."""


def plain_linear(in_features: int, out_features: int, *, bias: bool) -> nn.Linear:
    """Make an unconstrained linear map."""
    return nn.Linear(in_features, out_features, bias=bias)


class Score(nn.Module, ABC):
    """A score s_ij of two tokens, given by one factor a token and a role.

    A new kind of attention is a file with a subclass, which needs ``forward``, ``bounded`` and ``paths``, and a line of
    ``invattn._kinds.KINDS``.

    Args:
        channels: C of the tokens.
        key_channels: Channels of a query and of a key, per head.
        num_heads: H, a divisor of C.
        linear: Makes the linear maps inside: plain ones where a proof takes their norms, constrained ones elsewhere.

    Attributes:
        additive: s_ij is the sum of two scalars, not a product of two vectors.
        kind: The attention kind it was made for.
    """

    additive: bool = False
    kind: str = "unnamed"

    @abstractmethod
    def __init__(self, *, channels: int, key_channels: int, num_heads: int, linear: LinearFactory) -> None:
        super().__init__()
        self.num_heads = num_heads

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the query and key factors, each (B, H, N, d), of tokens with shape (B, N, C)."""

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = super().__call__(x)
        return result

    @abstractmethod
    def bounded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return factors whose score has bounded sensitivity: squashed where the score is a product."""

    def sensitivity(self) -> Tensor:
        """Return, per head, the largest |ds_ij| over unit changes of the tokens at the bounded factors.

        Half the range over j is taken for additive scores, whose query part is common to a row.
        Shape (H,), float64, differentiable, an upper bound.
        """
        query, key = self.paths()
        return torch.maximum(key, (query + key) / 2) if self.additive else torch.maximum(query, key)

    @abstractmethod
    def paths(self) -> tuple[Tensor, Tensor]:
        """Return, per head, bounds of |ds_ij| where only the query's token moves, and only the key's, by at most 1.

        Shape (H,) each, float64, differentiable.
        """

    def start_as_similarity(self) -> None:
        """Set the weights so that s_ij is large where x_i and x_j are alike, where the score has such weights."""


class GaussianScore(Score):
    """s_ij = x_i . x_j; head h sees its own group of channels.

    References:
        Zha et al. 2021, Table 1, "Gaussian".
    """

    _unit: Tensor

    def __init__(self, *, channels: int, key_channels: int, num_heads: int, linear: LinearFactory) -> None:
        super().__init__(channels=channels, key_channels=key_channels, num_heads=num_heads, linear=linear)
        self.register_buffer("_unit", torch.ones(num_heads), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        token = split_heads(x, self.num_heads)
        return token, token

    def bounded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        token = squash(split_heads(x, self.num_heads))
        return token, token

    def paths(self) -> tuple[Tensor, Tensor]:
        return self._unit.double(), self._unit.double()


class ProjectedScore(Score):
    """s_ij = (W_1 x_i) . (W_2 x_j): the embedded Gaussian and dot-product kinds.

    References:
        Zha et al. 2021, Table 1, "Embed." and "Dot.".
    """

    def __init__(self, *, channels: int, key_channels: int, num_heads: int, linear: LinearFactory) -> None:
        super().__init__(channels=channels, key_channels=key_channels, num_heads=num_heads, linear=linear)
        self.query = linear(channels, num_heads * key_channels, bias=True)
        self.key = linear(channels, num_heads * key_channels, bias=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return split_heads(self.query(x), self.num_heads), split_heads(self.key(x), self.num_heads)

    def bounded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        query, key = self(x)
        return squash(query), squash(key)

    def paths(self) -> tuple[Tensor, Tensor]:
        query, key = (_per_head(linear.weight, self.num_heads) for linear in (self.query, self.key))
        first, second = spectral_norm(torch.stack([query, key]))
        return first, second

    @torch.no_grad()
    def start_as_similarity(self) -> None:
        """Let queries and keys be the token itself, a little perturbed so that heads differ; biases are 0."""
        rows, channels = self.query.weight.shape
        start = torch.eye(rows // self.num_heads, channels).repeat(self.num_heads, 1)
        start = start + _PERTURBATION * torch.randn(rows, channels)
        for linear in (self.query, self.key):
            linear.weight.copy_(start)
            linear.bias.zero_()


class ConcatenationScore(Score):
    """s_ij = W_3 [W_1 x_i, W_2 x_j] = w_a . (W_1 x_i) + w_b . (W_2 x_j): two scalars a token.

    References:
        Zha et al. 2021, Table 1, "Concat.".
    """

    additive = True

    def __init__(self, *, channels: int, key_channels: int, num_heads: int, linear: LinearFactory) -> None:
        super().__init__(channels=channels, key_channels=key_channels, num_heads=num_heads, linear=linear)
        self.query = linear(channels, num_heads * key_channels, bias=True)
        self.key = linear(channels, num_heads * key_channels, bias=True)
        self.mix = nn.ModuleList(linear(2 * key_channels, 1, bias=False) for _ in range(num_heads))

    def _mix_vectors(self) -> tuple[Tensor, Tensor]:
        """Return (w_a, w_b), each (H, 1, d)."""
        rows = torch.stack([_weight(mix) for mix in self.mix])
        first, second = rows.chunk(2, dim=-1)
        return first, second

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = self._mix_vectors()
        query = split_heads(self.query(x), self.num_heads)
        key = split_heads(self.key(x), self.num_heads)
        return query @ first.mT, key @ second.mT

    def bounded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self(x)

    def paths(self) -> tuple[Tensor, Tensor]:
        first, second = self._mix_vectors()
        query = _per_head(_weight(self.query), self.num_heads).double()
        key = _per_head(_weight(self.key), self.num_heads).double()
        a = (first.double() @ query).norm(dim=(-2, -1))
        b = (second.double() @ key).norm(dim=(-2, -1))
        return a, b


def make_score(
    kind: str, *, channels: int, key_channels: int, num_heads: int, linear: LinearFactory = plain_linear
) -> Score:
    """Make the score of an attention kind.

    Args:
        kind: One of :data:`invattn.ATTENTION_KINDS`.
        channels: C.
        key_channels: Channels of a query and of a key, per head.
        num_heads: H.
        linear: Makes the linear maps inside.

    Raises:
        ValueError: If the kind is unknown or the channels cannot be divided among the heads.
    """
    check_name(kind, list(KINDS), what="attention kind")
    if channels % num_heads:
        raise ValueError(f"{channels} channels cannot be divided among {num_heads} heads. Choose a divisor of them.")
    module, name = KINDS[kind].score
    maker: type[Score] = getattr(import_module(f"invattn.branches.attention.{module}"), name)
    score = maker(channels=channels, key_channels=key_channels, num_heads=num_heads, linear=linear)
    score.kind = kind
    return score


def _weight(linear: nn.Module) -> Tensor:
    if isinstance(linear, ConstrainedLinear):
        return linear.scaled_weight()
    assert isinstance(linear, nn.Linear)
    return linear.weight


def _per_head(weight: Tensor, num_heads: int) -> Tensor:
    return weight.reshape(num_heads, -1, weight.shape[-1])
