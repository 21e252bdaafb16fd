"""Constant-memory training against ordinary training: the chain itself, whose graph autograd holds, is the oracle."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from invattn import ConvergenceError, LipschitzBound, invertible_attention
from invattn.bijections import Bijection, Composed, ConstantMemory, Drift, Inverse, ResidualBijection, Squeeze
from invattn.branches import Branch, CertifiedConvolution, CertifiedMLP
from invattn.flows import Flow, StandardNormal
from invattn.logdet import Exact, LogDetEstimate, LogDetEstimator, PowerSeries, RussianRoulette
from invattn.recipes import Paper, Recipe
from invattn.solvers import Picard
from invattn.testing import PeakMemory

CHANNELS, TOKENS = 4, 6
KINDS = ("gaussian", "embedded_gaussian", "dot_product", "concatenation", "pointwise")

Gradients = dict[str, Tensor]


def chain(
    blocks: int = 3,
    *,
    recipe: str | Recipe = "certified",
    estimator: LogDetEstimator | None = None,
    layout: str = "tokens",
    channels: int = CHANNELS,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Composed:
    torch.manual_seed(seed)
    made = [
        invertible_attention(
            channels,
            kind=KINDS[block % len(KINDS)],
            recipe=recipe,
            layout=layout,
            log_det_estimator=PowerSeries(terms=2) if estimator is None else estimator,
        )
        for block in range(blocks)
    ]
    return Composed(made).to(dtype)


def tokens(batch: int = 2, *, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, TOKENS, CHANNELS, dtype=dtype, generator=generator)


def loss_of(bijection: Bijection, x: Tensor) -> Tensor:
    """The negative log-likelihood under a normal base, with fixed probes."""
    torch.manual_seed(2)
    z, log_det = bijection.forward_and_log_det(x)
    return (z.square().flatten(1).sum(dim=1) / 2 - log_det).mean()


def gradients(bijection: nn.Module) -> Gradients:
    """The gradients of the parameters by their names inside a ConstantMemory, if it is one."""
    found = {name.removeprefix("bijection."): value.grad for name, value in bijection.named_parameters()}
    bijection.zero_grad()
    return {name: value.clone() for name, value in found.items() if value is not None}


def trained(bijection: Bijection, x: Tensor, loss: Callable[[Bijection, Tensor], Tensor] = loss_of) -> Gradients:
    loss(bijection, x).backward()
    return gradients(bijection)


def assert_equal(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, relative: float = 1e-9) -> None:
    """Compare gradients, as a whole and one by one.

    A parameter whose gradient nearly cancels (the bias of a query: a softmax does not see it) cannot be exact relative
    to itself: what it is held to is a hundredth of the mean size of all.
    """
    assert found.keys() == wanted.keys()
    total = torch.stack([value.norm() for value in wanted.values()]).norm()
    difference = torch.stack([(found[name] - value).norm() for name, value in wanted.items()])
    assert float(difference.norm()) <= relative * float(total)
    floor = float(total) / len(wanted) ** 0.5 / 100
    for (name, value), one in zip(wanted.items(), difference, strict=True):
        assert float(one) <= relative * max(float(value.norm()), floor), name


@pytest.mark.parametrize(
    ("dtype", "relative", "keep_every"),
    [(torch.float64, 1e-9, None), (torch.float64, 1e-9, 5), (torch.float32, 1e-5, None), (torch.float32, 1e-5, 1)],
    ids=str,
)
def test_gradients_of_32_blocks_equal_the_ordinary_ones(
    dtype: torch.dtype, relative: float, keep_every: int | None
) -> None:
    ordinary, x = chain(32, dtype=dtype), tokens(dtype=dtype).requires_grad_()
    wanted = trained(ordinary, x)
    assert x.grad is not None
    wanted["x"], x.grad = x.grad, None
    found = trained(ConstantMemory(ordinary, keep_every=keep_every), x)
    assert_equal(found | {"x": x.grad}, wanted, relative=relative)


def test_images_and_changing_shapes() -> None:
    ordinary = Composed([Squeeze(2), Composed(chain(2, layout="image").parts()), Squeeze(1), Squeeze(2)])
    assert len(ordinary.parts()) == 5
    x = torch.randn(2, 1, 8, 4, dtype=torch.float64)
    flow = Flow(ConstantMemory(ordinary), StandardNormal((16, 2, 1)))
    torch.manual_seed(2)
    flow.log_prob(x).sum().backward()
    found = {name.removeprefix("bijection."): value for name, value in gradients(flow).items()}
    torch.manual_seed(2)
    Flow(ordinary, StandardNormal((16, 2, 1))).log_prob(x).sum().backward()
    assert_equal(found, gradients(ordinary))


def test_convolutions_between_attention_and_maps_of_vectors() -> None:
    """Blocks that are certified in another norm, and inputs without tokens."""
    estimator = PowerSeries(terms=2)
    convolutions = [
        ResidualBijection(CertifiedConvolution(channels=4, hidden_channels=3), log_det_estimator=estimator)
        for _ in range(2)
    ]
    first, second = chain(2, layout="image").parts()
    mixed = Composed([convolutions[0], first, convolutions[1], second]).double()
    maps = Composed(
        ResidualBijection(CertifiedMLP(channels=4, hidden_channels=(5,)), log_det_estimator=estimator) for _ in range(3)
    ).double()
    for ordinary, x in ((mixed, torch.randn(2, 4, 3, 2)), (maps, torch.randn(3, 4))):
        assert_equal(trained(ConstantMemory(ordinary), x.double()), trained(ordinary, x.double()))


def peak(bijection: Bijection, x: Tensor) -> int:
    with PeakMemory() as memory:
        trained(bijection, x)
    return memory.peak


@pytest.mark.parametrize(("blocks", "shape"), [(32, (4, 16, 12)), (12, (4, 12, 4, 4))], ids=["tokens", "image"])
def test_a_training_step_holds_at_most_35_percent(blocks: int, shape: tuple[int, ...]) -> None:
    """About 8 % were measured for 32 blocks; larger sizes are in docs/results/constant_memory.md."""
    layout, x = "tokens" if len(shape) == 3 else "image", torch.randn(shape)
    ordinary = chain(blocks, layout=layout, channels=12, dtype=torch.float32, estimator=PowerSeries(terms=1))
    assert peak(ConstantMemory(ordinary), x) <= 0.35 * peak(ordinary, x)


def test_activation_memory_does_not_grow_with_the_number_of_blocks() -> None:
    """What 10 further blocks add is the gradients of their weights."""
    ordinary, x = chain(15, estimator=PowerSeries(terms=1)), tokens()
    short = ConstantMemory(Composed(ordinary.parts()[:5]))
    weights = sum(value.nbytes for part in ordinary.parts()[5:] for value in part.parameters())
    assert peak(ConstantMemory(ordinary), x) - peak(short, x) <= 1.1 * weights


def test_the_value_is_the_ordinary_one_and_carries_one_node() -> None:
    ordinary, x = chain(), tokens()
    for own, other in ((ordinary, ConstantMemory(ordinary)), (ordinary.eval(), ConstantMemory(ordinary).eval())):
        torch.manual_seed(3)
        z, log_det = own.forward_and_log_det(x)
        torch.manual_seed(3)
        same, same_log_det = other.forward_and_log_det(x)
        assert torch.equal(same, z)
        # Not to the last bit: kernels differ between modes, and autograd adds a zero to the log-determinant.
        torch.testing.assert_close(same_log_det, log_det, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(other(x), own(x), rtol=1e-13, atol=1e-13)
    assert type(same.grad_fn).__name__ == "_RecomputedBackward"


def test_nothing_is_recorded_without_gradients() -> None:
    module, x = ConstantMemory(chain()), tokens()
    with torch.no_grad():
        assert not module(x).requires_grad
    with torch.inference_mode():
        assert not module.forward_and_log_det(x)[0].requires_grad
    module.requires_grad_(False)
    assert not module(x).requires_grad
    assert module(x.requires_grad_()).requires_grad
    assert ConstantMemory(Composed([]))(x) is x


@pytest.mark.parametrize("part", ["z", "log_det", "forward"])
def test_a_loss_of_one_result_only(part: str) -> None:
    def loss(bijection: Bijection, x: Tensor) -> Tensor:
        torch.manual_seed(4)
        if part == "forward":
            return bijection(x).square().sum()
        z, log_det = bijection.forward_and_log_det(x)
        return z.square().sum() if part == "z" else log_det.square().sum()

    ordinary, x = chain(5), tokens()
    assert_equal(trained(ConstantMemory(ordinary), x, loss), trained(ordinary, x, loss))


def test_samples_may_have_different_weights_in_the_loss() -> None:
    weights = torch.tensor([0.0, 3.0], dtype=torch.float64)

    def loss(bijection: Bijection, x: Tensor) -> Tensor:
        torch.manual_seed(4)
        return (bijection.forward_and_log_det(x)[1] * weights).sum()

    ordinary, x = chain(), tokens()
    assert_equal(trained(ConstantMemory(ordinary), x, loss), trained(ordinary, x, loss))


def test_autograd_grad_of_some_of_the_inputs() -> None:
    ordinary, x = chain(), tokens().requires_grad_()
    names = [name for name, _ in ordinary.named_parameters()]
    module, parameters = ConstantMemory(ordinary), list(ordinary.parameters())
    wanted = torch.autograd.grad(loss_of(ordinary, x), [x, *parameters], allow_unused=True)
    for chosen in ([0], [5, 1], [0, len(names)]):
        sources = [[x, *parameters][place] for place in chosen]
        found = torch.autograd.grad(loss_of(module, x), sources)
        for place, gradient in zip(chosen, found, strict=True):
            torch.testing.assert_close(gradient, wanted[place], rtol=1e-9, atol=1e-9)
    assert all(parameter.grad is None for parameter in parameters)


@pytest.mark.parametrize("frozen", [[0], [1], [2], [0, 1], [1, 2]], ids=str)
def test_frozen_blocks_get_no_gradient(frozen: list[int]) -> None:
    ordinary, x = chain(), tokens()
    for block in frozen:
        ordinary.parts()[block].requires_grad_(False)
    assert_equal(trained(ConstantMemory(ordinary), x), trained(ordinary, x))


def test_only_the_input_wants_a_gradient() -> None:
    ordinary, x = chain().requires_grad_(False), tokens().requires_grad_()
    (found,) = torch.autograd.grad(loss_of(ConstantMemory(ordinary), x), x)
    (wanted,) = torch.autograd.grad(loss_of(ordinary, x), x)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_backward_can_be_repeated_and_accumulates() -> None:
    ordinary, x = chain(), tokens()
    wanted = {name: 3 * value for name, value in trained(ordinary, x).items()}
    module = ConstantMemory(ordinary)
    loss = loss_of(module, x)
    loss.backward(retain_graph=True)
    loss.backward()
    loss_of(module, x).backward()
    assert_equal(gradients(module), wanted)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_differentiating_twice_is_refused() -> None:
    module, x = ConstantMemory(chain()), tokens().requires_grad_()
    with pytest.raises(RuntimeError, match="create_graph=False"):
        torch.autograd.grad(module(x).sum(), x, create_graph=True)
    z = module(x)
    with pytest.raises(RuntimeError, match="is_grads_batched"):
        torch.func.vmap(lambda vector: torch.autograd.grad(z, x, vector))(torch.ones(3, *x.shape, dtype=x.dtype))


def test_a_batch_of_vectors_at_once() -> None:
    """Works where nothing is drawn; torch itself refuses random probes there."""
    ordinary, x = chain(), tokens().requires_grad_()
    vectors = torch.randn(3, *x.shape, dtype=x.dtype)
    (found,) = torch.autograd.grad(ConstantMemory(ordinary)(x), x, vectors, is_grads_batched=True)
    (wanted,) = torch.autograd.grad(ordinary(x), x, vectors, is_grads_batched=True)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    _, log_det = ConstantMemory(ordinary).forward_and_log_det(x)
    with pytest.raises(RuntimeError, match="random operation"):
        torch.autograd.grad(log_det, x, vectors[:, :, 0, 0], is_grads_batched=True)


def test_a_block_that_stands_twice_in_the_chain_and_a_shared_weight() -> None:
    first, second = chain(2).parts()
    other = invertible_attention(CHANNELS, kind="embedded_gaussian", layout="tokens").double()
    other.branch.get_submodule("value").weight = second.branch.get_submodule("value").weight
    ordinary, x = Composed([first, second, first, other, first]), tokens()
    module = ConstantMemory(ordinary)
    assert_equal(trained(module, x), trained(ordinary, x))
    assert len(list(module.parameters())) == len(list(ordinary.parameters()))


def test_hooks_of_a_parameter_see_its_whole_gradient_once() -> None:
    block = chain(1).parts()[0]
    ordinary, x, seen = Composed([block, block]), tokens(), []
    (weight, *_) = ordinary.parameters()
    wanted = trained(ordinary, x)
    weight.register_hook(lambda gradient: seen.append(("gradient", gradient.clone())))
    weight.register_post_accumulate_grad_hook(lambda value: seen.append(("accumulated", value.grad.clone())))
    trained(ConstantMemory(ordinary), x)
    assert [name for name, _ in seen] == ["gradient", "accumulated"]
    for _, gradient in seen:
        torch.testing.assert_close(gradient, next(iter(wanted.values())), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("estimator", [PowerSeries(terms=3, probe="gaussian"), RussianRoulette(probes=2)])
def test_probes_of_generators_are_drawn_again_and_the_streams_go_on_undisturbed(
    estimator: PowerSeries | RussianRoulette,
) -> None:
    """Two blocks share a generator, a third draws from torch's own."""
    own = torch.Generator().manual_seed(5)
    shared = replace(estimator, generator=own)
    parts = [*chain(2, estimator=shared).parts(), *chain(1, estimator=PowerSeries(terms=3)).parts()]
    ordinary, x, after = Composed(parts), tokens(), []
    found = []
    for bijection in (ordinary, ConstantMemory(ordinary)):
        own.manual_seed(5)
        found.append(trained(bijection, x))
        after.append((torch.randn(3), torch.randn(3, generator=own)))
    assert_equal(found[1], found[0])
    for ours, theirs in zip(after[1], after[0], strict=True):
        assert torch.equal(ours, theirs)


