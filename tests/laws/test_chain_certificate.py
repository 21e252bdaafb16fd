"""The bound of certified convolutions and MLPs: recomputed, equal to c, attained, and composed into a whole network."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from invattn import invertible_attention
from invattn.bijections import Composed, ResidualBijection, Squeeze
from invattn.branches import Branch, CertifiedConvolution, CertifiedMLP, Padding
from invattn.lipschitz import ACTIVATIONS
from invattn.norms import NORMS
from invattn.testing import dense_jacobian

from .registry import CHAINS, ChainCase, randomise, seeded

every_chain = pytest.mark.parametrize("case", CHAINS, ids=str)


def weights_of(branch: Branch) -> list[Tensor]:
    state = branch.state_dict()
    return [state[f"layers.{i}.weight"].double() for i in range(sum(name.endswith("weight") for name in state))]


def constants_of(branch: Branch) -> float:
    return math.prod(part.lipschitz for part in getattr(branch, "activations"))  # noqa: B009


def true_norms(branch: Branch, shape: tuple[int, ...], norm: str) -> list[float]:
    """Each linear part's own norm: dense in "2", the sum over taps in "inf,2"."""
    found = []
    for weight in weights_of(branch):
        if weight.dim() == 2:
            found.append(float(torch.linalg.svdvals(weight)[0]))
        elif norm == "inf,2":
            found.append(float(torch.linalg.svdvals(weight.permute(2, 3, 0, 1))[..., 0].sum()))
        else:
            part = CertifiedConvolution(channels=1, padding=getattr(branch, "padding"), norm=norm)  # noqa: B009
            matrix = dense_matrix(weight, shape[1:], part.padding.mode)
            found.append(float(torch.linalg.svdvals(matrix)[0]))
    return found


def dense_matrix(weight: Tensor, grid: tuple[int, ...], padding: str) -> Tensor:
    """The operator's matrix, entry by entry."""
    out, inside, rows, columns = weight.shape
    matrix = torch.zeros(out, *grid, inside, *grid, dtype=torch.float64)
    for h in range(grid[0]):
        for w in range(grid[1]):
            for a in range(rows):
                for b in range(columns):
                    y, x = h + a - rows // 2, w + b - columns // 2
                    if padding == "circular":
                        y, x = y % grid[0], x % grid[1]
                    if 0 <= y < grid[0] and 0 <= x < grid[1]:
                        matrix[:, h, w, :, y, x] += weight[:, :, a, b]
    return matrix.reshape(out * grid[0] * grid[1], -1)


@pytest.mark.parametrize("lipschitz", [0.3, 0.9])
@every_chain
def test_the_bound_is_the_product_of_the_layers_and_equals_c_within_its_margin(
    case: ChainCase, lipschitz: float
) -> None:
    branch = case.branch(seed=1, lipschitz=lipschitz)
    bound = branch.lipschitz_bound()
    assert lipschitz * (1 - 3e-5) <= bound.value <= lipschitz
    assert bound.value == pytest.approx(math.prod(bound.factors.values()), rel=1e-12)
    norms = true_norms(branch, tuple(case.inputs(1).shape[1:]), bound.norm)
    count = len(norms)
    stated = [bound.factors[f"layer_{i}.norm"] for i in range(1, count + 1)]
    for truth, upper in zip(norms[:-1], stated[:-1], strict=True):  # the last one is stated as it is scaled
        assert truth <= upper * (1 + 1e-12)
    for i in range(1, count + 1):
        assert f"_{i}|" in bound.derivation
    assert str(bound).startswith(f"Lip <= {bound.value:.6g} in |.|_{{{bound.norm}}}: |")


@every_chain
def test_small_weights_keep_their_own_bound(case: ChainCase) -> None:
    branch = case.branch(seed=2)
    with torch.no_grad():
        for layer in getattr(branch, "layers"):  # noqa: B009
            layer.weight.mul_(1e-2)
    bound = branch.lipschitz_bound()
    assert bound.value < 0.05
    truth = math.prod(true_norms(branch, tuple(case.inputs(1).shape[1:]), bound.norm)) * constants_of(branch)
    assert truth <= bound.value
    if not isinstance(branch, CertifiedConvolution) or branch.padding.mode == "circular" or bound.norm == "inf,2":
        assert bound.value == pytest.approx(truth * (1 + 1e-5), rel=1e-9)


@every_chain
def test_biases_do_not_matter(case: ChainCase) -> None:
    branch = case.branch(seed=3)
    bound = branch.lipschitz_bound()
    with torch.no_grad():
        for name, parameter in branch.named_parameters():
            if name.endswith(("bias", "beta")):
                parameter.normal_(generator=seeded(4)).mul_(100)
    assert branch.lipschitz_bound() == bound


@every_chain
def test_the_bound_holds_after_every_optimiser_step_in_single_precision(case: ChainCase) -> None:
    block = case.block(seed=5, dtype=torch.float32).train()
    x = case.inputs(dtype=torch.float32)
    target = torch.randn(x.shape, generator=seeded(6))
    for optimizer in (torch.optim.SGD(block.parameters(), lr=3.0), torch.optim.Adam(block.parameters(), lr=0.3)):
        for _ in range(4):
            optimizer.zero_grad()
            (block(x) - target).square().mean().backward()
            optimizer.step()
            assert block.lipschitz_bound().value <= 0.9


