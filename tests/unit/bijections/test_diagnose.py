"""invattn.diagnose: both layouts, what is flagged and why, and what the options leave out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import invattn
from invattn import diagnosis
from invattn.bijections import Composed, ConstantMemory, ResidualBijection, Squeeze
from invattn.branches import Branch, CertifiedConvolution


class Diagonal(Branch):
    """g(x) = s tanh(x) in every entry, at images or tokens."""

    channels = 2

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope, dtype=torch.float64))

    def check_input(self, x: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        return self.slope * x.tanh()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_images_and_tokens_have_the_same_diagnosis() -> None:
    image = invattn.invertible_attention(4, kind="embedded_gaussian", recipe="paper").double().eval()
    tokens = invattn.invertible_attention(4, kind="embedded_gaussian", recipe="paper", layout="tokens").double().eval()
    tokens.branch.load_state_dict(image.branch.state_dict())
    with torch.no_grad():
        for block in (image, tokens):
            for name, parameter in block.branch.named_parameters():
                if name.startswith("score"):
                    parameter.mul_(-20 if "key" in name else 20)
    x = torch.randn(6, 4, 2, 3, dtype=torch.float64, generator=seeded(1))
    first = invattn.diagnose(image, x, generator=seeded())
    second = invattn.diagnose(tokens, x.flatten(2).mT, generator=seeded())
    assert first.preimage.shape == x.shape
    assert torch.equal(first.preimage.flatten(2).mT, second.preimage)
    assert torch.equal(first.flagged, second.flagged)
    assert torch.equal(first.spectral_norm, second.spectral_norm)
    same = image(first.preimage) - image(x)
    assert bool((same.detach().abs().amax(dim=(1, 2, 3)) <= 1e-12 + first.output_difference).all())
    assert bool((first.output_difference <= 1e-5 * first.distance).all())
    assert bool(first.second_preimage.any())


@pytest.mark.parametrize(
    ("slope", "reasons"),
    [
        (-1.2, ("repelling", "slow", "competing")),
        (-0.99, ("slow",)),
        (-0.9, ()),
        (0.9, ()),
        (3.0, ("repelling", "slow")),  # not folded, but Picard iteration moves away
    ],
)
def test_the_reasons_of_a_flag_at_zero(slope: float, reasons: tuple[str, ...]) -> None:
    block = ResidualBijection(Diagonal(slope))
    report = invattn.diagnose(block, torch.zeros(1, 2, 2, 2, dtype=torch.float64), generator=seeded())
    assert report.reasons(0) == reasons
    assert report.flagged.tolist() == [bool(reasons)]
    assert float(report.spectral_radius) == pytest.approx(abs(slope))
    assert complex(report.eigenvalue) == pytest.approx(slope)
    assert float(report.spectral_norm) == pytest.approx(abs(slope))
    assert report.det_sign.tolist() == [1]  # eight entries: an even number of folds
    assert float(report.lipschitz_ratio) == pytest.approx(abs(slope), rel=1e-6)


def test_the_way_from_the_output_counts_as_slow() -> None:
    """At x = 4 the slope of -2 tanh vanishes, but the inverse starts at f(x) = 2, and the way is slow near 0.9."""
    x = torch.full((1, 1, 1), 4.0, dtype=torch.float64)
    block = ResidualBijection(Diagonal(-8.0))
    report = invattn.diagnose(block, x, generator=seeded())
    assert float(report.spectral_radius) < 0.1
    assert float(report.path_radius) > 1
    assert bool(report.slow)
    off = invattn.diagnose(block, x, checks=diagnosis.Checks(path=()), generator=seeded())
    assert not bool(off.slow)


def test_options_leave_parts_out() -> None:
    x = torch.zeros(2, 1, 2, dtype=torch.float64)
    checks = diagnosis.Checks(ascent=None, search=None, det_limit=0)
    report = invattn.diagnose(ResidualBijection(Diagonal(-1.5)), x, checks=checks, generator=seeded())
    assert report.lipschitz_ratio.isnan().all()
    assert report.det_sign.tolist() == [0, 0]
    assert not report.second_preimage.any()
    assert report.reasons(0) == ("repelling", "slow")
    spared = diagnosis.Checks(search=diagnosis.SecondPreimageSearch(from_radius=2.0))
    assert not invattn.diagnose(ResidualBijection(Diagonal(-1.5)), x, checks=spared).second_preimage.any()


def test_a_branch_that_is_not_finite_is_flagged() -> None:
    report = invattn.diagnose(ResidualBijection(Diagonal(float("nan"))), torch.zeros(1, 1, 2, dtype=torch.float64))
    assert report.flagged.all()
    assert report.lipschitz_ratio.isnan().all()
    assert not report.second_preimage.any()


def test_certified_blocks_are_never_flagged_even_near_one() -> None:
    block = invattn.invertible_attention(4, kind="pointwise", lipschitz=0.999, layout="tokens").double()
    x = torch.randn(8, 5, 4, dtype=torch.float64, generator=seeded(1)) * 1e-3
    checks = diagnosis.Checks(search=diagnosis.SecondPreimageSearch(from_radius=0.0))
    report = invattn.diagnose(block, x, checks=checks, generator=seeded())
    assert not report.flagged.any()
    assert report.norm == block.lipschitz_bound().norm
    assert bool((report.lipschitz_ratio <= block.lipschitz_bound().value).all())
    assert report.det_sign.tolist() == [1] * 8


@pytest.mark.parametrize("norm", ["2", "inf,2"])
def test_convolutions_are_measured_in_the_norm_of_their_certificate(norm: str) -> None:
    branch = CertifiedConvolution(channels=2, hidden_channels=3, norm=norm).double()
    block = ResidualBijection(branch)
    x = torch.randn(2, 2, 4, 3, dtype=torch.float64, generator=seeded(1))
    report = invattn.diagnose(block, x, generator=seeded())
    assert report.norm == norm
    assert report.preimage.shape == x.shape
    assert not report.flagged.any()
    assert bool((report.lipschitz_ratio <= block.lipschitz_bound().value).all())
    assert bool((report.lipschitz_ratio > 0).all())


def test_a_wrapped_block_keeps_its_layout() -> None:
    block = invattn.invertible_attention(4, kind="gaussian").double()
    x = torch.randn(2, 4, 2, 3, dtype=torch.float64, generator=seeded(1))
    inner = invattn.diagnose(block, x, generator=seeded())
    wrapped = invattn.diagnose(ConstantMemory(block), x, generator=seeded())
    assert wrapped.preimage.shape == x.shape
    assert torch.equal(wrapped.spectral_radius, inner.spectral_radius)


def test_only_single_blocks_can_be_diagnosed() -> None:
    chain = Composed([Squeeze(2), invattn.invertible_attention(4)])
    with pytest.raises(ValueError, match="not a single residual block"):
        invattn.diagnose(chain, torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("options", [{"picard_steps": 0}, {"remaining": 1.0}])
def test_impossible_checks_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        diagnosis.Checks(**options)  # type: ignore[arg-type]
