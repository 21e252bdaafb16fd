from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from invattn import KINDS, RECIPES, invertible_attention
from invattn.branches import Branch, CertifiedAttention
from invattn.testing import dense_jacobian
from invattn.testing.adversary import STARTS, Stretch, largest_ratio, separate_channels


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
    if kind == "gaussian" and recipe.startswith("released"):
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


def test_bad_arguments_are_refused() -> None:
    branch = branch_of("gaussian")
    with pytest.raises(ValueError, match="Did you mean 'structured'"):
        largest_ratio(branch, tokens=2, starts=("structurd",))
    with pytest.raises(ValueError, match="must not be empty"):
        largest_ratio(branch, tokens=0)
    narrow = branch_of("gaussian", channels=2)
    assert isinstance(narrow, CertifiedAttention)
    with pytest.raises(ValueError, match="at least 3 channels"):
        separate_channels(narrow)