class Remembering(LogDetEstimator):
    """Draws from a generator that it does not name."""

    def __init__(self) -> None:
        self.series = PowerSeries(terms=2, generator=torch.Generator().manual_seed(6))

    def estimate(
        self, branch: Callable[[Tensor], Tensor], x: Tensor, *, lipschitz: Callable[[], float | None] | None = None
    ) -> LogDetEstimate:
        return self.series.estimate(branch, x, lipschitz=lipschitz)

    def truncation_bound(self, size: int, lipschitz: float) -> float:
        return self.series.truncation_bound(size, lipschitz)


class Naming(Remembering):
    @property
    def generators(self) -> tuple[torch.Generator, ...]:
        return self.series.generators


def test_an_estimator_that_cannot_be_rewound_is_noticed() -> None:
    with pytest.raises(RuntimeError, match="Name the generators"):
        trained(ConstantMemory(chain(estimator=Remembering())), tokens())
    trained(ConstantMemory(chain(estimator=Naming())), tokens())


@pytest.mark.parametrize("estimator", [Exact(), PowerSeries(terms=3)], ids=["exact", "power_series"])
def test_power_iteration_refines_as_in_an_ordinary_step(estimator: LogDetEstimator) -> None:
    """Twice before the backward pass, so that the vectors of the first forward are no longer in the buffers."""

    def two_losses(bijection: Bijection, x: Tensor) -> Tensor:
        return loss_of(bijection, x) + loss_of(bijection, 2 * x)

    def started() -> Composed:
        made = chain(3, recipe=Paper(normalize="total", constrain_response=True), estimator=estimator)
        first, second, third = made.parts()
        for name, value in made.named_parameters():
            value.data.mul_(1.5 if name.endswith("weight") else 1)
        return Composed([first, second, first, third]).train()

    ordinary, other, x = started(), started(), 0.2 * tokens()
    wanted = trained(ordinary, x, two_losses)
    assert_equal(trained(ConstantMemory(other), x, two_losses), wanted, relative=1e-8)
    state = other.state_dict()
    for name, value in ordinary.state_dict().items():
        assert torch.equal(state[name], value)