@every_chain
def test_the_scale_has_a_gradient(case: ChainCase) -> None:
    """Doubling every weight of the last layer changes nothing where the budget binds: the gradient along it is 0."""
    branch = case.branch(seed=7)
    x = case.inputs()
    branch(x).square().sum().backward()
    last = getattr(branch, "layers")[-1].weight  # noqa: B009
    along = float((last.grad * last.detach()).sum())
    assert abs(along) <= 1e-9 * float(last.grad.norm() * last.detach().norm())


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "tanh", "lipswish"])
@pytest.mark.parametrize("kind", ["mlp", "convolution", "circular"])
def test_the_bound_is_nearly_attained_by_aligned_layers(kind: str, name: str) -> None:
    """Orthogonal maps, and biases that put every activation where it is steepest: nothing is lost but the padding."""
    width = 4
    steepest = {"relu": 3.0, "leaky_relu": 3.0, "tanh": 0.0, "lipswish": 2.399357280515468 / math.log1p(math.exp(0.5))}
    branch: Branch
    if kind == "mlp":
        branch, shape = CertifiedMLP(channels=width, hidden_channels=(width,), activation=name), (width,)
    else:
        padding = Padding("circular" if kind == "circular" else "zero", grid=(6, 6))
        branch = CertifiedConvolution(
            channels=width, hidden_channels=width, kernel_sizes=(3, 1), activation=name, padding=padding
        )
        shape = (width, 6, 6)
    randomise(branch.double(), 8)
    with torch.no_grad():
        for layer in getattr(branch, "layers"):  # noqa: B009
            matrix = torch.linalg.qr(torch.randn(width, width, dtype=torch.float64, generator=seeded(9)))[0]
            layer.weight.zero_()
            if layer.weight.dim() == 2:
                layer.weight.copy_(3 * matrix)
            else:
                layer.weight[:, :, layer.weight.shape[2] // 2, 0] = 3 * matrix
            layer.bias.fill_(steepest[name])
        for activation in getattr(branch, "activations"):  # noqa: B009
            for parameter in activation.parameters():
                parameter.fill_(0.5)
    x = torch.zeros(1, *shape, dtype=torch.float64)
    attained = float(torch.linalg.svdvals(dense_jacobian(branch, x))[0, 0])
    bound = branch.lipschitz_bound().value
    assert attained <= bound
    assert attained >= 0.999 * bound


def residual_network() -> Composed:
    """A whole i-ResNet on 8 x 8 images of one channel, with attention between its convolutions."""
    torch.manual_seed(10)
    before = CertifiedConvolution(channels=1, hidden_channels=4, padding=Padding(grid=(8, 8)))
    after = CertifiedConvolution(channels=4, hidden_channels=8, activate_first=True, activation="elu")
    circular = CertifiedConvolution(channels=16, hidden_channels=8, padding=Padding("circular", grid=(2, 2)))
    attention = invertible_attention(4, kind="dot_product", num_heads=2)
    chain = Composed(
        [
            ResidualBijection(before),
            Squeeze(2),
            ResidualBijection(after),
            attention,
            Squeeze(2),
            ResidualBijection(circular),
        ]
    ).double()
    randomise(chain, 11)
    return chain.eval()


def test_a_whole_residual_network_is_certified() -> None:
    chain, shape = residual_network(), (1, 8, 8)
    assert chain.certified
    assert chain.norm == "2"
    constants = chain.bi_lipschitz(shape)
    assert constants.norm_in == "2"
    assert 0 < constants.lower < 1 < constants.upper
    text = constants.derivation
    assert text.count("x + g(x)") == 4
    assert text.count("squeeze by 2") == 2
    for words in ("the whole operator on 8 x 8", "every grid", "circular grid 2 x 2", "Theorem R"):
        assert words in text
    before, after = NORMS[constants.norm_in], NORMS[constants.norm_out]
    with torch.no_grad():
        for scale in (1e-3, 1.0, 30.0):
            x, y = scale * torch.randn(2, 10, *shape, dtype=torch.float64, generator=seeded(12))
            ratio = after(chain(x) - chain(y)) / before(x - y)
            assert (ratio <= constants.upper).all()
            assert (ratio >= constants.lower).all()
            solution = chain.solve(chain(x))
            assert solution.converged.all()
            assert solution.error_bound is not None
            assert (before(solution.value - x) <= solution.error_bound).all()
            assert float((solution.value - x).abs().max()) <= 1e-9 * max(1.0, scale)


def test_a_residual_network_trains_and_stays_certified() -> None:
    chain = residual_network().float().train()
    x = torch.rand(8, 1, 8, 8, generator=seeded(13))
    target = torch.rand(8, 16, 2, 2, generator=seeded(14))
    optimizer = torch.optim.Adam(chain.parameters(), lr=0.01)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = (chain(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert chain.bi_lipschitz((1, 8, 8)).lower > 0
    with torch.no_grad():
        assert float((chain.inverse(chain(x)) - x).abs().max()) < 1e-4


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
@every_chain
def test_forward_compiles_in_one_piece(case: ChainCase) -> None:
    """Traced by torch.compile without its code generator, which would need a C++ compiler."""
    block, x = case.block(seed=15), case.inputs()
    compiled = torch.compile(copy.deepcopy(block), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), block(x), rtol=1e-12, atol=1e-12)


@every_chain
def test_autocast_runs_and_stays_near(case: ChainCase) -> None:
    block, x = case.block(seed=16, dtype=torch.float32), case.inputs(dtype=torch.float32)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        rough = block(x)
    with torch.no_grad():
        assert float((rough.float() - block(x)).abs().max()) < 0.2


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_every_activation_inverts(activation: str) -> None:
    branch = CertifiedConvolution(channels=2, hidden_channels=3, activation=activation, padding=Padding(grid=(3, 4)))
    block = ResidualBijection(branch).double().eval()
    randomise(block, 17)
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, generator=seeded(18))
    with torch.no_grad():
        assert float((block.inverse(block(x)) - x).abs().max()) <= 1e-10
