"""Half of the channels leave the chain, normalised by what the others say of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from invattn._errors import CertificateError
from invattn.bijections.base import Bijection, LogDetReport
from invattn.bijections.closed_form import trivial_solution
from invattn.lipschitz import BiLipschitz, isometry
from invattn.norms import conversion, count_tokens
from invattn.solvers import Solution, Status


class AffinePrior(nn.Module):
    """A Gaussian of the channels that leave, given those that stay: mean and log scale from three convolutions.

    The last convolution starts at zero, the prior therefore as a standard normal. Log scales lie in [-limit, limit].

    Args:
        kept: Channels that stay.
        leaving: Channels that leave.
        hidden_channels: Width of the convolutions.
        limit: Largest absolute log scale.

    References:
        Kingma and Dhariwal 2018 (Glow), the learned prior of their split; Dinh et al. 2017, Sec. 3.6.
    """

    def __init__(self, *, kept: int, leaving: int, hidden_channels: int = 32, limit: float = 3.0) -> None:
        super().__init__()
        self.limit = limit
        last = nn.Conv2d(hidden_channels, 2 * leaving, 3, padding=1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.net = nn.Sequential(
            nn.Conv2d(kept, hidden_channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(hidden_channels, hidden_channels, 1),
            nn.SiLU(),
            last,
        )

    def forward(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log scale, each with shape (B, leaving, H, W)."""
        mean, raw = self.net(kept).chunk(2, dim=1)
        return mean, self.limit * torch.tanh(raw / self.limit)

    def __call__(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = super().__call__(kept)
        return mean, log_scale


class Split(Bijection):
    """(y, x) to ((x - mean(y)) / scale(y), rest(y)) as one vector: x leaves the chain, y goes through the rest.

    y are the first ``kept`` channels. With a standard normal base, mean and scale are a learned Gaussian prior of x
    given y.

    Args:
        shape: (C, H, W), the shape of one input.
        rest: What y goes through, from (kept, H, W) to any shape.
        kept: Channels that stay; None is half of them, rounded up.
        prior: Mean and log scale of x from y; None leaves x as it is.

    Raises:
        ValueError: If no channel would leave or stay.

    References:
        Dinh et al. 2017 (Real NVP), Sec. 3.6; Behrmann et al. 2019, Sec. 5.
    """

    def __init__(
        self, shape: Sequence[int], rest: Bijection, *, kept: int | None = None, prior: AffinePrior | None = None
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.kept = (self.shape[0] + 1) // 2 if kept is None else kept
        if len(self.shape) != 3 or not 0 < self.kept < self.shape[0]:
            raise ValueError(
                f"a split of samples (C, H, W) keeps at least one channel and fewer than all; got {self.shape} and "
                f"kept = {self.kept}."
            )
        self.rest = rest
        self.prior = prior
        self._rest_shape = rest.output_shape((self.kept, *self.shape[1:]))

    @property
    def certified(self) -> bool:
        return self.rest.certified

    @property
    def norm(self) -> str | None:
        return self.rest.norm

    def bi_lipschitz(self, shape: Sequence[int], *, norm: str | None = None) -> BiLipschitz:
        """Return the constants in |.|_2, those of the rest beside an identity, and what changing to that norm costs.

        Raises:
            CertificateError: If there is a learned prior: scale(y) x has no bounded slope in y.
        """
        if self.prior is not None:
            raise CertificateError("a learned prior stretches without bound: its scale multiplies unbounded inputs.")
        rest = self.rest.bi_lipschitz((self.kept, *self.shape[1:]), norm="2")
        upper = max(1.0, rest.upper * conversion(rest.norm_out, "2", tokens=count_tokens(self._rest_shape)))
        lower = min(1.0, rest.lower / conversion("2", rest.norm_out, tokens=count_tokens(self._rest_shape)))
        own = BiLipschitz(lower, upper, "2", "2", (f"split: [{lower:.6g}, {upper:.6g}]",))
        return isometry("2" if norm is None else norm).then(own, tokens=count_tokens(self.shape))

    def output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return (math.prod(self.shape),)

    def input_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return self.shape

    def around(self, wrap: Callable[[Bijection], Bijection]) -> Split:
        """Return a view of this split around another rest."""
        view = copy.copy(self)
        view._modules = {**self._modules, "rest": wrap(self.rest)}
        return view

    def forward(self, x: Tensor) -> Tensor:
        kept, leaving = self._separate(x)
        return self._join(self._normalise(kept, leaving)[0], self.rest(kept))

    def inverse(self, z: Tensor) -> Tensor:
        leaving, kept = self._part(z)
        return self._restore(self.rest.inverse(kept), leaving)[0]

    def solve(self, z: Tensor, *, start: Tensor | None = None) -> Solution:
        """Invert the rest, then the prior at the recovered y; an error bound exists without a prior only."""
        leaving, kept = self._part(z.detach())
        solution = self.rest.solve(kept)
        with torch.no_grad():
            x, _ = self._restore(solution.value, leaving)
        exact = trivial_solution(x)
        status = torch.where(solution.status != int(Status.CONVERGED), solution.status, exact.status)
        merged = replace(solution, value=x, converged=solution.converged & exact.converged, status=status)
        return merged if self.prior is None else replace(merged, error_bound=None)

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, leaving = self._separate(x)
        normal, own = self._normalise(kept, leaving)
        after, log_det = self.rest.forward_and_log_det(kept)
        return self._join(normal, after), own + log_det

    def forward_and_log_det_report(self, x: Tensor) -> tuple[Tensor, LogDetReport]:
        kept, leaving = self._separate(x)
        normal, own = self._normalise(kept, leaving)
        after, report = self.rest.forward_and_log_det_report(kept)
        return self._join(normal, after), replace(report, value=own + report.value)

    def inverse_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        leaving, kept = self._part(z)
        before, log_det = self.rest.inverse_and_log_det(kept)
        x, own = self._restore(before, leaving)
        return x, log_det - own

    def _separate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the channels that stay and those that leave."""
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"samples must have shape {self.shape}; got {tuple(x.shape[1:])}.")
        return x[:, : self.kept], x[:, self.kept :]

    def _normalise(self, kept: Tensor, leaving: Tensor) -> tuple[Tensor, Tensor]:
        """Return the leaving channels less their mean, over their scale, and the log-determinant of that."""
        if self.prior is None:
            return leaving, leaving.new_zeros(leaving.shape[0])
        mean, log_scale = self.prior(kept)
        return (leaving - mean) * (-log_scale).exp(), -log_scale.flatten(1).sum(dim=1)

    def _restore(self, kept: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Return both halves as they came in, and the log-determinant that ``_normalise`` has there."""
        if self.prior is None:
            return torch.cat([kept, normal], dim=1), kept.new_zeros(kept.shape[0])
        mean, log_scale = self.prior(kept)
        return torch.cat([kept, normal * log_scale.exp() + mean], dim=1), -log_scale.flatten(1).sum(dim=1)

    def _join(self, leaving: Tensor, after: Tensor) -> Tensor:
        return torch.cat([leaving.flatten(1), after.flatten(1)], dim=1)

    def _part(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if tuple(z.shape[1:]) != self.output_shape(()):
            raise ValueError(f"samples must have shape {self.output_shape(())}; got {tuple(z.shape[1:])}.")
        size = (self.shape[0] - self.kept) * self.shape[1] * self.shape[2]
        leaving = z[:, :size].reshape(-1, self.shape[0] - self.kept, *self.shape[1:])
        return leaving, z[:, size:].reshape(-1, *self._rest_shape)

    def extra_repr(self) -> str:
        return f"shape={self.shape}, kept={self.kept}"
