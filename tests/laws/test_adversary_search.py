from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from invattn import KINDS, RECIPES, invertible_attention
from invattn.branches import Branch, CertifiedAttention, CertifiedConvolution, CertifiedMLP, Padding
from invattn.norms import NORMS
from invattn.recipes import Certified
from invattn.testing import dense_jacobian

from .adversary import STARTS, Stretch, largest_ratio, separate_channels


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def branch_of(kind: str, recipe: str = "certified", channels: int = 6) -> Branch:
    return invertible_attention(channels, kind=kind, recipe=recipe, key_channels=2, layout="tokens").branch


def token_size(tokens: Tensor) -> float:
    return max(math.sqrt(sum(entry**2 for entry in token)) for token in tokens.detach().tolist())


def witnessed(found: Stretch, branch: Branch) -> float:
    """The ratio of the reported pair, or of the derivative along the reported direction."""
    if found.step > 0:
        with torch.no_grad():
            other = found.point + found.step * found.direction
            return token_size((branch(other[None]) - branch(found.point[None]))[0]) / token_size(other - found.point)
    jacobian = dense_jacobian(branch, found.point[None])[0]
    return token_size((jacobian @ found.direction.flatten()).view_as(found.point))


@pytest.mark.parametrize("starts", [STARTS, ("large",)])
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_ratio_is_that_of_its_witness(kind: str, recipe: str, starts: tuple[str, ...]) -> None:
    branch = branch_of(kind, recipe)
    found = largest_ratio(branch, tokens=3, restarts=3, steps=5, starts=starts, generator=seeded(1))
    if kind == "gaussian" and recipe == "released":
        assert found.ratio == 0  # the gate tanh(gamma) is 0 at the start
    if found.ratio == 0:
        assert recipe.startswith("released")  # the gate, or a map whose only weight lies elsewhere
        return
    assert token_size(found.direction) == pytest.approx(1.0, abs=1e-12)
    seen = witnessed(found, branch.double().eval())
    assert seen >= found.ratio * (1 - 1e-9)
    if found.step > 0:
        assert seen == pytest.approx(found.ratio, rel=1e-9)


def test_the_branch_is_left_as_it_is() -> None:
    branch = branch_of("dot_product", "released").train()
    before = {name: tensor.clone() for name, tensor in branch.state_dict().items()}
    largest_ratio(branch, tokens=2, restarts=2, steps=3, search_weights=True, generator=seeded(2))
    assert all(torch.equal(before[name], tensor) for name, tensor in branch.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in branch.parameters())
    assert branch.training
    assert next(branch.parameters()).dtype == torch.float32


def test_a_climb_never_ends_below_its_start_and_repeats_with_its_generator() -> None:
    branch = branch_of("embedded_gaussian")
    start, climbed, again = (
        largest_ratio(branch, tokens=4, restarts=3, steps=steps, generator=seeded(3)).ratio for steps in (0, 30, 30)
    )
    assert climbed > start
    assert climbed == again


def test_searched_weights_are_returned_with_the_ratio() -> None:
    branch = branch_of("embedded_gaussian")
    found = largest_ratio(branch, tokens=4, restarts=2, steps=10, search_weights=True, generator=seeded(4))
    assert not torch.equal(found.branch.value.weight, branch.value.weight.double())
    assert witnessed(found, found.branch) >= found.ratio * (1 - 1e-9)
    assert witnessed(found, branch.double()) < found.ratio


def test_separated_channels_are_disjoint_and_cover_all() -> None:
    branch = branch_of("embedded_gaussian", channels=7)
    assert isinstance(branch, CertifiedAttention)
    separate_channels(branch, generator=seeded(5))
    read = [part.weight.abs().sum(dim=0) > 0 for part in (branch.score.query, branch.score.key, branch.value)]
    assert torch.stack(read).sum(dim=0).tolist() == [1] * 7
    assert not branch.value.bias.any()


