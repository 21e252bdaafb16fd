"""The local Lipschitz ratio against dense Jacobians in both norms, and where the worst point is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from invattn import KINDS, invertible_attention
from invattn.branches import Branch
from invattn.diagnosis import Ascent, local_stretch
from invattn.testing import dense_jacobian


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Bump(Branch):
    """g(x) = 2 tanh(x): its slope is 2 at 0 and falls to both sides."""

    channels = 1

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x.tanh()


def operator_norm(jacobian: Tensor, tokens: int) -> Tensor:
    """|J|_{inf,2} from many directions: a lower estimate that random search improves on, shape (B,)."""
    batch, size, _ = jacobian.shape
    directions = torch.randn(4000, tokens, size // tokens, dtype=torch.float64, generator=seeded(9))
    directions = (directions / directions.norm(dim=-1, keepdim=True)).flatten(1)
    images = torch.einsum("bij,kj->bki", jacobian, directions).view(batch, 4000, tokens, -1)
    return images.norm(dim=-1).amax(dim=(1, 2))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recipe", ["certified", "paper"])
def test_at_a_point_it_is_the_norm_of_the_jacobian(kind: str, recipe: str) -> None:
    branch = invertible_attention(4, kind=kind, recipe=recipe, layout="tokens").double().branch.eval()
    x = torch.randn(3, 5, 4, dtype=torch.float64, generator=seeded(1))
    jacobian = dense_jacobian(branch, x)
    still = Ascent(radius=0.0, steps=20, restarts=8)
    euclidean = local_stretch(branch, x, norm="2", ascent=still, generator=seeded())
    assert torch.allclose(euclidean, torch.linalg.matrix_norm(jacobian, 2), rtol=1e-2)
    by_token = local_stretch(branch, x, norm="inf,2", ascent=still, generator=seeded())
    rows = jacobian.view(3, 5, 4, 5, 4).permute(0, 1, 3, 2, 4)
    ceiling = torch.linalg.matrix_norm(rows, 2).sum(dim=2).amax(dim=1)  # the blocks of a token, added up
    assert bool((by_token <= ceiling * (1 + 1e-9)).all())
    assert bool((by_token >= 0.9 * operator_norm(jacobian, 5)).all())


def test_the_ascent_climbs_to_the_steepest_point_in_reach() -> None:
    x = torch.tensor([0.5, 3.0], dtype=torch.float64).view(2, 1, 1)
    slope = (2 / torch.cosh(x) ** 2).flatten()
    assert torch.allclose(local_stretch(Bump(), x, ascent=Ascent(steps=0, restarts=1), generator=seeded()), slope)
    wide = local_stretch(Bump(), x, ascent=Ascent(radius=1.5, steps=40, rate=0.1), generator=seeded())
    assert float(wide[0]) == pytest.approx(2.0, abs=1e-2)
    near = local_stretch(Bump(), x, ascent=Ascent(radius=0.1, steps=40), generator=seeded())
    expected = torch.tensor([2 / math.cosh(0.45) ** 2, 2 / math.cosh(2.7) ** 2], dtype=torch.float64)
    assert torch.allclose(near, expected, rtol=1e-6)


def test_images_are_measured_by_pixel() -> None:
    class Mixes(Branch):
        channels = 2

        def check_input(self, x: Tensor) -> None:
            assert x.dim() == 4

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([3 * x[:, 0] + 4 * x[:, 1], x[:, 0] - x[:, 0]], dim=1)

    ratio = local_stretch(Mixes(), torch.zeros(1, 2, 2, 3, dtype=torch.float64), generator=seeded())
    assert float(ratio) == pytest.approx(5.0)


def test_weights_and_their_gradients_stay() -> None:
    branch = invertible_attention(4, kind="gaussian", recipe="paper", layout="tokens").double().branch
    before = {name: value.clone() for name, value in branch.state_dict().items()}
    local_stretch(branch, torch.randn(2, 3, 4, dtype=torch.float64), generator=seeded())
    assert branch.training
    assert all(torch.equal(value, before[name]) for name, value in branch.state_dict().items())
    assert all(parameter.grad is None for parameter in branch.parameters())


@pytest.mark.parametrize("options", [{"radius": -1.0}, {"steps": -1}, {"rate": 0.0}, {"restarts": 0}])
def test_impossible_ascents_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        Ascent(**options)  # type: ignore[arg-type]
