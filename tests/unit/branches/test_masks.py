"""Masks and position logits."""

from __future__ import annotations

import pytest
import torch

from invattn.branches import RelativePositionLogits, Visibility

DEVICE = torch.device("cpu")


def test_no_mask_is_none_and_a_causal_one_is_a_triangle_of_any_size() -> None:
    assert Visibility()(4, DEVICE) is None
    for tokens in (1, 3, 6):
        expected = [[j <= i for j in range(tokens)] for i in range(tokens)]
        mask = Visibility(causal=True)(tokens, DEVICE)
        assert mask is not None
        assert mask.tolist() == expected


def test_a_mask_and_causality_are_combined() -> None:
    fixed = torch.tensor([[True, True], [False, True]])
    both = Visibility(mask=fixed, causal=True)(2, DEVICE)
    assert both is not None
    assert both.tolist() == [[True, False], [False, True]]


def test_the_mask_is_stored_with_the_weights_and_is_a_copy() -> None:
    fixed = torch.ones(2, 2, dtype=torch.bool)
    visibility = Visibility(mask=fixed)
    fixed[0, 0] = False
    assert visibility.state_dict()["mask"].all()
    assert Visibility().state_dict() == {}


@pytest.mark.parametrize(
    "mask", [torch.ones(2, 2), torch.ones(2, 3, dtype=torch.bool), torch.ones(4, dtype=torch.bool)]
)
def test_a_mask_of_another_form_is_refused(mask: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"boolean with shape \(N, N\)"):
        Visibility(mask=mask)


def test_a_mask_for_another_number_of_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="for 2 tokens; got 3"):
        Visibility(mask=torch.ones(2, 2, dtype=torch.bool))(3, DEVICE)


@pytest.mark.parametrize("grid", [(5,), (2, 3), (3, 2, 2)])
def test_a_logit_depends_on_the_offset_alone(grid: tuple[int, ...]) -> None:
    logits = RelativePositionLogits(grid=grid, num_heads=2)
    with torch.no_grad():
        logits.table.copy_(torch.arange(logits.table.numel()).view_as(logits.table))
    positions = torch.cartesian_prod(*(torch.arange(side) for side in grid)).view(-1, len(grid))
    tokens = len(positions)
    found = logits(tokens)
    assert found.shape == (2, tokens, tokens)
    by_offset: dict[tuple[int, ...], float] = {}
    for i in range(tokens):
        for j in range(tokens):
            offset = tuple((positions[i] - positions[j]).tolist())
            assert by_offset.setdefault(offset, float(found[1, i, j].detach())) == float(found[1, i, j].detach())
    assert len(set(by_offset.values())) == len(by_offset) == logits.table.shape[1]


def test_the_initial_logit_of_a_token_to_itself() -> None:
    found = RelativePositionLogits(grid=(2, 2), num_heads=3, self_logit=5.0)(4).detach()
    assert torch.equal(found, 5 * torch.eye(4).expand(3, 4, 4))


def test_another_number_of_tokens_or_an_empty_grid_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a grid of \(2, 2\); got 5 tokens"):
        RelativePositionLogits(grid=(2, 2), num_heads=1)(5)
    for grid in ((), (2, 0)):
        with pytest.raises(ValueError, match="positive sides"):
            RelativePositionLogits(grid=grid, num_heads=1)