@pytest.mark.parametrize("what", ["parameter", "buffer"])
def test_weights_changed_before_backward_are_refused(what: str) -> None:
    module, x = ConstantMemory(chain(recipe="paper").eval()), 0.2 * tokens()
    loss = loss_of(module, x)
    with torch.no_grad():
        chosen = module.bijection.parts()[1].get_parameter("g.value.weight")
        if what == "buffer":
            chosen = module.bijection.parts()[1].get_buffer("g.value.left")
        chosen.mul_(1.0)
    with pytest.raises(RuntimeError, match=r"g\.value\.(weight|left) of block 1 .* Call backward\(\) before"):
        loss.backward()


class Shrink(Branch):
    """g(x) = -c x on tokens: x + g(x) is 1 - c times as large."""

    def __init__(self, coefficient: float, *, certified: bool = True) -> None:
        super().__init__()
        self.channels = CHANNELS
        self.proven = certified
        self.coefficient = nn.Parameter(torch.tensor(coefficient))

    @property
    def certified(self) -> bool:
        return self.proven

    def lipschitz_bound(self) -> LipschitzBound:
        return LipschitzBound(float(self.coefficient.abs()), "inf,2", "g(x) = -c x", {})

    def forward(self, x: Tensor) -> Tensor:
        return -self.coefficient * x


