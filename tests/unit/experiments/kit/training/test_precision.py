"""TF32 is off inside the block, and what it was before afterwards."""

from __future__ import annotations

import pytest
import torch

from invattn.experiments.kit.training.fit import without_tf32


@pytest.mark.parametrize("before", [True, False])
def test_the_setting_is_restored_whatever_happens(before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
    found = []

    def fail() -> None:
        with without_tf32():
            found.append(torch.backends.cudnn.allow_tf32)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert found == [False]
    assert torch.backends.cudnn.allow_tf32 is before


@pytest.mark.gpu
def test_a_convolution_has_the_precision_of_float32() -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    x, kernel = (torch.randn(*shape, device="cuda", generator=generator) for shape in ((8, 64, 32, 32), (64, 64, 3, 3)))
    exact = torch.nn.functional.conv2d(x.double(), kernel.double(), padding=1)
    with without_tf32():
        assert float((torch.nn.functional.conv2d(x, kernel, padding=1) - exact).abs().max()) < 1e-4
