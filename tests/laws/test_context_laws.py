"""Maps that depend on a context: each sample on its own, in both directions, with every gradient and the same bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from invattn import ATTENTION_KINDS, WithLogDet, invertible_attention
from invattn.bijections import (
    ActNorm,
    Bijection,
    Composed,
    ConstantMemory,
    ImageLayout,
    Inverse,
    Reshape,
    ResidualBijection,
    Split,
)
from invattn.branches import Branch, CertifiedConvolution, CertifiedMLP, CertifiedPointwise, CertifiedPooling
from invattn.logdet import Exact, PowerSeries, TokenwiseExact
from invattn.recipes import Certified
from invattn.solvers import Anderson, NewtonKrylov, Picard, Solver, Unrolled
from invattn.testing import dense_jacobian

from .registry import CHANNELS, randomise, seeded

BATCH, CONTEXT = 4, 3


@dataclass(frozen=True)
class Case:
    """A branch that can be made with and without a context, and the shape of its inputs."""

    name: str
    make: Callable[[int | None], Branch]
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return self.name

    def branch(self, context: int | None = CONTEXT) -> Branch:
        made = self.make(context).double()
        randomise(made, 1)
        return made.eval()

    def block(self, solver: Solver | None = None) -> ResidualBijection:
        return ResidualBijection(self.branch(), solver=solver, log_det_estimator=Exact())

    def inputs(self, seed: int = 0) -> Tensor:
        """Samples of very different size, so that a solver finishes them one after another."""
        x = torch.randn(BATCH, *self.shape, dtype=torch.float64, generator=seeded(500 + seed))
        sizes = torch.tensor([1e-3, 0.3, 1.0, 3.0], dtype=torch.float64)
        return x * sizes.view(-1, *[1] * len(self.shape))


def context(seed: int = 0) -> Tensor:
    return torch.randn(BATCH, CONTEXT, dtype=torch.float64, generator=seeded(600 + seed))


def attention(kind: str, heads: int) -> Callable[[int | None], Branch]:
    recipe = Certified(position_grid=(3,), self_logit=1.0) if heads > 1 else "certified"
    return lambda k: (
        invertible_attention(
            CHANNELS, kind=kind, recipe=recipe, num_heads=heads, layout="tokens", context_channels=k
        ).branch
    )


CASES = [
    *(Case(kind, attention(kind, heads), (3, CHANNELS)) for kind, heads in zip(ATTENTION_KINDS, (1, 2, 1, 2))),  # noqa: B905
    Case("pointwise", lambda k: CertifiedPointwise(channels=CHANNELS, context_channels=k), (3, CHANNELS)),
    Case("pooling", lambda k: CertifiedPooling(channels=CHANNELS, context_channels=k), (3, CHANNELS)),
    Case("mlp", lambda k: CertifiedMLP(channels=3, hidden_channels=(5,), context_channels=k), (2, 3)),
    Case("mlp_vectors", lambda k: CertifiedMLP(channels=3, hidden_channels=(5, 4), context_channels=k), (3,)),
    Case(
        "convolution",
        lambda k: CertifiedConvolution(channels=2, hidden_channels=3, kernel_sizes=(3, 1), context_channels=k),
        (2, 2, 3),
    ),
]
SOME = [case for case in CASES if case.name in ("dot_product", "mlp_vectors", "convolution")]


def largest(difference: Tensor) -> float:
    return float(difference.detach().abs().max())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_sample_sees_its_own_context_forwards_and_backwards(case: Case) -> None:
    block, x, c = case.block(), case.inputs(), context()
    at = block.given(c)
    z, log_det = at.forward_and_log_det(x)
    assert largest(at(x + 0) - block.given(context(1))(x)) > 1e-3
    torch.testing.assert_close(log_det, torch.linalg.slogdet(dense_jacobian(at, x)).logabsdet, rtol=1e-9, atol=1e-9)
    back, inverse_log_det = at.inverse_and_log_det(z.detach())
    torch.testing.assert_close(back, x, rtol=0, atol=1e-10)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=1e-9, atol=1e-9)
    solution = at.solve(z)
    assert bool(solution.converged.all())
    assert len(set(solution.num_steps.tolist())) > 1, "samples must finish at different steps"
    for i in range(BATCH):
        alone = block.given(c[i : i + 1])
        torch.testing.assert_close(alone(x[i : i + 1]), z[i : i + 1], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(alone.inverse(z[i : i + 1].detach()), x[i : i + 1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("solver", [Picard(max_steps=300), Anderson(), NewtonKrylov()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("case", SOME, ids=str)
def test_every_solver_keeps_contexts_beside_their_samples(case: Case, solver: Solver) -> None:
    at, x = case.block(solver).given(context()), case.inputs()
    torch.testing.assert_close(at.inverse(at(x).detach()), x, rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_at_one_context_it_is_the_branch_with_other_biases_and_the_bound_stays(case: Case) -> None:
    """The oracle knows no context: b + U c, and for queries and keys b + W U c."""
    branch, plain = case.branch(), case.branch(None)
    assert branch.context is not None
    with torch.no_grad():
        if case.name == "gaussian":  # no bias stands where the tokens that queries and keys see are moved
            branch.context.linear.weight[:CHANNELS].zero_()
        plain.load_state_dict(branch.state_dict(), strict=False)
        c = context()[:1]
        shift = (branch.context.linear.weight @ c[0]).split(branch.context.widths)
        linears = [part for name, part in plain.named_modules() if name in ("value", "output")]
        linears = linears or list(plain.get_submodule("layers").children())
        for linear, own in zip(linears, shift[-len(linears) :], strict=True):
            linear.get_parameter("bias").add_(own)
        for name, part in plain.named_modules():
            if name in ("score.query", "score.key"):
                part.get_parameter("bias").add_(part.get_parameter("weight") @ shift[0])
        x = case.inputs()
        assert largest(plain(x) - case.branch(None)(x)) > 1e-3
        torch.testing.assert_close(branch.given(c.expand(BATCH, -1))(x), plain(x), rtol=1e-11, atol=1e-11)
        if "attention" in branch.kind:
            weights = branch.given(c.expand(BATCH, -1)).attention_weights(x)
            torch.testing.assert_close(weights, plain.attention_weights(x), rtol=1e-11, atol=1e-11)
    bounds = [part.lipschitz_bound() for part in (plain, branch, branch.given(100 * context()))]
    assert bounds[0].value == bounds[1].value == bounds[2].value


class Map(nn.Module):
    """A direction of a block as a function of its input and the context, for functional_call."""

    def __init__(self, block: Bijection, direction: str) -> None:
        super().__init__()
        self.block, self.direction = block, direction

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        at = self.block.given(c)
        if self.direction == "inverse":
            return at.inverse(x)
        image, log_det = getattr(at, self.direction)(x)
        return torch.cat([image.flatten(1), log_det[:, None]], dim=1)


@pytest.mark.parametrize("direction", ["forward_and_log_det", "inverse", "inverse_and_log_det"])
@pytest.mark.parametrize("case", SOME, ids=str)
def test_gradients_reach_the_context_and_its_weights(case: Case, direction: str) -> None:
    function = Map(case.block(), direction)
    parameters = dict(function.named_parameters())
    assert any("context" in name for name in parameters)

    def value(x: Tensor, c: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(function, dict(zip(parameters, values, strict=True)), (x, c))

    inputs = (case.inputs()[1:3].requires_grad_(), context()[1:3].requires_grad_(), *parameters.values())
    assert torch.autograd.gradcheck(value, inputs, fast_mode=True)
    if (direction, case.name) == ("inverse", "mlp_vectors"):
        assert torch.autograd.gradgradcheck(value, inputs, fast_mode=True)
        assert torch.autograd.gradcheck(value, inputs, fast_mode=True, check_forward_ad=True, check_backward_ad=False)


def test_the_unrolled_gradient_reaches_the_context_too() -> None:
    case, c = SOME[0], context().requires_grad_()
    exact, unrolled = case.block(), case.block()
    unrolled.inverse_gradient = Unrolled(200)
    z = case.inputs()
    found = [torch.autograd.grad(block.given(c).inverse(z).square().sum(), c)[0] for block in (exact, unrolled)]
    torch.testing.assert_close(*found, rtol=1e-7, atol=1e-9)
    assert largest(found[0]) > 1e-3


@pytest.mark.parametrize("case", SOME, ids=str)
def test_transforms_carry_the_context(case: Case) -> None:
    """vmap folds its axis into the batch of the solver: the context must be repeated, or mapped along."""
    function = Map(case.block(), "inverse")
    targets = torch.stack([case.inputs(seed) for seed in range(3)])
    contexts = torch.stack([context(seed) for seed in range(3)])
    same = torch.func.vmap(function, in_dims=(0, None))(targets, contexts[0])
    both = torch.func.vmap(function)(targets, contexts)
    for i in range(3):
        torch.testing.assert_close(same[i], function(targets[i], contexts[0]), rtol=0, atol=1e-10)
        torch.testing.assert_close(both[i], function(targets[i], contexts[i]), rtol=0, atol=1e-10)
    by_context = torch.func.jacrev(function, argnums=1)(targets[0], contexts[0])
    by_target = torch.func.jacrev(function)(targets[0], contexts[0])
    z, c = targets[0].clone().requires_grad_(), contexts[0].clone().requires_grad_()
    wanted = torch.autograd.grad(function(z, c)[2].sum(), (z, c))
    torch.testing.assert_close(by_target[2].flatten(0, len(case.shape) - 1).sum(dim=0), wanted[0], rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(
        by_context[2].flatten(0, len(case.shape) - 1).sum(dim=0), wanted[1], rtol=1e-8, atol=1e-9
    )


def image_chain() -> Composed:
    """Every container around conditional blocks: a chain, a layout, an inverse, a split."""
    convolution = {"hidden_channels": 3, "kernel_sizes": (3, 1), "context_channels": CONTEXT}

    def block(channels: int) -> Bijection:
        return ResidualBijection(CertifiedConvolution(channels=channels, **convolution), log_det_estimator=Exact())  # type: ignore[arg-type]

    attended = invertible_attention(2, kind="gaussian", context_channels=CONTEXT, log_det_estimator=Exact())
    assert isinstance(attended, ImageLayout)
    rest = Composed([Inverse(block(2)), Reshape((2, 2, 2))])
    chain = Composed([block(4), ActNorm(4), Split((4, 2, 2), Composed([attended, rest]))]).double()
    randomise(chain, 2)
    return chain.eval()


def test_containers_pass_the_context_on_and_stay_as_they_are() -> None:
    chain, c = image_chain(), context()
    x = torch.randn(BATCH, 4, 2, 2, dtype=torch.float64, generator=seeded(7))
    at = chain.given(c)
    assert isinstance(at, Composed)
    assert {id(parameter) for parameter in at.parameters()} == {id(parameter) for parameter in chain.parameters()}
    assert at.state_dict().keys() == chain.state_dict().keys()
    z, log_det = at.forward_and_log_det(x)
    torch.testing.assert_close(at.inverse(z.detach()), x, rtol=0, atol=1e-9)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(dense_jacobian(at, x)).logabsdet, rtol=1e-9, atol=1e-9)
    both = WithLogDet(chain).given(c)(x)
    assert torch.equal(both[0], z)
    assert torch.equal(both[1], log_det)
    with pytest.raises(ValueError, match="context with 3 channels, and none was given"):
        chain(x)
    plain = ActNorm(4)
    assert plain.given(c) is plain


@pytest.mark.parametrize("keep_every", [None, 1])
def test_constant_memory_gives_the_gradients_of_the_chain_by_the_context_too(keep_every: int | None) -> None:
    chain = image_chain()
    x = torch.randn(BATCH, 4, 2, 2, dtype=torch.float64, generator=seeded(8)).requires_grad_()
    c = context().requires_grad_()
    inputs = [x, c, *chain.parameters()]
    found = []
    for bijection in (chain, ConstantMemory(chain, keep_every=keep_every)):
        z, log_det = bijection.given(2 * c).forward_and_log_det(x)
        found.append(torch.autograd.grad(z.square().sum() - log_det.sum(), inputs))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)
    assert largest(found[0][1]) > 1e-3


@pytest.mark.parametrize("estimator", [PowerSeries(terms=4), TokenwiseExact()], ids=lambda e: type(e).__name__)
def test_estimators_differentiate_by_the_context(estimator: PowerSeries | TokenwiseExact) -> None:
    case = next(case for case in CASES if case.name == "mlp")
    block, c = ResidualBijection(case.branch(), log_det_estimator=estimator), context().requires_grad_()
    _, log_det = block.given(c).forward_and_log_det(case.inputs())
    (gradient,) = torch.autograd.grad(log_det.sum(), c)
    assert bool((gradient.abs().amax(dim=1) > 1e-9).all())


def test_what_does_not_fit_is_one_clear_error() -> None:
    block = SOME[1].block()
    x = SOME[1].inputs()
    with pytest.raises(ValueError, match="a condition of 3 samples was given for a batch of 4"):
        block.given(context()[:3])(x)
    for method in ("inverse", "solve", "forward_and_log_det", "inverse_and_log_det"):
        with pytest.raises(ValueError, match="a condition of 3 samples was given for a batch of 4"):
            getattr(block.given(context()[:3]), method)(x)
        with pytest.raises(ValueError, match="none was given"):
            getattr(block, method)(x)
    for wrong in (torch.randn(BATCH, 2), torch.randn(BATCH), torch.ones(BATCH, CONTEXT, dtype=torch.long)):
        with pytest.raises(ValueError, match=r"floating point with shape \(B, 3\)"):
            block.given(wrong)
    with pytest.raises(ValueError, match="recipe 'paper' take no context"):
        invertible_attention(4, recipe="paper", context_channels=2)
    with pytest.raises(ValueError, match="context_channels must be at least 1"):
        invertible_attention(4, context_channels=-1)
    assert invertible_attention(4, context_channels=0).branch.context is None