class Fold(Branch):
    """x + g(x) = |x|: two inputs for each positive output."""

    channels = CHANNELS

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x.abs() - x


def test_information_that_the_blocks_lose_is_noticed_and_kept_on_request() -> None:
    """Ten blocks that shrink by 10, between additions of 1: 1e-10 of the input is left, less than float32 holds."""
    parts: list[Bijection] = [ResidualBijection(Shrink(0.9)) for _ in range(10)]
    parts[5:5] = [ResidualBijection(Constant())]
    ordinary, x = Composed(parts), tokens(dtype=torch.float32)

    def loss(bijection: Bijection, start: Tensor) -> Tensor:
        return bijection(start).square().sum()

    with pytest.raises(ConvergenceError, match=r"output of block 0, reconstructed .*keep_every=8"):
        trained(ConstantMemory(ordinary), x, loss)
    wanted = trained(ordinary, x, loss)
    for keep_every in (5, 1):  # 5 keeps what enters the addition
        found = trained(ConstantMemory(ordinary, keep_every=keep_every), x, loss)
        assert_equal(found, wanted, relative=1e-4)
    loose = trained(ConstantMemory(ordinary, drift_limit=1e9), x, loss)
    name = "bijections.3.g.coefficient"
    assert float((loose[name] - wanted[name]).abs()) > 1e-3 * float(wanted[name].abs())


