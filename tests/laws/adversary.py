"""An adversary for Lipschitz bounds: gradient ascent to the inputs that a branch stretches most."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invattn._errors import check_name
from invattn.branches import Branch, CertifiedAttention, RelaxedAttention
from invattn.norms import get_norm, token_norm

STARTS = ("random", "large", "structured")
"""Where a search may start: tokens of any log-normal scale, of size 100 and more, or what the proof calls worst."""

_PATHS = ("score.query", "score.key", "value")
_ROUNDING = 16 * torch.finfo(torch.float64).eps  # of a value of g, relative
_SHARPNESS = 30.0  # of the soft maximum over restarts that shared weights climb


@dataclass(frozen=True)
class Stretch:
    """The largest ratio |g(x) - g(y)| / |x - y| that was found: a LOWER bound of Lip(g).

    Attributes:
        ratio: The ratio.
        point: x, one sample as the branch takes it, float64.
        direction: A change of norm 1, shape of x, that is stretched by the ratio (at a step of 0: by at least that).
        step: y = x + step * direction; 0 where the ratio is that of the derivative at x.
        branch: The branch it was found for, float64: a copy, with other weights where these were searched too.
    """

    ratio: float
    point: Tensor
    direction: Tensor
    step: float
    branch: Branch


def largest_ratio(
    branch: Branch,
    *,
    tokens: int | None = None,
    shape: Sequence[int] | None = None,
    norm: str | None = None,
    restarts: int = 6,
    steps: int = 40,
    lr: float = 0.05,
    starts: tuple[str, ...] = STARTS,
    search_weights: bool = False,
    generator: torch.Generator | None = None,
) -> Stretch:
    """Climb from several starts to where a branch stretches most.

    Each start is climbed twice: by sum_j |(J^T w)_j|_2 for unit w in one token, whose supremum over x and w is
    Lip(g) exactly (the best direction is known in closed form), and by finite pairs (x, y). For the Euclidean norm a
    whole sample is one token.

    Args:
        branch: g; it is copied and left as it is.
        tokens: N, for a branch of tokens: short for a shape of (N, channels).
        shape: Shape of one sample: (N, C), (C, H, W) or (C,); one of ``tokens`` and ``shape`` must be given.
        norm: Name of the norm; None is that of the certificate, else "inf,2".
        restarts: How many starts; each costs two searches, all of them in one batch.
        steps: Ascent steps of each search.
        lr: Step size of Adam, relative to the size of the tokens.
        starts: Kinds of start, from :data:`STARTS`, used in turn.
        search_weights: Climb the weights too. A certified branch scales itself, so it stays within its own bound.
        generator: Where the starts come from; None is torch's default generator.

    Returns:
        The best ratio found; a proven bound of Lip(g) must never be below it.

    Raises:
        ValueError: If a kind of start is unknown or there is nothing to search.
    """
    if (tokens is None) == (shape is None):
        raise ValueError(f"give tokens or shape, not both; got {tokens} and {shape}.")
    sample = tuple(shape) if shape is not None else (tokens or 0, branch.channels)
    if min(sample) < 1 or restarts < 1 or not starts:
        raise ValueError(f"samples, restarts and starts must not be empty; got {sample}, {restarts}, {starts}.")
    for name in starts:
        check_name(name, STARTS, what="kind of start")
    victim = copy.deepcopy(branch).double().eval().requires_grad_(search_weights)
    if norm is None:
        norm = branch.lipschitz_bound().norm if branch.certified else "inf,2"
    view = _View(sample, norm)
    rows = torch.randint(view.shape[0], (restarts,), generator=generator)
    kinds = [starts[r % len(starts)] for r in range(restarts)]
    points = torch.stack([_start(victim, view, int(rows[r]), kinds[r], generator) for r in range(restarts)])
    slopes = _Slopes(view, points, rows, generator)
    pairs = _Pairs(view, points, slopes.measure(victim).direction, generator)
    found = [_climb(search, copy.deepcopy(victim), steps=steps, lr=lr) for search in (slopes, pairs)]
    return max(found, key=lambda stretch: stretch.ratio)


@torch.no_grad()
def separate_channels(branch: CertifiedAttention, *, generator: torch.Generator | None = None) -> None:
    """Draw new weights, in place, with which queries, keys and values read disjoint groups of channels.

    Then each path can be stretched without the others, which is where the proof loses least; the output map is drawn
    large, so that the branch is at its budget. A start for ``largest_ratio(..., search_weights=True)``.

    Args:
        branch: A certified branch with at least 3 channels.
        generator: Where the weights come from; None is torch's default generator.

    Raises:
        ValueError: If there are fewer than 3 channels.
    """
    if branch.channels < 3:
        raise ValueError(f"three groups need at least 3 channels; got {branch.channels}.")
    for name, parameter in branch.named_parameters():
        drawn = _normal(parameter.shape, generator).to(parameter) / branch.channels**0.5
        parameter.copy_(torch.zeros_like(drawn) if name.endswith("bias") else drawn)
    branch.output.weight.mul_(10)
    groups = torch.arange(branch.channels) * 3 // branch.channels
    for name, part in branch.named_modules():
        if name in _PATHS:
            reads = part.get_parameter("weight")
            reads.mul_((groups == _PATHS.index(name)).to(reads))


class _View:
    """Samples of any layout as tokens (R, N, C) in whose norm |.|_{inf,2} the search is done.

    Args:
        sample: Shape of one sample as the branch takes it.
        norm: "inf,2", where the tokens are the branch's own, or "2", where the whole sample is one token.
    """

    def __init__(self, sample: tuple[int, ...], norm: str) -> None:
        get_norm(norm)
        self._sample = sample
        self.whole = norm == "2"
        self.shape = tuple(self.tokens(torch.empty(1, *sample, device="meta")).shape[1:])

    def tokens(self, x: Tensor) -> Tensor:
        if self.whole:
            return x.flatten(1)[:, None]
        if len(self._sample) == 3:
            return x.flatten(2).mT
        return x[:, None] if len(self._sample) == 1 else x

    def samples(self, tokens: Tensor) -> Tensor:
        if len(self._sample) == 3 and not self.whole:
            tokens = tokens.mT
        return tokens.reshape(-1, *self._sample)

    def image(self, branch: Branch, tokens: Tensor) -> Tensor:
        """Return g of tokens, as tokens."""
        return self.tokens(branch(self.samples(tokens)))


@dataclass(frozen=True)
class _Measured:
    """One ratio a restart, with its witnesses: (R,), (R, N, C), (R, N, C), (R,)."""

    ratio: Tensor
    point: Tensor
    direction: Tensor
    step: Tensor


class _Search(ABC):
    """What is climbed: leaves, and a differentiable ratio for each restart."""

    def __init__(self, view: _View, points: Tensor) -> None:
        self.view = view
        size = token_norm(points).clamp_min(1e-3)
        self.log_size = size.log().requires_grad_()
        self.shape = (points / size[:, None, None]).requires_grad_()

    @property
    def leaves(self) -> list[Tensor]:
        return [self.log_size, self.shape]

    def point(self) -> Tensor:
        return self.log_size.exp()[:, None, None] * self.shape

    @abstractmethod
    def measure(self, branch: Branch) -> _Measured:
        """Return the ratios at the present leaves."""


class _Slopes(_Search):
    """sum_j |(J^T w)_j|_2 with w = (unit vector) in one token: the derivative's norm, seen from the output."""

    def __init__(self, view: _View, points: Tensor, rows: Tensor, generator: torch.Generator | None) -> None:
        super().__init__(view, points)
        self._rows = torch.nn.functional.one_hot(rows, points.shape[1]).to(points.dtype)
        self._output = _normal(points[:, 0].shape, generator).requires_grad_()

    @property
    def leaves(self) -> list[Tensor]:
        return [*super().leaves, self._output]

    def measure(self, branch: Branch) -> _Measured:
        point = self.point()
        cotangent = self._rows[:, :, None] * _unit(self._output)[:, None, :]
        (pulled,) = torch.autograd.grad(self.view.image(branch, point), point, cotangent, create_graph=True)
        lengths = torch.linalg.vector_norm(pulled, dim=-1)
        return _Measured(lengths.sum(dim=-1), point, _unit(pulled.detach()), torch.zeros_like(lengths[:, 0]))


