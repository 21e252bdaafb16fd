"""Squeeze against a loop over indices."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invattn.functional import squeeze, unsqueeze


@given(
    batch=st.integers(1, 2),
    channels=st.integers(1, 3),
    height=st.integers(1, 3),
    width=st.integers(1, 3),
    factor=st.integers(1, 3),
)
def test_every_entry_goes_to_its_place_and_back(
    batch: int, channels: int, height: int, width: int, factor: int
) -> None:
    image = torch.arange(batch * channels * height * width * factor**2).view(
        batch, channels, height * factor, width * factor
    )
    squeezed = squeeze(image, factor)
    assert squeezed.shape == (batch, channels * factor**2, height, width)
    for dy in range(factor):
        for dx in range(factor):
            for c in range(channels):
                for row in range(height):
                    for column in range(width):
                        place = (dy * factor + dx) * channels + c
                        expected = image[:, c, row * factor + dy, column * factor + dx]
                        assert torch.equal(squeezed[:, place, row, column], expected)
    assert torch.equal(unsqueeze(squeezed, factor), image)


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(ValueError, match=r"3 x 5 cannot be squeezed by 2. Crop"):
        squeeze(torch.zeros(1, 1, 3, 5), 2)
    with pytest.raises(ValueError, match="6 channels cannot be unsqueezed by 2"):
        unsqueeze(torch.zeros(1, 6, 2, 2), 2)
    for function in (squeeze, unsqueeze):
        with pytest.raises(ValueError, match=r"\(B, C, H, W\); got \(2, 3, 4\)"):
            function(torch.zeros(2, 3, 4), 2)