class Constant(Branch):
    """g(x) = 1."""

    channels = CHANNELS

    @property
    def certified(self) -> bool:
        return True

    def lipschitz_bound(self) -> LipschitzBound:
        return LipschitzBound(0.0, "inf,2", "constant", {})

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)


def test_a_second_preimage_is_noticed() -> None:
    """The inverse of the fold converges at once, to the positive half: only the kept input shows that it is wrong."""
    first = chain(1).parts()[0]
    ordinary, x = Composed([first, ResidualBijection(Fold())]), tokens()
    with pytest.raises(ConvergenceError, match="two inputs to one output"):
        trained(ConstantMemory(ordinary), x, lambda bijection, start: bijection(start).sum())
    ordinary.parts()[0].requires_grad_(False)
    with pytest.raises(ConvergenceError, match="two inputs to one output"):  # although the first block wants nothing
        trained(ConstantMemory(ordinary), x, lambda bijection, start: bijection(start).sum())


def test_a_block_that_cannot_be_inverted_is_named() -> None:
    stretch = ResidualBijection(Shrink(-2.5, certified=False))  # from which plain iteration runs away
    parts = [*chain(1).parts(), stretch, *chain(1).parts()]
    module = ConstantMemory(Composed(parts).double(), solver=Picard())
    with pytest.raises(ConvergenceError, match=r"input of block 1 could not be .* no certificate .*keep_every"):
        trained(module, tokens(), lambda bijection, x: bijection(x).sum())
    module = ConstantMemory(chain(3), solver=Picard(max_steps=1))
    with pytest.raises(ConvergenceError, match="input of block 2 could not be recovered"):
        trained(module, tokens())
    assert_equal(trained(ConstantMemory(chain(3), solver=Picard(max_steps=300)), tokens()), trained(chain(3), tokens()))


