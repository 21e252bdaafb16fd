"""What certified convolutions and MLPs refuse, and how they present themselves."""

from __future__ import annotations

import pytest
import torch

from invattn.bijections import ResidualBijection
from invattn.branches import CertifiedConvolution, CertifiedMLP, Padding


@pytest.mark.parametrize("lipschitz", [0.0, 1.0, -0.5, float("nan")])
def test_a_coefficient_out_of_range_is_refused(lipschitz: float) -> None:
    for kind in (CertifiedConvolution, CertifiedMLP):
        with pytest.raises(ValueError, match="strictly between 0 and 1"):
            kind(channels=2, lipschitz=lipschitz)


def test_names_and_kernels_are_checked() -> None:
    for kind in (CertifiedConvolution, CertifiedMLP):
        with pytest.raises(ValueError, match="Did you mean 'softplus'"):
            kind(channels=2, activation="softpluss")
        with pytest.raises(ValueError, match="unknown norm"):
            kind(channels=2, norm="1")
    for sizes in ((), (3, 2), (0,)):
        with pytest.raises(ValueError, match="kernel_sizes must be odd"):
            CertifiedConvolution(channels=2, kernel_sizes=sizes)
    with pytest.raises(ValueError, match="Did you mean 'circular'"):
        Padding("circula")
    with pytest.raises(ValueError, match="both at least 1"):
        Padding(grid=(0, 4))


def test_images_of_another_form_are_refused() -> None:
    block = ResidualBijection(CertifiedConvolution(channels=3, hidden_channels=2))
    for shape in ((2, 3, 4), (2, 4, 5, 5), (3, 5, 5)):
        for call in (block, block.solve, block.inverse):
            with pytest.raises(ValueError, match=r"images must have shape \(B, 3, H, W\); got"):
                call(torch.zeros(shape))
    with pytest.raises(TypeError, match=r"int64. Convert them first: x.float\(\)"):
        block(torch.zeros(1, 3, 2, 2, dtype=torch.long))


def test_tokens_of_another_form_are_refused() -> None:
    block = ResidualBijection(CertifiedMLP(channels=3, hidden_channels=(2,)))
    for shape in ((3,), (2, 4), (2, 5, 4), (1, 2, 3, 3)):
        for call in (block, block.solve, block.inverse):
            with pytest.raises(ValueError, match=r"tokens must have shape \(B, N, 3\), vectors \(B, 3\); got"):
                call(torch.zeros(shape))
    with pytest.raises(TypeError, match=r"int64. Convert them first: x.float\(\)"):
        block(torch.zeros(1, 3, dtype=torch.long))


def test_a_grid_that_the_certificate_does_not_cover_is_refused() -> None:
    zero = CertifiedConvolution(channels=1, hidden_channels=2, padding=Padding(grid=(4, 5)))
    for size in ((4, 5), (3, 5), (1, 1)):
        assert zero(torch.zeros(1, 1, *size)).shape == (1, 1, *size)
    for size in ((5, 5), (4, 6)):
        with pytest.raises(ValueError, match=r"at most \(4, 5\) pixels; got .*grid=None"):
            zero(torch.zeros(1, 1, *size))
    circular = CertifiedConvolution(channels=1, hidden_channels=2, padding=Padding("circular", grid=(4, 5)))
    assert circular(torch.zeros(1, 1, 4, 5)).shape == (1, 1, 4, 5)
    for size in ((5, 5), (3, 5), (2, 2)):
        with pytest.raises(ValueError, match=r"exactly \(4, 5\) pixels; got .*grid=None"):
            circular(torch.zeros(1, 1, *size))
    for mode in ("zero", "circular"):
        anything = CertifiedConvolution(channels=1, hidden_channels=2, padding=Padding(mode))
        assert anything(torch.zeros(1, 1, 7, 2)).shape == (1, 1, 7, 2)


def test_layers_and_activations_alternate() -> None:
    """With every map the identity, what is left is the activation: once without it first, twice with it."""
    for first, times in ((False, 1), (True, 2)):
        mlp = CertifiedMLP(channels=2, hidden_channels=(2,), activation="sin", activate_first=first)
        convolution = CertifiedConvolution(
            channels=2, hidden_channels=2, kernel_sizes=(3, 1), activation="sin", activate_first=first
        )
        with torch.no_grad():
            for branch in (mlp, convolution):
                for layer in branch.layers:
                    layer.bias.zero_()
                    layer.weight.zero_()
                    taps = layer.weight.view(2, 2, -1)
                    taps[:, :, taps.shape[2] // 2] = torch.eye(2)
        x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
        expected = x
        for _ in range(times):
            expected = expected.sin()
        torch.testing.assert_close(mlp(x).detach() / 0.9, expected, rtol=1e-4, atol=1e-4)
        image = convolution(x[:, :, None, None]).detach()[..., 0, 0] / 0.9
        torch.testing.assert_close(image, expected, rtol=0.01, atol=0.01)  # the bound on every grid takes 0.9 %


def test_a_single_linear_map_has_its_own_norm() -> None:
    branch = CertifiedMLP(channels=3, hidden_channels=(), lipschitz=0.5).double()
    matrix = branch.layers[0].weight.detach()
    x = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    scale = min(1.0, 0.5 / ((1 + 2e-5) * float(torch.linalg.matrix_norm(matrix, 2))))
    torch.testing.assert_close(branch(x).detach(), x @ matrix.mT * scale + branch.layers[0].bias.detach())


def test_a_certificate_names_layers_methods_and_activations() -> None:
    branch = CertifiedConvolution(channels=4, hidden_channels=3, padding=Padding(grid=(8, 8)), activate_first=True)
    bound = branch.lipschitz_bound()
    assert bound.derivation.startswith("|K_1| |K_2| |K_3| a_1 a_2 a_3 = ")
    assert "rounding margin 1e-05; |K_1|: 3 x 3, zeros around 8 x 8, exact at every frequency" in bound.derivation
    assert bound.derivation.endswith("a_3: lipswish")
    assert list(bound.factors) == [
        "layer_1.norm",
        "layer_2.norm",
        "layer_3.norm",
        "activation_1.lipschitz",
        "activation_2.lipschitz",
        "activation_3.lipschitz",
        "rounding",
    ]
    tokens = CertifiedConvolution(channels=4, norm="inf,2").lipschitz_bound()
    assert "|K_1|: 3 x 3, sum of the norms of its taps" in tokens.derivation
    assert (branch.kind, CertifiedMLP(channels=4).kind) == ("convolution", "MLP")
    text = repr(branch)
    assert "channels=4, Padding(mode='zero', grid=(8, 8)), lipschitz=0.9, norm='2'" in text
    assert "channels=4, lipschitz=0.9, norm='inf,2'" in repr(CertifiedMLP(channels=4))


def test_the_weights_of_a_solve_are_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An inverse of 10 steps needs the norms for its bound and for its steps, not once a step."""
    branch = CertifiedConvolution(channels=1, hidden_channels=2, padding=Padding(grid=(3, 3))).double()
    calls = []
    plain = CertifiedConvolution._norm
    monkeypatch.setattr(CertifiedConvolution, "_norm", lambda self, weight: calls.append(0) or plain(self, weight))
    with torch.no_grad():
        solution = ResidualBijection(branch).solve(torch.ones(1, 1, 3, 3, dtype=torch.float64))
    assert int(solution.num_steps.max()) >= 5
    assert len(calls) <= 3 * 3