class _Pairs(_Search):
    """|g(x) - g(y)| / |x - y| with y = x + step * direction, every token moved by the same length."""

    def __init__(self, view: _View, points: Tensor, directions: Tensor, generator: torch.Generator | None) -> None:
        super().__init__(view, points)
        self._direction = directions.clone().requires_grad_()
        self._log_step = (self.log_size.detach() - 3 * _normal(points.shape[:1], generator).abs()).requires_grad_()

    @property
    def leaves(self) -> list[Tensor]:
        return [*super().leaves, self._direction, self._log_step]

    def measure(self, branch: Branch) -> _Measured:
        point, direction = self.point(), _unit(self._direction)
        # Below 1e-5 of the size the difference of two float64 numbers would be measured, not the branch.
        step = torch.maximum(self._log_step.exp(), 1e-5 * (1 + token_norm(point.detach())))
        other = point + step[:, None, None] * direction
        there, here = self.view.image(branch, other), self.view.image(branch, point)
        # What rounding of the two values may add to their difference is no stretch: it matters where Lip(g) is tiny.
        rounding = _ROUNDING * (token_norm(there) + token_norm(here)).detach()
        change = (token_norm(there - here) - rounding) / token_norm((other - point).detach())
        return _Measured(change, point, direction, step)


def _climb(search: _Search, branch: Branch, *, steps: int, lr: float) -> Stretch:
    """Ascend every restart's ratio by Adam and keep the best that was seen."""
    weights = [parameter for parameter in branch.parameters() if parameter.requires_grad]
    groups = [{"params": search.leaves, "lr": lr}, *([{"params": weights, "lr": lr / 2}] if weights else [])]
    optimizer = torch.optim.Adam(groups)
    best: Stretch | None = None
    for _ in range(steps + 1):
        measured = search.measure(branch)
        best = _better(best, measured, search.view, branch, copy_branch=bool(weights))
        optimizer.zero_grad()
        objective = torch.logsumexp(_SHARPNESS * measured.ratio, dim=0) if weights else measured.ratio.sum()
        (-objective).backward()  # type: ignore[no-untyped-call]
        for leaf in (*search.leaves, *weights):
            if leaf.grad is not None:
                torch.nan_to_num_(leaf.grad)
        optimizer.step()
    assert best is not None
    return best


