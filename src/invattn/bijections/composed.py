"""Bijections made of others: chains, inverses, maps of tokens on images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import reduce
from typing import cast

import torch
from torch import Tensor, nn

from invattn._errors import CertificateError
from invattn.bijections.base import Bijection, Block, LogDetReport, as_block, exact_report
from invattn.bijections.closed_form import trivial_solution
from invattn.branches import Branch
from invattn.lipschitz import BiLipschitz, isometry
from invattn.norms import conversion, count_tokens
from invattn.solvers import Solution, Status


class Composed(Bijection):
    """f = f_K o ... o f_1.

    Args:
        bijections: f_1, ..., f_K, the first one applied first.
    """

    def __init__(self, bijections: Iterable[Bijection]) -> None:
        super().__init__()
        self.bijections = nn.ModuleList(bijections)

    def _parts(self) -> list[Bijection]:
        return [cast(Bijection, part) for part in self.bijections]

    def parts(self) -> tuple[Bijection, ...]:
        """Return the parts, those of a chain inside in its place."""
        return tuple(inner for part in self._parts() for inner in part.parts())

    @property
    def certified(self) -> bool:
        return all(part.certified for part in self._parts())

    @property
    def norm(self) -> str | None:
        return next((part.norm for part in self._parts() if part.norm is not None), None)

    def bi_lipschitz(self, shape: Sequence[int], *, norm: str | None = None) -> BiLipschitz:
        """Multiply the constants of the parts, and charge each change of norm between them."""
        total = isometry(norm or self.norm or "inf,2")
        for position, part in enumerate(self._parts()):
            try:
                following = part.bi_lipschitz(shape, norm=part.norm or total.norm_out)
            except CertificateError as error:
                raise CertificateError(f"part {position} of the chain: {error}") from None
            total = total.then(following, tokens=count_tokens(shape))
            shape = part.output_shape(shape)
        return total

    def output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return reduce(lambda current, part: part.output_shape(current), self._parts(), tuple(shape))

    def input_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return reduce(lambda current, part: part.input_shape(current), reversed(self._parts()), tuple(shape))

    def forward(self, x: Tensor) -> Tensor:
        for part in self._parts():
            x = part(x)
        return x

    def inverse(self, z: Tensor) -> Tensor:
        for part in reversed(self._parts()):
            z = part.inverse(z)
        return z

    def solve(self, z: Tensor, *, start: Tensor | None = None) -> Solution:
        """Invert part by part.

        The residual is the largest of the parts', steps and evaluations are summed, and a sample's status is that of
        the first part (in the order of the inverse) in which it failed. The error bound carries each part's through
        the rest, e <- e_part + Lip(f_part^{-1}) e, where a change of norm between parts is charged; it is stated in
        the norm of the first part that has one.
        """
        merged, norm = trivial_solution(z), self.norm or "inf,2"
        for part in reversed(self._parts()):
            tokens = count_tokens(merged.value.shape[1:])
            after = part.solve(merged.value)
            constant = None
            if merged.error_bound is not None and after.error_bound is not None and part.certified:
                constants = part.bi_lipschitz(tuple(after.value.shape[1:]), norm=part.norm or norm)
                stretch = 1 / constants.lower if constants.lower > 0 else math.inf
                constant = conversion(norm, constants.norm_out, tokens=tokens) * stretch
                norm = constants.norm_in
            merged = _merge(merged, after, constant)
        return merged

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.shape[0])
        for part in self._parts():
            x, log_det = part.forward_and_log_det(x)
            total = total + log_det
        return x, total

    def forward_and_log_det_report(self, x: Tensor) -> tuple[Tensor, LogDetReport]:
        total = exact_report(x.new_zeros(x.shape[0]))
        for part in self._parts():
            x, report = part.forward_and_log_det_report(x)
            total = total.plus(report)
        return x, total

    def inverse_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(z.shape[0])
        for part in reversed(self._parts()):
            z, log_det = part.inverse_and_log_det(z)
            total = total + log_det
        return z, total


def _merge(before: Solution, after: Solution, constant: float | None) -> Solution:
    bound = None
    if before.error_bound is not None and after.error_bound is not None and constant is not None:
        bound = after.error_bound + constant * before.error_bound
    steps = before.num_steps + after.num_steps
    return Solution(
        value=after.value,
        converged=before.converged & after.converged,
        residual=torch.maximum(before.residual, after.residual),
        num_steps=steps,
        error_bound=bound,
        status=torch.where(before.status != int(Status.CONVERGED), before.status, after.status),
        further_evaluations=before.evaluations + after.evaluations - steps - 1,
    )


class Inverse(Bijection):
    """f^{-1} as a map: forward solves, inverse evaluates.

    Args:
        bijection: f.
    """

    def __init__(self, bijection: Bijection) -> None:
        super().__init__()
        self.bijection = bijection

    @property
    def certified(self) -> bool:
        return self.bijection.certified

    def bi_lipschitz(self, shape: Sequence[int], *, norm: str | None = None) -> BiLipschitz:
        constants = self.bijection.bi_lipschitz(self.bijection.input_shape(shape)).inverse()
        return isometry(norm or constants.norm_in).then(constants, tokens=count_tokens(shape))

    def output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return self.bijection.input_shape(shape)

    def input_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return self.bijection.output_shape(shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.bijection.inverse(x)

    def inverse(self, z: Tensor) -> Tensor:
        return self.bijection(z)

    def solve(self, z: Tensor, *, start: Tensor | None = None) -> Solution:
        """Evaluate f: no step, residual 0; no error bound, as the rounding of an evaluation is not bounded here."""
        return replace(trivial_solution(self.bijection(z)), error_bound=None)

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.bijection.inverse_and_log_det(x)

    def inverse_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.bijection.forward_and_log_det(z)

    def forward_and_log_det_report(self, x: Tensor) -> tuple[Tensor, LogDetReport]:
        """Return f^{-1}(x) and the report of f there, with the other sign."""
        z = self.bijection.inverse(x)
        _, report = self.bijection.forward_and_log_det_report(z)
        return z, replace(report, value=-report.value)


class ImageLayout(Block):
    """Apply a bijection of tokens (B, H W, C) to images (B, C, H, W), pixels in row-major order.

    Args:
        tokens: The bijection of tokens.
    """

    def __init__(self, tokens: Bijection) -> None:
        super().__init__()
        self.tokens = tokens

    @property
    def branch(self) -> Branch:
        return as_block(self.tokens).branch

    def to_branch(self, x: Tensor) -> Tensor:
        return _to_tokens(x)

    def from_branch(self, value: Tensor, like: Tensor) -> Tensor:
        return _from_tokens(value, like)

    @property
    def certified(self) -> bool:
        return self.tokens.certified

    @property
    def norm(self) -> str | None:
        return self.tokens.norm

    def bi_lipschitz(self, shape: Sequence[int], *, norm: str | None = None) -> BiLipschitz:
        channels, height, width = shape
        return self.tokens.bi_lipschitz((height * width, channels), norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        return _from_tokens(self.tokens(_to_tokens(x)), x)

    def solve(self, z: Tensor, *, start: Tensor | None = None) -> Solution:
        guess = None if start is None else _to_tokens(start)
        solution = self.tokens.solve(_to_tokens(z), start=guess)
        return solution.with_value(_from_tokens(solution.value, z))

    def inverse(self, z: Tensor) -> Tensor:
        return _from_tokens(self.tokens.inverse(_to_tokens(z)), z)

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = self.tokens.forward_and_log_det(_to_tokens(x))
        return _from_tokens(z, x), log_det

    def forward_and_log_det_report(self, x: Tensor) -> tuple[Tensor, LogDetReport]:
        z, report = self.tokens.forward_and_log_det_report(_to_tokens(x))
        return _from_tokens(z, x), report

    def inverse_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = self.tokens.inverse_and_log_det(_to_tokens(z))
        return _from_tokens(x, z), log_det


def _to_tokens(image: Tensor) -> Tensor:
    """Turn (B, C, H, W) into (B, H W, C).

    Raises:
        ValueError: If the tensor has another rank.
    """
    if image.dim() != 4:
        raise ValueError(
            f"images must have shape (B, C, H, W); got {tuple(image.shape)}. For tokens (B, N, C) use layout='tokens'."
        )
    return image.flatten(2).transpose(1, 2)


def _from_tokens(tokens: Tensor, like: Tensor) -> Tensor:
    """Turn (B, H W, C) into the shape of an image (B, C, H, W)."""
    return tokens.transpose(1, 2).reshape(like.shape)