LAYOUTS = [
    (CertifiedConvolution(channels=2, hidden_channels=3, padding=Padding(grid=(3, 2))), (2, 3, 2)),
    (CertifiedConvolution(channels=2, hidden_channels=3, norm="inf,2", activation="tanh"), (2, 3, 2)),
    (CertifiedMLP(channels=3, hidden_channels=(4,)), (5, 3)),
    (CertifiedMLP(channels=3, hidden_channels=(4,), norm="2"), (5, 3)),
    (CertifiedMLP(channels=3, hidden_channels=(4,)), (3,)),
]


@pytest.mark.parametrize(("branch", "shape"), LAYOUTS)
def test_every_layout_and_norm_has_a_true_witness(branch: Branch, shape: tuple[int, ...]) -> None:
    found = largest_ratio(branch, shape=shape, restarts=3, steps=20, generator=seeded(6))
    norm = NORMS[branch.lipschitz_bound().norm]
    assert found.point.shape == found.direction.shape == shape
    assert float(norm(found.direction[None])) == pytest.approx(1.0, abs=1e-12)
    branch = copy.deepcopy(branch).double()
    if found.step > 0:
        other = found.point + found.step * found.direction
        moved = (branch(other[None]) - branch(found.point[None])).detach()
        assert float(norm(moved) / norm((other - found.point)[None])) == pytest.approx(found.ratio, rel=1e-9)
    else:
        jacobian = dense_jacobian(branch, found.point[None])[0]
        moved = (jacobian @ found.direction.flatten()).view(1, *shape)
        assert float(norm(moved)) >= found.ratio * (1 - 1e-9)
    assert 0 < found.ratio <= branch.lipschitz_bound().value


@pytest.mark.parametrize("norm", ["2", "inf,2"])
def test_the_search_reaches_the_norm_of_a_linear_convolution(norm: str) -> None:
    """One layer: Lip(g) is the operator's norm, which circular padding ("2") and the sum of taps ("inf,2") state."""
    padding = Padding("circular", grid=(3, 4))
    torch.manual_seed(7)
    branch = CertifiedConvolution(channels=1, kernel_sizes=(3,), padding=padding, norm=norm).double()
    with torch.no_grad():
        branch.layers[0].get_parameter("weight").mul_(10)
    found = largest_ratio(branch, shape=(1, 3, 4), restarts=4, steps=100, generator=seeded(8))
    bound = branch.lipschitz_bound().value
    assert 0.99 * bound <= found.ratio <= bound


def test_another_norm_can_be_asked_for() -> None:
    """In |.|_2 a row of attention to one key may exceed what is proven in |.|_{inf,2}."""
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[:, 0] = True
    torch.manual_seed(9)
    recipe = Certified(ratio=1e-3)
    branch = invertible_attention(4, kind="gaussian", recipe=recipe, layout="tokens", mask=mask).branch
    with torch.no_grad():
        branch.get_submodule("output").get_parameter("weight").mul_(10)
    own, other = (largest_ratio(branch, tokens=6, norm=norm, generator=seeded(10)).ratio for norm in (None, "2"))
    assert own <= branch.lipschitz_bound().value < 1 < other


def test_bad_arguments_are_refused() -> None:
    branch = branch_of("gaussian")
    with pytest.raises(ValueError, match="Did you mean 'structured'"):
        largest_ratio(branch, tokens=2, starts=("structurd",))
    with pytest.raises(ValueError, match="must not be empty"):
        largest_ratio(branch, tokens=0)
    for both in ({}, {"tokens": 2, "shape": (2, 6)}):
        with pytest.raises(ValueError, match="give tokens or shape, not both"):
            largest_ratio(branch, **both)  # type: ignore[arg-type]
    narrow = branch_of("gaussian", channels=2)
    assert isinstance(narrow, CertifiedAttention)
    with pytest.raises(ValueError, match="at least 3 channels"):
        separate_channels(narrow)
