"""Tiles of a softmax response with derivatives written out: value, first and second order.

Everything comes from one function of two factors and two values,

    Phi(x, y, a, b) = sum_ij p_ij a_i . b_j,    p_i = softmax_j(log phi(s_ij)),    s_ij = x_i . y_j or x_i + y_j.

With x the queries, y the keys and b the values, d Phi / da is row-normalised attention; with x the keys, a the values
and y the queries, d Phi / db is column-normalised attention. A tile holds some rows i, and all j. The cotangent of an
output takes the place of the value that is missing, so gradients are the other partial derivatives of Phi, and products
of second order are the partial derivatives of its derivative along a direction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invattn.functional.dense import with_triangle
from invattn.functional.kernels import Kernel
from invattn.functional.stream import Tile, stream

_ROWS = ("x", "a", "mask", "row")  # what a tile holds a part of; the other tensors are seen whole


@dataclass(frozen=True)
class Form:
    """What p depends on besides its factors.

    Attributes:
        kernel: phi, positive.
        additive: Scores are sums, not products.
    """

    kernel: Kernel
    additive: bool

    def scores(self, x: Tensor, y: Tensor) -> Tensor:
        """Return s_ij."""
        return x + y.mT if self.additive else x @ y.mT

    def moved(self, x: Tensor, y: Tensor, along: Mapping[str, Tensor]) -> Tensor | None:
        """Return the derivative of s_ij along a direction of x and y; None for zero."""
        dx, dy = along.get("x"), along.get("y")
        if dx is None or dy is None:
            first = None if dx is None else self.scores(dx, torch.zeros_like(y) if self.additive else y)
            return first if dy is None else self.scores(torch.zeros_like(x) if self.additive else x, dy)
        return self.scores(dx, dy) if self.additive else torch.cat([dx, x], dim=-1) @ torch.cat([y, dy], dim=-1).mT

    def by_x(self, weights: Tensor, y: Tensor) -> Tensor:
        """Return the gradient of sum_ij weights_ij s_ij by x."""
        return weights.sum(dim=-1, keepdim=True) if self.additive else weights @ y

    def by_y(self, weights: Tensor, x: Tensor) -> Tensor:
        """Return the gradient of sum_ij weights_ij s_ij by y."""
        return weights.sum(dim=-2)[..., None] if self.additive else weights.mT @ x


@dataclass(frozen=True, eq=False)
class ResponseTile(Tile):
    """Partial derivatives of Phi.

    Attributes:
        form: Kernel and scores.
        names: What the inputs are, of x, y, a, b, mask, row and column.
        partials: What Phi is differentiated by, of x, y, a and b: one result each.
    """

    form: Form
    names: tuple[str, ...]
    partials: tuple[str, ...]

    def pulled(self, needed: Sequence[bool]) -> Tile:
        wanted = tuple(name for name, flag in zip(self.names, needed, strict=True) if flag)
        (missing,) = self.partials if len(self.partials) == 1 else ("",)
        if missing in ("a", "b") and missing not in self.names:
            names = self.joined(self.names, self.partials, self.kept)  # type: ignore[arg-type]
            return response_tile(self.form, tuple(str(name) for name in names), wanted, rows=self.rows)
        return self._along(self.partials, self.kept, wanted)

    def pushed(self, given: Sequence[bool]) -> Tile:
        along = tuple(name for name, flag in zip(self.names, given, strict=True) if flag)
        return self._along(along, sum(given[: self.blocked]), self.partials)

    def pull(
        self, named: Mapping[str, Tensor], cotangents: Mapping[str, Tensor], wanted: Sequence[str]
    ) -> dict[str, Tensor]:
        """Return the gradients by the wanted inputs, from cotangents of the partial derivatives, all by name."""
        inputs, needed = [named[name] for name in self.names], [name in wanted for name in self.names]
        further = [cotangents[name] for name in self.partials]
        found = stream(self.pulled(needed), self.joined(inputs, further, self.kept))
        return dict(zip((name for name in self.names if name in wanted), found, strict=True))

    def push(self, named: Mapping[str, Tensor], tangents: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the derivatives of the partial derivatives along tangents of inputs, by name."""
        inputs, given = [named[name] for name in self.names], [name in tangents for name in self.names]
        further = [tangents[name] for name in self.names if name in tangents]
        return stream(self.pushed(given), self.joined(inputs, further, sum(given[: self.blocked])))

    def _along(self, along: tuple[str, ...], blocked: int, partials: tuple[str, ...]) -> Tile:
        def function(*tensors: Tensor) -> tuple[Tensor, ...]:
            inputs, direction = self.part(tensors, len(self.names), blocked)
            named = dict(zip(self.names, inputs, strict=True))
            return second_partials(self.form, named, dict(zip(along, direction, strict=True)), partials)

        kept = sum(name in _ROWS for name in partials)
        return Tile(function, blocked=self.blocked + blocked, kept=kept, rows=self.rows)


def response_tile(form: Form, names: tuple[str, ...], partials: tuple[str, ...], *, rows: int) -> ResponseTile:
    """Return the tile of some partial derivatives of Phi.

    Args:
        form: Kernel and scores.
        names: What its inputs are: those of x, a, mask and row that are given, then those of y, b and column.
        partials: The wanted derivatives: those by x and a, then those by y and b.
        rows: Rows of a tile.
    """

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        return first_partials(form, dict(zip(names, tensors, strict=True)), partials)

    return ResponseTile(
        function,
        blocked=sum(name in _ROWS for name in names),
        kept=sum(name in _ROWS for name in partials),
        rows=rows,
        form=form,
        names=names,
        partials=partials,
    )


