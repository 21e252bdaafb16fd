"""The bound of a certified block: recomputed, attained where it can be, and untouched by what must not matter."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from invattn import CertificateError, invertible_attention
from invattn.branches import Branch
from invattn.recipes import Certified, Recipe, Strict
from invattn.testing import dense_jacobian

from .registry import (
    CERTIFIED,
    CHANNELS,
    RELAXED,
    SOME_CERTIFIED,
    TOKENS,
    BlockCase,
    random_tokens,
    randomise,
    seeded,
)


def norm(matrix: Tensor) -> Tensor:
    """The largest singular value, by a full decomposition in double precision."""
    largest: Tensor = torch.linalg.svdvals(matrix.detach().double())[..., 0]
    return largest


def size(tokens: Tensor) -> Tensor:
    return tokens.detach().double().square().sum(dim=2).sqrt().amax(dim=1)


def theorem(branch: Branch, *, heads: int, lipschitz: float, ratio: float | None = 2.0) -> dict[str, float]:
    """Theorems R (a ratio) or 1 (none) and H, from the printed formulas and the state_dict alone: bound and factors."""
    state = {name: tensor.double() for name, tensor in branch.state_dict().items()}
    value = state["value.weight"].chunk(heads)
    output = state["output.weight"]
    constants = []
    factors: dict[str, float] = {}
    for h in range(heads):
        V = norm(value[h])
        if "score.mix.0.weight" in state:
            first, second = state[f"score.mix.{h}.weight"].chunk(2, dim=1)
            a = norm(first @ state["score.query.weight"].chunk(heads)[h])
            b = norm(second @ state["score.key.weight"].chunk(heads)[h])
            sensitivity = torch.maximum(b, (a + b) / 2) if ratio else a + b
        elif "score.query.weight" in state:
            a, b = (norm(state[f"score.{part}.weight"].chunk(heads)[h]) for part in ("query", "key"))
            sensitivity = torch.maximum(a, b) if ratio else a + b
        else:
            sensitivity = torch.tensor(1.0 if ratio else 2.0, dtype=torch.float64)
        alpha = ratio * V / sensitivity if ratio else torch.ones_like(V)
        R = alpha * sensitivity
        u = torch.clamp(R / (2 * V), max=1)  # the maximiser of V (1 - u^2) + R u over [0, 1]
        constants.append(V * (1 - u**2) + R * u if ratio else 1 * V + 1 * R)
        names = {"V": V, "R": R} if ratio else {"mu_R": 1.0, "c_F": V, "mu_F": 1.0, "c_R": R}
        for name, number in (names | {"alpha": alpha, "F": constants[-1]}).items():
            factors[f"head_{h}.{name}"] = float(number)
    F = torch.stack(constants)
    pieces = torch.stack([norm(piece) for piece in output.chunk(heads, dim=1)])
    whole = torch.minimum(norm(output) * F.square().sum().sqrt(), (pieces * F).sum())
    scale = min(1.0, lipschitz / ((1 + 2e-5) * float(whole)))
    factors["output_norm"] = scale * float(norm(output))
    return factors | {"bound": float(whole) * scale * (1 + 1e-5), "rounding": 1 + 1e-5}


def theorem_of(case: BlockCase, branch: Branch, lipschitz: float = 0.9) -> dict[str, float]:
    if case.kind != "pointwise":
        ratio = None if case.recipe == "strict" else 2.0
        return theorem(branch, heads=case.num_heads, lipschitz=lipschitz, ratio=ratio)
    output, value = (float(norm(branch.state_dict()[f"{part}.weight"])) for part in ("output", "value"))
    scale = min(1.0, lipschitz / ((1 + 2e-5) * output * value))
    factors = {"output_norm": scale * output, "value_norm": value, "rounding": 1 + 1e-5}
    return factors | {"bound": scale * output * value * (1 + 1e-5)}


@pytest.mark.parametrize("lipschitz", [0.3, 0.9])
@pytest.mark.parametrize("case", CERTIFIED, ids=str)
def test_the_bound_is_the_theorem_and_equals_c_within_its_margin(case: BlockCase, lipschitz: float) -> None:
    branch = case.branch(seed=1, lipschitz=lipschitz)
    bound = branch.lipschitz_bound()
    assert bound.factors | {"bound": bound.value} == pytest.approx(theorem_of(case, branch, lipschitz), rel=1e-9)
    assert lipschitz * (1 - 3e-5) <= bound.value <= lipschitz
    assert bound.norm == "inf,2"
    assert str(bound).startswith(f"Lip <= {bound.value:.6g} in |.|_{{inf,2}}: ")


@pytest.mark.parametrize("case", CERTIFIED, ids=str)
def test_small_weights_keep_their_own_bound(case: BlockCase) -> None:
    branch = case.branch(seed=2)
    with torch.no_grad():
        branch.get_submodule("output").get_parameter("weight").mul_(1e-3)
    bound = branch.lipschitz_bound().value
    assert bound < 0.1
    assert bound == pytest.approx(theorem_of(case, branch)["bound"], rel=1e-9)


@pytest.mark.parametrize("ratio", [0.1, 1.0, 2.0, 5.0])
def test_any_ratio_is_certified(ratio: float) -> None:
    block = invertible_attention(
        4, kind="embedded_gaussian", recipe=Certified(ratio=ratio), num_heads=2, layout="tokens"
    )
    randomise(block.double(), 3)
    assert block.lipschitz_bound().value == pytest.approx(
        theorem(block.branch, heads=2, lipschitz=0.9, ratio=ratio)["bound"]
    )


@pytest.mark.parametrize("case", CERTIFIED, ids=str)
def test_biases_masks_position_logits_and_the_number_of_tokens_do_not_matter(case: BlockCase) -> None:
    branch = case.branch(seed=4)
    bound = branch.lipschitz_bound()
    with torch.no_grad():
        for name, parameter in branch.named_parameters():
            if name.endswith(("bias", "table")):
                parameter.normal_(generator=seeded(5)).mul_(100)
    assert branch.lipschitz_bound() == bound
    plain = BlockCase(case.kind, case.recipe, num_heads=case.num_heads).branch(tokens=17)
    plain.load_state_dict(branch.state_dict(), strict=False)
    assert plain.lipschitz_bound() == bound


@pytest.mark.parametrize("case", [case for case in SOME_CERTIFIED if case.recipe != "strict"], ids=str)
def test_the_bound_is_invariant_where_the_map_is(case: BlockCase) -> None:
    """(W_V, W_L) to (t W_V, W_L / t) only moves the radius of the values; (W_Q, W_K) to t (W_Q, W_K) only alpha."""
    branch, t = case.branch(seed=6), 7.0
    with torch.no_grad():
        branch.get_submodule("output").get_parameter("weight").mul_(1e-3)
        before = branch.lipschitz_bound().value
        branch.get_submodule("value").get_parameter("weight").mul_(t)
        branch.get_submodule("output").get_parameter("weight").div_(t)
        for name, parameter in branch.named_parameters():
            if name.startswith(("score.query", "score.key")):
                parameter.mul_(t)
    assert branch.lipschitz_bound().value == pytest.approx(before, rel=1e-12)


@pytest.mark.parametrize("case", SOME_CERTIFIED, ids=str)
def test_the_bound_holds_after_every_optimiser_step_in_single_precision(case: BlockCase) -> None:
    block = case.block(seed=7, dtype=torch.float32).train()
    x = random_tokens(dtype=torch.float32)
    target = torch.randn(x.shape, generator=seeded(8))
    for optimizer in (torch.optim.SGD(block.parameters(), lr=3.0), torch.optim.Adam(block.parameters(), lr=0.3)):
        for _ in range(4):
            optimizer.zero_grad()
            (block(x) - target).square().mean().backward()
            optimizer.step()
            assert block.lipschitz_bound().value <= 0.9
            # The weights as forward multiplies them, after their cast to float32.
            assert theorem_of(case, block.branch)["bound"] <= 0.9


@pytest.mark.parametrize("case", SOME_CERTIFIED, ids=str)
def test_eigenvalues_determinants_and_distances_at_all_scales(case: BlockCase) -> None:
    branch = case.branch(seed=9)
    lipschitz = branch.lipschitz_bound().value
    scales = torch.tensor([1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3], dtype=torch.float64)[:, None, None]
    x, y = scales * random_tokens(7, seed=1), scales * random_tokens(7, seed=2)
    jacobian = dense_jacobian(branch, x)
    assert float(torch.linalg.eigvals(jacobian).abs().max()) <= lipschitz
    identity = torch.eye(jacobian.shape[-1], dtype=torch.float64)
    assert torch.equal(torch.linalg.slogdet(identity + jacobian).sign, torch.ones(7, dtype=torch.float64))
    with torch.no_grad():
        ratio = size((x + branch(x)) - (y + branch(y))) / size(x - y)
    assert (ratio >= 1 - lipschitz).all()
    assert (ratio <= 1 + lipschitz).all()


@pytest.mark.parametrize("case", SOME_CERTIFIED, ids=str)
def test_the_branch_is_bounded(case: BlockCase) -> None:
    """Squashed values: |g(x)| <= |W_O| sqrt(H) + |b_L| at any x."""
    branch = case.branch(seed=10)
    state = branch.state_dict()
    limit = norm(state["output.weight"]) * math.sqrt(case.num_heads) + state["output.bias"].norm()
    for scale in (1.0, 1e8):
        with torch.no_grad():
            assert (size(branch(random_tokens(scale=scale))) <= limit).all()


@pytest.mark.parametrize("case", [case for case in CERTIFIED + RELAXED if case.sees == "masked"], ids=str)
def test_a_query_that_sees_nothing_gets_the_bias_alone(case: BlockCase) -> None:
    branch = case.branch(seed=11)
    mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool)
    mask[2] = False
    branch.get_submodule("visibility").mask = mask
    x = random_tokens().requires_grad_()
    image = branch(x)
    state = branch.state_dict()
    bias = state.get("output.bias", torch.zeros(CHANNELS, dtype=torch.float64))
    assert torch.equal(image[:, 2].detach(), bias.expand(3, CHANNELS))
    image.sum().backward()
    for tensor in (x, *branch.parameters()):
        assert tensor.grad is None or bool(tensor.grad.isfinite().all())
    assert not branch.attention_weights(x.detach())[:, :, 2].any()


CAUSAL = [
    *(case for case in CERTIFIED if case.sees == "causal"),
    # Column and total sums reach over later queries: only row sums keep a causal mask causal.
    *(case for case in RELAXED if case.sees == "causal" and case.recipe in ("released", "unconstrained")),
]


@pytest.mark.parametrize("case", CAUSAL, ids=str)
def test_a_causal_mask_makes_the_jacobian_block_lower_triangular(case: BlockCase) -> None:
    jacobian = dense_jacobian(case.branch(seed=12), random_tokens(2)).view(2, TOKENS, CHANNELS, TOKENS, CHANNELS)
    for i in range(TOKENS):
        assert not jacobian[:, i, :, i + 1 :].any()
        assert jacobian[:, i, :, : i + 1].abs().sum() > 0
    assert jacobian[:, TOKENS - 1, :, 0].abs().sum() > 0


@pytest.mark.parametrize("tokens", [4, 16, 64])
def test_one_key_for_all_makes_the_euclidean_norm_grow_and_the_inverse_converge(tokens: int) -> None:
    """Why the certificate has its own norm: |J|_2 = sqrt(N) L > 1, and yet f is a bijection with a quick inverse."""
    mask = torch.zeros(tokens, tokens, dtype=torch.bool)
    mask[:, 0] = True
    block = invertible_attention(4, kind="gaussian", recipe=Certified(ratio=1e-4), layout="tokens", mask=mask).double()
    randomise(block, 13)
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            parameter.zero_() if name.endswith("bias") else parameter.copy_(3 * torch.eye(4))
    lipschitz = block.lipschitz_bound().value
    (jacobian,) = dense_jacobian(block.branch, torch.zeros(1, tokens, 4, dtype=torch.float64))
    assert float(torch.linalg.matrix_norm(jacobian, 2)) == pytest.approx(math.sqrt(tokens) * lipschitz, rel=1e-3)
    assert float(torch.linalg.matrix_norm(jacobian, 2)) > 1
    x = random_tokens(2, tokens)
    with torch.no_grad():
        assert float((block.inverse(block(x)) - x).abs().max()) < 1e-10


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_the_root_of_the_number_of_heads_is_attained(heads: int) -> None:
    """Head h looks at the token h places on, all of them move: sqrt(H) cannot be dropped from Theorem H."""
    block = invertible_attention(
        4, kind="gaussian", num_heads=heads, layout="tokens", recipe=Certified(ratio=0.01, position_grid=(4,))
    ).double()
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            parameter.zero_()
            if name.endswith("weight"):
                parameter.copy_(5 * torch.eye(4))
            if name.endswith("table"):  # offsets i - j of -3 ... 3; the first token sees token h with head h
                parameter.copy_(torch.full((heads, 7), -60.0))
                for h in range(heads):
                    parameter[h, 3 - h] = 60.0
    x = torch.zeros(1, 4, 4, dtype=torch.float64)
    (jacobian,) = dense_jacobian(block.branch, x).view(1, 4, 4, 4, 4)
    # Token j moves along channels that head j reads, by a vector of length 1.
    step = torch.zeros(4, 4, dtype=torch.float64)
    for h in range(heads):
        step[h, h * (4 // heads)] = 1.0
    moved = torch.einsum("icjd,jd->ic", jacobian, step)
    lipschitz = block.lipschitz_bound().value
    assert 0.99 * lipschitz <= float(moved.norm(dim=1).max()) <= lipschitz


FAILURES = [
    # kind, W_L, query and key factors, S, D, f, det(I + J):
    # docs/theory.md, "What no constraint on the values alone can do"
    ("gaussian", -0.9, None, 3.0, 2.232428648257508, 0.285, -0.156275),
    ("embedded_gaussian", 0.9, (2.0, -2.0), 2.0, 1.547473947145906, 1.81, -4.0544),
    ("dot_product", 0.9, (2.0, -2.0), 2.0, 1.547473947145906, 1.81, -4.0544),
    ("concatenation", 0.9, (-2.0, -1.0), 2.0, 1.451503386854067, 1.81, -1.1222),
]


def failing_branch(recipe: str | Recipe, kind: str, output: float, factors: tuple[float, float] | None) -> Branch:
    """The branch of one row of the table, in any recipe."""
    block = invertible_attention(1, kind=kind, recipe=recipe, layout="tokens").double().eval()
    weights = {"value.weight": 0.9, "output.weight": output}
    if factors is not None:
        weights |= {"score.query.weight": factors[0], "score.key.weight": factors[1]}
    with torch.no_grad():
        for name, parameter in block.branch.named_parameters():
            parameter.fill_(weights.get(name, 1.0 if name.startswith("score.mix") else 0.0))
    return block.branch


@pytest.mark.parametrize("tokens", [2, 16])
@pytest.mark.parametrize(("kind", "output", "factors", "total", "gap", "common", "det"), FAILURES)
def test_the_papers_block_maps_three_inputs_to_one_output_and_the_proven_ones_do_not(
    kind: str,
    output: float,
    factors: tuple[float, float] | None,
    total: float,
    gap: float,
    common: float,
    det: float,
    tokens: int,
) -> None:
    pair = torch.tensor([(total + gap) / 2, (total - gap) / 2], dtype=torch.float64)
    inputs = torch.stack([pair, pair.flip(0), torch.full((2,), total / 2, dtype=torch.float64)])
    x = inputs.repeat(1, tokens // 2)[..., None]

    relaxed = failing_branch("paper", kind, output, factors)
    with torch.no_grad():
        z = x + relaxed(x)
    assert float((z - common).abs().max()) <= 1e-14
    assert float((x[0] - x[1]).abs().max()) > 1
    if tokens == 2:
        jacobian = dense_jacobian(relaxed, x[2:])
        assert float(torch.linalg.det(torch.eye(2) + jacobian[0])) == pytest.approx(det, rel=1e-4)
    with pytest.raises(CertificateError, match="maps two inputs to one output"):
        relaxed.lipschitz_bound()

    proven: tuple[Recipe, ...] = (Certified(), Strict())
    for recipe in proven:
        certified = failing_branch(recipe, kind, output, factors)
        with torch.no_grad():
            z = x + certified(x)
        for i, j in ((0, 1), (0, 2), (1, 2)):
            gap_kept = float((z[i] - z[j]).abs().max() / (x[i] - x[j]).abs().max())
            assert gap_kept >= 1 - certified.lipschitz_bound().value
        jacobian = dense_jacobian(certified, x)
        assert (torch.linalg.slogdet(torch.eye(tokens, dtype=torch.float64) + jacobian).sign > 0).all()
