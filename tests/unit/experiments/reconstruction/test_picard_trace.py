import pytest
import torch

from invattn import invertible_attention
from invattn.experiments.reconstruction.figures import picard_trace, query_maps, query_points
from invattn.solvers import Picard


@pytest.mark.parametrize("recipe", ["certified", "paper"])
def test_the_trace_is_that_of_the_solver(recipe: str) -> None:
    torch.manual_seed(0)
    block = (
        invertible_attention(6, kind="embedded_gaussian", recipe=recipe, solver=Picard(max_steps=4, early_stop=False))
        .double()
        .eval()
    )
    x = torch.randn(3, 6, 4, 2, dtype=torch.float64)
    trace = picard_trace(block, x, steps=4)
    solution = block.solve(block(x))
    assert trace.residual.shape == trace.error.shape == (5, 3)
    assert torch.allclose(trace.residual[-1], solution.residual, rtol=1e-6, atol=1e-15)
    assert torch.allclose(trace.error[-1], (solution.value - x).abs().flatten(1).amax(1), rtol=1e-6, atol=1e-15)


def test_a_certified_residual_falls_at_least_as_the_bound_says() -> None:
    torch.manual_seed(1)
    block = invertible_attention(6, kind="gaussian", lipschitz=0.5).double().eval()
    trace = picard_trace(block, torch.randn(2, 6, 3, 3, dtype=torch.float64), steps=20)
    assert (trace.residual[1:] <= 0.5 * trace.residual[:-1] + 1e-14).all()
    assert trace.error[-1].max() < 1e-5


def test_query_maps_are_rows_of_the_attention_map() -> None:
    torch.manual_seed(2)
    block = invertible_attention(4, kind="dot_product", num_heads=2).eval()
    image = torch.randn(1, 4, 4, 6)
    queries = query_points(4, 6)
    assert queries == [(1, 1), (1, 4), (3, 1), (3, 4)]
    maps = query_maps(block, image, queries=queries)
    dense = block.branch.attention_weights(image.flatten(2).transpose(1, 2)).mean(dim=1)[0]
    assert maps.shape == (4, 4, 6)
    assert torch.equal(maps[1].flatten(), dense[1 * 6 + 4])
    assert torch.allclose(maps.sum(dim=(1, 2)), torch.ones(4))
    assert not maps.requires_grad


def test_the_control_has_no_map() -> None:
    with pytest.raises(ValueError, match="no attention map"):
        query_maps(invertible_attention(4, kind="pointwise"), torch.randn(1, 4, 2, 2), queries=[(0, 0)])