def first_partials(form: Form, given: Mapping[str, Tensor], partials: Sequence[str]) -> tuple[Tensor, ...]:
    """Return partial derivatives of Phi.

    Args:
        form: Kernel and scores.
        given: x with shape (..., n, d), y (..., M, d); a (..., n, C) and b (..., M, C), where the wanted derivatives
            depend on them; mask (n, M), if any; positions row (n, 1) and column (M, 1), if j is seen only where
            column_j <= row_i.
        partials: Names of what Phi is differentiated by.

    Returns:
        One tensor a name, with the shape of what it is the derivative by.
    """
    x, y = given["x"], given["y"]
    scores = form.scores(x, y)
    weights = _weights(form, scores, given)
    by_score = weights
    if "x" in partials or "y" in partials:
        by_score = _centred(given["a"] @ given["b"].mT, weights)
        if form.kernel.log_slope is not None:
            by_score = by_score * form.kernel.log_slope(scores)
    made = {
        "x": lambda: form.by_x(by_score, y),
        "y": lambda: form.by_y(by_score, x),
        "a": lambda: weights @ given["b"],
        "b": lambda: weights.mT @ given["a"],
    }
    return tuple(made[name]() for name in partials)


def second_partials(
    form: Form, given: Mapping[str, Tensor], along: Mapping[str, Tensor], partials: Sequence[str]
) -> tuple[Tensor, ...]:
    """Return partial derivatives of Phi' = the derivative of Phi along a direction of x, y, a and b.

    With u the change of log phi(s), m_i its mean under p_i, e_ij = a_i . b_j and r_i its mean,
    Phi' = sum_ij p_ij (e_ij - r_i) (u_ij - m_i) + sum_ij p_ij (da_i . b_j + a_i . db_j).

    Args:
        form: Kernel and scores.
        given: As in :func:`first_partials`.
        along: The direction, by the same names; what is left out does not move.
        partials: Names of what Phi' is differentiated by.

    Returns:
        One tensor a name.
    """
    x, y = given["x"], given["y"]
    scores = form.scores(x, y)
    weights = _weights(form, scores, given)
    slope = None if form.kernel.log_slope is None else form.kernel.log_slope(scores)
    moved = form.moved(x, y, along)
    change = None
    if moved is not None:
        change = moved if slope is None else moved * slope
        change = change - (weights * change).sum(dim=-1, keepdim=True)
    made: dict[str, Tensor] = {}
    if change is not None and ("a" in partials or "b" in partials):
        shifted = weights * change
        made = {
            name: shifted @ given["b"] if name == "a" else shifted.mT @ given["a"]
            for name in ("a", "b")
            if name in partials
        }
    if "a" in partials and "b" in along:
        made["a"] = _plus(made.get("a"), weights @ along["b"])
    if "b" in partials and "a" in along:
        made["b"] = _plus(made.get("b"), weights.mT @ along["a"])
    if "x" in partials or "y" in partials:
        made |= _second_by_factors(form, given, along, partials, (scores, weights, slope, moved, change))
    like = {"x": x, "y": y, "a": given.get("a", along.get("a")), "b": given.get("b", along.get("b"))}
    return tuple(made[name] if name in made else torch.zeros_like(_there(like[name])) for name in partials)


def _second_by_factors(
    form: Form,
    given: Mapping[str, Tensor],
    along: Mapping[str, Tensor],
    partials: Sequence[str],
    tile: tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None],
) -> dict[str, Tensor]:
    """Return the derivatives of Phi' by x and y.

    They come by two ways: the scores that p and the slope of log phi are taken at, and the change of the scores.
    """
    scores, weights, slope, moved, change = tile
    x, y = given["x"], given["y"]
    energy = given["a"] @ given["b"].mT
    mean = (weights * energy).sum(dim=-1, keepdim=True)
    energy = energy - mean
    by_change = weights * energy  # of log phi(s)
    by_weight = None if change is None else energy * change
    if "a" in along:
        by_weight = _plus(by_weight, along["a"] @ given["b"].mT)
    if "b" in along:
        by_weight = _plus(by_weight, given["a"] @ along["b"].mT)
    by_logit = torch.zeros_like(weights) if by_weight is None else _centred(by_weight, weights)
    by_moved = by_change if slope is None else by_change * slope
    by_score = by_logit if slope is None else by_logit * slope
    if moved is not None and form.kernel.log_curvature is not None:
        by_score = by_score + by_change * moved * form.kernel.log_curvature(scores)
    made = {}
    if "x" in partials:
        made["x"] = form.by_x(by_score, y)
        if "y" in along and not form.additive:
            made["x"] = made["x"] + by_moved @ along["y"]
    if "y" in partials:
        made["y"] = form.by_y(by_score, x)
        if "x" in along and not form.additive:
            made["y"] = made["y"] + by_moved.mT @ along["x"]
    return made


def _weights(form: Form, scores: Tensor, given: Mapping[str, Tensor]) -> Tensor:
    """Return p; rows that see nothing are zero."""
    assert form.kernel.log_value is not None
    logits = form.kernel.log_value(scores)
    mask = given.get("mask")
    if "row" in given:
        mask = with_triangle(mask, given["row"], given["column"])
    if mask is None:
        return logits.softmax(dim=-1)
    return torch.where(mask, torch.where(mask, logits, torch.finfo(logits.dtype).min).softmax(dim=-1), 0)


def _centred(by_weight: Tensor, weights: Tensor) -> Tensor:
    """Return the gradient by the logits, p (g - sum_j p g), from the gradient g by the weights."""
    return torch._softmax_backward_data(by_weight, weights, -1, weights.dtype)


def _plus(first: Tensor | None, second: Tensor) -> Tensor:
    return second if first is None else first + second


def _there(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor
