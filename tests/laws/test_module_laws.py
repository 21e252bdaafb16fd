"""What a block owes to torch as a module: state, copies, modes, devices' dtypes, gradients at batch 1, transforms."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor

from invattn import ConvergenceError
from invattn.bijections import Bijection
from invattn.logdet import Exact, LogDetEstimator, PowerSeries
from invattn.solvers import Adaptive

from .registry import (
    BRANCHES,
    CHAINS,
    EVERY_RECIPE_AND_KIND,
    SOME_CERTIFIED,
    AnyCase,
    BlockCase,
    random_images,
    random_tokens,
    seeded,
)

every_block = pytest.mark.parametrize("case", [*BRANCHES, *CHAINS], ids=str)
every_recipe_and_kind = pytest.mark.parametrize("case", [*EVERY_RECIPE_AND_KIND, *CHAINS], ids=str)
some_certified = pytest.mark.parametrize("case", [*SOME_CERTIFIED, *CHAINS], ids=str)


def state(block: Bijection) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in block.state_dict().items()}


def assert_same_state(block: Bijection, before: dict[str, Tensor]) -> None:
    after = block.state_dict()
    assert after.keys() == before.keys()
    changed = [name for name, tensor in before.items() if not torch.equal(tensor, after[name])]
    assert changed == []


@every_block
def test_a_fresh_instance_loads_the_state_before_any_forward(case: AnyCase) -> None:
    block, fresh = case.block(seed=1), case.block(random=False)
    assert not fresh.load_state_dict(block.state_dict()).missing_keys
    x = case.inputs()
    for mode in (True, False):
        assert torch.equal(fresh.train(mode)(x), block.train(mode)(x))


@every_block
def test_a_deep_copy_and_a_pickle_give_the_same_and_share_nothing(case: AnyCase) -> None:
    block, x = case.block(seed=2), case.inputs()
    with torch.no_grad():
        z = block(x)
        for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
            assert torch.equal(other(x), z)
            for parameter in other.parameters():
                parameter.add_(1)
        assert torch.equal(block(x), z)


@every_recipe_and_kind
def test_a_training_solve_inverse_and_log_det_change_no_buffer(case: AnyCase) -> None:
    block = case.block(seed=3, solver=Adaptive(max_steps=30)).train()
    x = case.inputs(scale=0.1)
    z = block(x).detach()
    before = state(block)
    block.solve(z)
    try:
        block.inverse(z.requires_grad_()).sum().backward()
    except ConvergenceError:
        assert not block.certified
    assert_same_state(block, before)
    with torch.no_grad():
        block.forward_and_log_det(x)
    assert_same_state(block, before)


@pytest.mark.parametrize("estimator", [Exact(), PowerSeries(terms=3)], ids=["exact", "power_series"])
@every_recipe_and_kind
def test_a_training_log_det_takes_one_step_of_power_iteration_like_forward(
    case: AnyCase, estimator: LogDetEstimator
) -> None:
    block, x = case.block(seed=4, log_det_estimator=estimator).train(), case.inputs()
    twin = copy.deepcopy(block)
    z, log_det = block.forward_and_log_det(x)
    assert torch.equal(z, twin(x))
    assert_same_state(block, state(twin))
    log_det.sum().backward()


@every_recipe_and_kind
def test_torch_func_transforms_agree_in_training_mode_and_change_no_buffer(case: AnyCase) -> None:
    block, x = case.block(seed=5).train(), case.inputs(2)
    before = state(block)
    _, along = torch.func.jvp(block, (x,), (x,))  # type: ignore[misc]
    _, pull = torch.func.vjp(block, x)  # type: ignore[misc]
    jacobian = torch.func.vmap(torch.func.jacrev(lambda sample: block(sample[None])[0]))(x)
    forward = torch.func.vmap(torch.func.jacfwd(lambda sample: block(sample[None])[0]))(x)
    torch.testing.assert_close(forward, jacobian, rtol=1e-9, atol=1e-9)
    matrix = jacobian.reshape(2, x[0].numel(), -1)
    pushed, pulled = matrix @ x.flatten(1)[..., None], matrix.mT @ x.flatten(1)[..., None]
    torch.testing.assert_close(pushed.view_as(x), along, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(pulled.view_as(x), pull(x)[0], rtol=1e-9, atol=1e-9)
    assert_same_state(block, before)


@every_recipe_and_kind
def test_functional_call_differentiates_the_parameters(case: AnyCase) -> None:
    block, x = case.block(seed=6), case.inputs()
    parameters: dict[str, Tensor] = dict(block.named_parameters())

    def loss(values: dict[str, Tensor]) -> Tensor:
        total: Tensor = torch.func.functional_call(block, values, (x,)).square().sum()
        return total

    found = torch.func.grad(loss)(parameters)
    block(x).square().sum().backward()
    for name, parameter in parameters.items():
        assert parameter.grad is not None
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-9, atol=1e-9)


@some_certified
def test_the_input_stays_as_it_was(case: AnyCase) -> None:
    block = case.block(seed=7, log_det_estimator=PowerSeries(terms=2))
    for required in (True, False):
        x = case.inputs().requires_grad_(required)
        kept = x.detach().clone()
        block(x)
        block.forward_and_log_det(x)
        block.inverse_and_log_det(x)
        block.solve(x)
        assert torch.equal(x, kept)
        assert x.requires_grad is required
        assert x.grad is None


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@some_certified
def test_nothing_is_recorded_without_gradients(case: AnyCase, context: type) -> None:
    block, x = case.block(seed=8, log_det_estimator=PowerSeries(terms=2)), case.inputs()
    with context():
        own = x.clone()  # an inference tensor, where the mode makes such
        for z, log_det in (block.forward_and_log_det(own), block.inverse_and_log_det(own)):
            assert not z.requires_grad
            assert not log_det.requires_grad
            assert log_det.shape == (3,)


@every_block
def test_a_batch_of_one_keeps_its_axis_and_its_gradient(case: AnyCase) -> None:
    block = case.block(seed=9, log_det_estimator=PowerSeries(terms=3, generator=seeded(0)))
    x = case.inputs(1).requires_grad_()
    z, log_det = block.forward_and_log_det(x)
    assert z.shape == x.shape
    assert log_det.shape == (1,)
    (z.square().sum() + log_det.sum()).backward()
    missing = [name for name, parameter in block.named_parameters() if parameter.grad is None]
    assert missing == []
    assert x.grad is not None
    assert all(
        bool(parameter.grad.isfinite().all()) for parameter in (x, *block.parameters()) if parameter.grad is not None
    )


@some_certified
def test_double_precision_is_kept(case: AnyCase) -> None:
    """The float64 result differs from the float32 one by float32's rounding, and itself has none of it."""
    block = case.block(seed=10, log_det_estimator=Exact())
    x = case.inputs()
    with torch.no_grad():
        z, log_det = block.forward_and_log_det(x)
        single, single_log_det = copy.deepcopy(block).float().forward_and_log_det(x.float())
        assert (z.dtype, log_det.dtype, single.dtype) == (torch.float64, torch.float64, torch.float32)
        assert 0 < float((single - z).abs().max()) < 1e-4
        assert float((single_log_det - log_det).abs().max()) < 1e-3
        assert float((block(x + 1e-12) - z).abs().max()) > 1e-14


@pytest.mark.parametrize("case", SOME_CERTIFIED, ids=str)
def test_an_image_is_its_tokens_in_row_major_order(case: BlockCase) -> None:
    image = random_images()
    block = case.block(grid=(3, 5), seed=11)
    tokens = torch.stack([image[:, :, row, column] for row in range(3) for column in range(5)], dim=1)
    inner = getattr(block, "tokens")  # noqa: B009
    with torch.no_grad():
        z, expected = block(image), inner(tokens)
    for row in range(3):
        for column in range(5):
            assert torch.equal(z[:, :, row, column], expected[:, row * 5 + column])


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("recipe", ["certified", "paper"])
def test_forward_compiles_in_one_piece_and_in_both_modes(recipe: str) -> None:
    """Traced by torch.compile without its code generator, which would need a C++ compiler."""
    block, x = BlockCase("dot_product", recipe, num_heads=2, sees="causal").block(seed=12), random_tokens()
    for mode in (True, False):
        block.train(mode)
        compiled = torch.compile(copy.deepcopy(block), backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), block(x), rtol=1e-12, atol=1e-12)


def test_autocast_runs_and_stays_near() -> None:
    block, x = BlockCase("embedded_gaussian").block(seed=13, dtype=torch.float32), random_tokens(dtype=torch.float32)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        rough = block(x)
    with torch.no_grad():
        assert float((rough.float() - block(x)).abs().max()) < 0.05
