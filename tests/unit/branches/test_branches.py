"""What branches and scores refuse, and how they present themselves."""

from __future__ import annotations

import pytest
import torch

from invattn import CertificateError, invertible_attention
from invattn.branches import Branch, CertifiedAttention, CertifiedPointwise, TanhGate, TheoremR, make_score
from invattn.functional import Response, get_kernel


def certified(**options: object) -> CertifiedAttention:
    kind = str(options.pop("kind", "embedded_gaussian"))
    response = options.pop("response", Response(get_kernel("exp")))
    assert isinstance(response, Response)
    score = make_score(kind, channels=4, key_channels=2, num_heads=1)
    return CertifiedAttention(score=score, channels=4, response=response, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "response",
    [
        Response(get_kernel("exp"), normalize="column"),
        Response(get_kernel("exp"), normalize="total"),
        Response(get_kernel("exp"), weight_sum=0.5),
        Response(get_kernel("relu")),
        Response(get_kernel("identity")),
    ],
)
def test_a_response_without_proof_is_refused(response: Response) -> None:
    with pytest.raises(ValueError, match="row normalisation, sum 1, and one of the kernels exp, elu"):
        certified(response=response)


def test_an_additive_score_in_exp_is_refused() -> None:
    with pytest.raises(ValueError, match="cancels the query"):
        certified(kind="concatenation", response=Response(get_kernel("exp"), additive=True))


@pytest.mark.parametrize("lipschitz", [0.0, 1.0, -0.5, 2.0, float("nan")])
def test_a_coefficient_out_of_range_is_refused(lipschitz: float) -> None:
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        certified(lipschitz=lipschitz)
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        CertifiedPointwise(channels=2, lipschitz=lipschitz)


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan")])
def test_a_ratio_that_is_not_positive_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="ratio must be positive"):
        certified(rule=TheoremR(ratio=ratio))


@pytest.mark.parametrize("recipe", ["certified", "paper"])
@pytest.mark.parametrize("kind", ["gaussian", "pointwise"])
def test_tokens_of_another_form_are_refused(recipe: str, kind: str) -> None:
    block = invertible_attention(4, kind=kind, recipe=recipe, layout="tokens")
    for shape in ((2, 5, 3), (5, 4), (1, 2, 5, 4)):
        for call in (block, block.solve, block.inverse):
            with pytest.raises(ValueError, match=r"tokens must have shape \(B, N, 4\); got"):
                call(torch.zeros(shape))
    with pytest.raises(TypeError, match=r"int64. Convert them first: x.float\(\)"):
        block(torch.zeros(1, 2, 4, dtype=torch.long))


def test_an_unknown_kind_names_the_nearest_and_heads_must_divide() -> None:
    with pytest.raises(ValueError, match=r"kind 'gausian'. Did you mean 'gaussian'\?"):
        make_score("gausian", channels=4, key_channels=1, num_heads=1)
    with pytest.raises(ValueError, match="4 channels cannot be divided among 3 heads"):
        make_score("gaussian", channels=4, key_channels=1, num_heads=3)


def test_the_pointwise_control_has_no_attention_map() -> None:
    block = invertible_attention(4, kind="pointwise", layout="tokens")
    with pytest.raises(ValueError, match="CertifiedPointwise has no attention map"):
        block.branch.attention_weights(torch.zeros(1, 2, 4))


def test_a_branch_has_no_certificate_unless_it_says_so() -> None:
    class Half(Branch):
        channels = 1

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / 2

    branch = Half()
    assert not branch.certified
    with pytest.raises(CertificateError, match="Half has no proven Lipschitz bound"):
        branch.lipschitz_bound()


def test_the_gate_starts_closed() -> None:
    gate = TanhGate()
    x = torch.ones(2)
    assert not gate(x).any()
    with torch.no_grad():
        gate.gamma.fill_(0.5)
    torch.testing.assert_close(gate(x).detach(), torch.tanh(torch.tensor([0.5, 0.5])))


def test_its_representation_names_what_was_chosen() -> None:
    assert "channels=4, num_heads=1, lipschitz=0.9, kernel='exp'" in repr(certified())


@pytest.mark.parametrize("kind", ["gaussian", "embedded_gaussian", "dot_product", "concatenation"])
def test_heads_are_independent_groups(kind: str) -> None:
    """With W_L = I, changing head 1's maps leaves the channels of head 0 as they are."""
    block = invertible_attention(4, kind=kind, num_heads=2, layout="tokens").double()
    x = torch.randn(1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = block.branch.attention_weights(x).detach()
    with torch.no_grad():
        for name, parameter in block.branch.named_parameters():
            if name in ("score.query.weight", "score.mix.1.weight"):
                parameter.view(2, -1)[-1].add_(1) if name == "score.query.weight" else parameter.add_(1)
        if kind == "gaussian":
            x = torch.cat([x[..., :2], x[..., 2:] + torch.tensor([1.0, -2.0], dtype=torch.float64)], dim=-1)
            x[0, 0, 3] += 1
    after = block.branch.attention_weights(x).detach()
    assert after.shape == (1, 2, 3, 3)
    assert float((after[:, 1] - before[:, 1]).abs().max()) > 1e-6