def test_the_report_of_the_drift() -> None:
    reports: list[Drift] = []
    ordinary, x = chain(6), tokens()
    trained(ConstantMemory(ordinary, keep_every=4, on_drift=reports.append), x)
    (report,) = reports
    assert [entry.block for entry in report.blocks] == list(range(6))
    for entry in report.blocks:
        kept = entry.block in (0, 4)
        assert (entry.residual is None, entry.error_bound is None, entry.num_steps is None) == (kept,) * 3
        assert (entry.drift is None) == (not kept)
    assert 0 < report.largest < 1e-13
    assert report.log_det is not None
    assert report.log_det < 1e-12
    # Against the chain run by hand: the inputs of 3, 2, 1 recovered from the true output of 3.
    values = [x]
    with torch.no_grad():
        for part in ordinary.parts():
            values.append(part(values[-1]))
    errors = [entry.error_bound for entry in report.blocks[1:4]]
    assert all(bound is not None and bound < 1e-11 for bound in errors)


def test_the_drift_is_that_of_the_reconstruction() -> None:
    """A coarse solver, so that the drift is far above rounding, and the same solver by hand."""
    solver, reports = Picard(rtol=1e-4, atol=0), list[Drift]()
    ordinary, x = chain(3), tokens()
    module = ConstantMemory(ordinary, solver=solver, drift_limit=1.0, on_drift=reports.append)
    found, wanted = trained(module, x), trained(ordinary, x)
    with torch.no_grad():
        first, second, third = ordinary.parts()
        true = first(x)
        z = third(second(true))
        for part in (third, second):
            z = solver.solve(part.branch, z, lipschitz=0.9).value
    assert reports[0].largest == pytest.approx(float((z - true).abs().max()), rel=1e-6)
    assert reports[0].largest > 1e-6
    assert not torch.allclose(found["bijections.1.g.value.weight"], wanted["bijections.1.g.value.weight"], rtol=1e-9)


@pytest.mark.parametrize("keep_every", [None, 1])
def test_autocast_is_the_same_in_both_directions(keep_every: int | None) -> None:
    """bfloat16 has 8 bits: the gradients are as near those of float32 as the ordinary ones under autocast are."""
    ordinary, x, reports = chain(8, dtype=torch.float32), tokens(8, dtype=torch.float32), list[Drift]()
    module = ConstantMemory(ordinary, keep_every=keep_every, on_drift=reports.append)
    exact = trained(ordinary, x)
    rough = []
    for bijection in (ordinary, module):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(bijection, x)
        loss.backward()
        rough.append(gradients(bijection))
    errors = [
        float(torch.cat([(one[name] - value).flatten() for name, value in exact.items()]).norm()) for one in rough
    ]
    total = float(torch.cat([value.flatten() for value in exact.values()]).norm())
    assert 1e-4 * total < errors[0] < 0.02 * total
    assert errors[1] < 1.2 * errors[0]
    assert reports[0].largest < 0.03
    if keep_every == 1:
        assert reports[0].log_det == pytest.approx(0, abs=1e-5)