def _better(best: Stretch | None, measured: _Measured, view: _View, branch: Branch, *, copy_branch: bool) -> Stretch:
    ratios = measured.ratio.detach()
    index = int(ratios.nan_to_num(nan=-1.0).argmax())
    if best is not None and not float(ratios[index]) > best.ratio:
        return best
    return Stretch(
        ratio=float(ratios[index]),
        point=view.samples(measured.point[index].detach()[None])[0].clone(),
        direction=view.samples(measured.direction[index].detach()[None])[0].clone(),
        step=float(measured.step[index].detach()),
        branch=copy.deepcopy(branch) if copy_branch else branch,
    )


def _start(branch: Branch, view: _View, row: int, kind: str, generator: torch.Generator | None) -> Tensor:
    """Return one start, shape (N, C)."""
    noise = _normal(view.shape, generator)
    spread = float(_normal((), generator))
    if kind == "random":
        return noise * float(torch.tensor(1.5 * spread).exp())
    if kind == "large" or not isinstance(branch, CertifiedAttention | RelaxedAttention) or view.whole:
        return noise * 10 ** (2 + abs(spread))
    return _structured(branch, noise, row, generator)


@torch.no_grad()
def _structured(
    branch: CertifiedAttention | RelaxedAttention, noise: Tensor, row: int, generator: torch.Generator | None
) -> Tensor:
    """Two antipodal clusters of tokens with long keys, and a query of 0: where the proof's inequalities are tight.

    A query of 0 is the most sensitive one; keys of full length answer it most; values that go with the keys turn
    the change of weights into a change of the output.
    """
    query = _affine(lambda x: branch.score(x)[0], branch.channels)
    key = _affine(lambda x: branch.score(x)[1], branch.channels)
    value = _affine(branch.value, branch.channels)
    signs = torch.where(torch.rand(noise.shape[0], 1, generator=generator, dtype=noise.dtype) < 0.5, -1.0, 1.0)
    length = 10 ** float(torch.rand((), generator=generator, dtype=noise.dtype))
    along_key, along_value = (_strongest(matrix) for matrix in (key[0], value[0]))
    points: Tensor = signs * (length * along_key + 0.4 * along_value) + 0.01 * noise
    points = points - torch.linalg.pinv(value[0]) @ value[1]
    points[row] = -torch.linalg.pinv(query[0]) @ query[1]
    return points


def _affine(function: Callable[[Tensor], Tensor], channels: int) -> tuple[Tensor, Tensor]:
    """Return A with shape (d, C) and a with shape (d,) of an affine map of one token."""
    zero = torch.zeros(channels, dtype=torch.float64)

    def single(token: Tensor) -> Tensor:
        return function(token[None, None]).flatten()

    matrix: Tensor = torch.func.jacrev(single)(zero)
    return matrix, single(zero)


def _strongest(matrix: Tensor) -> Tensor:
    """Return the input that the matrix answers with length 1 at least effort."""
    _, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
    strongest: Tensor = right[0] / sizes[0].clamp_min(1e-12)
    return strongest


def _unit(vectors: Tensor) -> Tensor:
    """Scale vectors to length 1, however small; zero stays zero."""
    largest = vectors.detach().abs().amax(dim=-1, keepdim=True)
    scaled = vectors / torch.where(largest > 0, largest, 1)  # squares of tiny entries would vanish
    lengths: Tensor = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return scaled / lengths.clamp_min(1)


def _normal(shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator)
