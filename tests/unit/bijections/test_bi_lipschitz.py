"""Bi-Lipschitz constants of chains, in both norms and across changes of norm."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from invattn import CertificateError, invertible_attention
from invattn.bijections import Bijection, Composed, Inverse, ResidualBijection, Squeeze
from invattn.branches import Branch
from invattn.lipschitz import BiLipschitz, LipschitzBound
from invattn.norms import NORMS, conversion, count_tokens, euclidean_norm, token_norm
from invattn.solvers import Picard


class Blur(Branch):
    """g(x) = c times the mean over a circular 3 x 3 window: norm c in |.|_2, stated in it."""

    def __init__(self, channels: int, c: float = 0.5) -> None:
        super().__init__()
        self.channels, self.c = channels, c

    def check_input(self, x: Tensor) -> None:
        assert x.dim() == 4

    @property
    def certified(self) -> bool:
        return True

    def lipschitz_bound(self) -> LipschitzBound:
        return LipschitzBound(value=self.c, norm="2", derivation="a mean")

    def forward(self, x: Tensor) -> Tensor:
        return self.c * F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="circular"), 3, stride=1)


def attention(channels: int, seed: int = 0, **options: float) -> Bijection:
    torch.manual_seed(seed)
    return invertible_attention(channels, kind="dot_product", **options).double()  # type: ignore[arg-type]


def mixed_chain() -> Composed:
    return Composed([ResidualBijection(Blur(1)), Squeeze(2), attention(4), ResidualBijection(Blur(4, 0.8))])


def test_one_block() -> None:
    block = attention(4)
    bound = block.lipschitz_bound().value
    constants = block.bi_lipschitz((4, 3, 5))
    assert (constants.lower, constants.upper) == (1 - bound, 1 + bound)
    assert constants.norm_in == constants.norm_out == block.norm == "inf,2"
    in_two = block.bi_lipschitz((4, 3, 5), norm="2")
    assert in_two.norm_in == "2"
    assert in_two.norm_out == "inf,2"
    assert in_two.lower == pytest.approx((1 - bound) / math.sqrt(15))
    assert in_two.upper == pytest.approx(1 + bound)


def test_squeezing_costs_its_factor_in_the_token_norm_and_nothing_in_the_other() -> None:
    assert Squeeze(3).bi_lipschitz((1, 3, 3)).upper == 3
    assert Squeeze(3).bi_lipschitz((1, 3, 3), norm="2").upper == 1
    x = torch.ones(1, 1, 3, 3)
    assert float(token_norm(Squeeze(3)(x))) == pytest.approx(3 * float(token_norm(x)))  # attained
    there = Composed([Squeeze(3), Inverse(Squeeze(3))]).bi_lipschitz((1, 3, 3))
    assert (there.lower, there.upper) == (pytest.approx(1 / 3), 3)


@pytest.mark.parametrize("norm", [None, "2", "inf,2"])
@pytest.mark.parametrize("inverse", [False, True])
def test_no_pair_of_points_leaves_the_constants_of_a_mixed_chain(norm: str | None, inverse: bool) -> None:
    chain: Bijection = mixed_chain()
    shape = (1, 4, 6)
    assert chain.output_shape(shape) == (4, 2, 3)
    assert chain.input_shape((4, 2, 3)) == shape
    if inverse:
        chain, shape = Inverse(chain), chain.output_shape(shape)
        assert chain.output_shape(shape) == (1, 4, 6)
        assert chain.input_shape((1, 4, 6)) == shape
    constants = chain.bi_lipschitz(shape, norm=norm)
    assert constants.norm_in == (norm or "2")
    before, after = NORMS[constants.norm_in], NORMS[constants.norm_out]
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for scale in (1e-3, 1.0, 30.0):
            x, y = scale * torch.randn(2, 20, *shape, dtype=torch.float64, generator=generator)
            ratio = after(chain(x) - chain(y)) / before(x - y)
            assert (ratio <= constants.upper).all()
            assert (ratio >= constants.lower).all()


def test_the_error_bound_of_a_mixed_chain_holds() -> None:
    for steps in (0, 1, 3, 300):
        chain = mixed_chain()
        for part in chain.modules():
            if isinstance(part, ResidualBijection):
                part.solver = Picard(max_steps=steps)
        x = torch.randn(5, 1, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
        with torch.no_grad():
            solution = chain.solve(chain(x))
        assert chain.norm == "2"
        assert solution.error_bound is not None
        assert (euclidean_norm(solution.value - x) <= solution.error_bound).all()
        if steps == 300:
            assert (solution.error_bound <= 1e-8).all()


def test_the_derivation_names_every_part_and_every_change_of_norm() -> None:
    lines = mixed_chain().bi_lipschitz((1, 4, 6)).derivation.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "x + g(x)",
        "squeeze by 2",
        "|.|_{2} to |.|_{inf,2}",
        "x + g(x)",
        "|.|_{inf,2} to |.|_{2}",
        "x + g(x)",
    ]
    assert str(BiLipschitz(0.5, 2.0, "2", "inf,2")) == ("0.5 |x - y|_{2} <= |f(x) - f(y)|_{inf,2} <= 2 |x - y|_{2}")


def test_a_part_without_certificate_is_named() -> None:
    relaxed = invertible_attention(4, recipe="released")
    with pytest.raises(CertificateError, match="part 1 of the chain: RelaxedAttention has no proven"):
        Composed([Squeeze(2), relaxed]).bi_lipschitz((1, 4, 4))
    assert Composed([Squeeze(2), relaxed]).norm is None


@pytest.mark.parametrize("tokens", [1, 7])
def test_the_conversion_is_the_best_constant(tokens: int) -> None:
    spread, single = torch.ones(1, tokens, 1), torch.zeros(1, tokens, 1)
    single[0, 0, 0] = 1
    for source in NORMS:
        for target in NORMS:
            best = max(float(NORMS[target](x) / NORMS[source](x)) for x in (spread, single))
            assert best == pytest.approx(conversion(source, target, tokens=tokens))


def test_tokens_are_counted() -> None:
    assert [count_tokens(shape) for shape in ((5,), (7, 5), (3, 4, 6))] == [1, 7, 24]
    with pytest.raises(ValueError, match="the shape of a sample"):
        count_tokens((1, 2, 3, 4))
    with pytest.raises(ValueError, match="unknown norm"):
        conversion("1", "2", tokens=3)


def test_norms_of_every_layout() -> None:
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    for norm in NORMS.values():
        image, tokens = norm(x), norm(x.flatten(2).mT)
        torch.testing.assert_close(image, tokens)
        assert norm(1e200 * x).isfinite().all()
    torch.testing.assert_close(token_norm(x), x.norm(dim=1).flatten(1).amax(dim=1))
    torch.testing.assert_close(euclidean_norm(x), x.flatten(1).norm(dim=1))
    torch.testing.assert_close(token_norm(x[:, :, 0, 0]), x[:, :, 0, 0].norm(dim=1))
