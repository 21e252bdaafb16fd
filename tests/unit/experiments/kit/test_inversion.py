from typing import Any

import pytest
import torch
from torch import Tensor

from invattn.bijections import Bijection, Composed, Squeeze
from invattn.experiments.kit.inversion import InversionReport, invert_images
from invattn.experiments.kit.progress import SilentProgress
from invattn.recipes import Released, invertible_attention
from invattn.solvers import Picard, Solution, Status


def photos(count: int = 5) -> Tensor:
    return torch.rand(count, 3, 12, 12, generator=torch.Generator().manual_seed(0)) - 0.5


def model(**options: Any) -> Bijection:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Composed([Squeeze(2), invertible_attention(12, kind="dot_product", **options)])


def invert(net: Bijection, images: Tensor, *, clip: bool = False, batch_size: int = 2, **more: Any) -> InversionReport:
    return invert_images(net, images.__getitem__, count=len(images), batch_size=batch_size, clip=clip, **more)


class Shifted(Bijection):
    """Returns its input plus a given error when it is inverted."""

    def __init__(self, error: Tensor) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        assert not self.training
        return x

    def solve(self, z: Tensor, *, start: Tensor | None = None) -> Solution:
        count = torch.arange(z.shape[0])
        return Solution(
            value=z + self.error,
            converged=count % 2 == 0,
            residual=z.new_zeros(len(z)),
            num_steps=count,
            error_bound=None,
            status=torch.full_like(count, Status.CONVERGED),
        )

    def inverse(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def inverse_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class Told(SilentProgress):
    def __init__(self) -> None:
        self.batches: list[int] = []

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        self.batches.append(steps)


def test_a_certified_model_returns_every_image() -> None:
    progress = Told()
    report = invert(model(), photos(), keep=[4, 0, 3], progress=progress)
    assert progress.batches == [2, 2, 1]
    assert report.converged.all()
    assert report.mse.shape == report.ssim.shape == report.evaluations.shape == (5,)
    assert report.mse.max() < 1e-6
    assert report.ssim.min() > 1 - 1e-9
    assert report.non_finite.sum() == 0
    expected = 256 * (photos()[[4, 0, 3]].double() + 0.5)
    assert (report.kept - expected).abs().max() < 0.01


def test_a_known_error_gives_a_known_mse() -> None:
    report = invert(Shifted(torch.tensor(0.01)), photos(), batch_size=5)
    assert report.mse.tolist() == pytest.approx([(256 * 0.01) ** 2] * 5, rel=1e-4)
    assert report.converged.tolist() == [True, False, True, False, True]
    assert report.evaluations.tolist() == [1, 2, 3, 4, 5]


def test_only_models_without_certificate_are_cleaned() -> None:
    error = torch.zeros(3, 12, 12)
    error[0, 0, 0], error[0, 0, 1], error[0, 0, 2] = float("nan"), float("inf"), 1e6
    honest = invert(Shifted(error), photos(), clip=False, keep=[0])
    assert honest.non_finite.tolist() == [2] * 5
    assert honest.mse.isnan().all()
    cleaned = invert(Shifted(error), photos(), clip=True, keep=[0])
    assert cleaned.non_finite.tolist() == [2] * 5
    assert (cleaned.mse <= 3 * 256**2 / error.numel()).all()
    assert cleaned.kept[0, 0, 0, :3].tolist() == [0.0, 0.0, 255.0]


def test_an_exact_inverse_has_no_error_where_pixels_exceed_255() -> None:
    images = torch.full((1, 3, 12, 12), 0.5 - 2**-12)  # 255.94 on the 0-255 scale
    report = invert(Shifted(torch.zeros(())), images, clip=True, batch_size=1)
    assert report.mse.tolist() == [0.0]


def test_batches_do_not_change_the_numbers_and_dropped_training_mode_is_deterministic() -> None:
    net = model(recipe=Released(), solver=Picard(max_steps=5, early_stop=False)).train()
    one, many = invert(net, photos(), batch_size=1), invert(net, photos(), batch_size=5)
    assert torch.allclose(one.mse, many.mse, rtol=1e-3)
    assert (one.evaluations == 6).all()
    assert not net.training