def test_autocast_caches_no_weight_that_others_would_reuse() -> None:
    ordinary, x = chain(1, dtype=torch.float32), tokens(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ConstantMemory(ordinary)(x)
        ordinary(x).sum().backward()
    assert all(parameter.grad is not None for parameter in ordinary.parameters())


def test_torch_func_sees_the_bijection_itself() -> None:
    ordinary, x = chain(estimator=Exact()), tokens()
    module = ConstantMemory(ordinary)
    for loss in (
        lambda b, sample: b(sample[None]).square().sum(),
        lambda b, sample: b.forward_and_log_det(sample[None])[1].sum(),
    ):
        found = torch.func.vmap(torch.func.grad(lambda sample, loss=loss: loss(module, sample)))(x)
        wanted = torch.func.vmap(torch.func.grad(lambda sample, loss=loss: loss(ordinary, sample)))(x)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_parameters_that_are_functions_of_others() -> None:
    """functional_call puts other tensors in the place of the weights: backward must use those, not the module's."""
    ordinary, x = chain(), tokens()
    module, scale, found = ConstantMemory(ordinary), torch.tensor(1.5, dtype=torch.float64, requires_grad=True), []
    for own in (ordinary, module):
        values = {name: scale * value.detach() for name, value in own.named_parameters()}
        z = torch.func.functional_call(own, values, (x,))
        found.append(torch.autograd.grad(z.square().sum(), scale)[0])
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=0)


def test_inverses_chains_and_constant_memory_inside_a_chain() -> None:
    first, second, third = chain(3, estimator=Exact()).parts()
    ordinary, x = Composed([first, Inverse(second), Composed([third, first])]), tokens()
    nested = Composed([first, ConstantMemory(Composed([Inverse(second), third])), first])
    wanted = list(trained(ordinary, x).values())
    for bijection in (ConstantMemory(ordinary), ConstantMemory(nested), nested):
        for found, value in zip(trained(bijection, x).values(), wanted, strict=True):
            torch.testing.assert_close(found, value, rtol=1e-8, atol=1e-9)
    assert_equal(trained(ConstantMemory(second), x), trained(second, x))


def test_everything_else_is_the_bijections() -> None:
    ordinary, x = chain(), tokens()
    module, block = ConstantMemory(ordinary), ordinary.parts()[0]
    assert (module.certified, module.norm) == (True, "inf,2")
    shape = (TOKENS, CHANNELS)
    assert module.bi_lipschitz(shape) == ordinary.bi_lipschitz(shape)
    assert ConstantMemory(block).lipschitz_bound() == block.lipschitz_bound()
    assert ConstantMemory(block).branch is block.branch
    squeeze = ConstantMemory(Squeeze(2))
    assert squeeze.output_shape((1, 4, 4)) == (4, 2, 2)
    assert squeeze.input_shape((4, 2, 2)) == (1, 4, 4)
    assert torch.equal(module.solve(x).value, ordinary.solve(x).value)
    assert module.parts() == (module,)
    twin = copy.deepcopy(module)
    twin.load_state_dict(module.state_dict())
    assert_equal(trained(twin, x), trained(module, x))
    assert "keep_every=3" in repr(ConstantMemory(ordinary, keep_every=3))


def test_numbers_out_of_range() -> None:
    with pytest.raises(ValueError, match="keep_every must be at least 1"):
        ConstantMemory(Squeeze(2), keep_every=0)
    with pytest.raises(ValueError, match="drift_limit must be positive"):
        ConstantMemory(Squeeze(2), drift_limit=0.0)
