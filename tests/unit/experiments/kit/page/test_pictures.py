"""Pictures in the page hold the pixels that were given."""

from __future__ import annotations

import base64
import io

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from invattn.experiments.kit.page import pictures


def decoded(uri: str) -> NDArray[np.uint8]:
    head, data = uri.split(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        return np.asarray(picture.convert("RGB"))


def shade(name: str, value: float) -> list[int]:
    return [int(part) for part in matplotlib.colormaps[name](value, bytes=True)[:3]]


def test_an_image_survives_exactly() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decoded(pictures.png(image)), image)
    np.testing.assert_array_equal(decoded(pictures.png(image.transpose(1, 0, 2))), image.transpose(1, 0, 2))


def test_a_logarithmic_scale() -> None:
    values = np.array([[0.0, 1e-6, 1e-3], [1.0, 50.0, np.nan]])
    found = decoded(pictures.log_heat(values, low=1e-6, high=1.0)).tolist()
    dark, light = shade("inferno", 0.0), shade("inferno", 1.0)
    assert found[0][0] == found[0][1] == dark
    assert found[1][0] == found[1][1] == light
    np.testing.assert_allclose(found[0][2], shade("inferno", 0.5), atol=2)
    assert found[1][2] == [128, 160, 160]


def test_an_attention_map_uses_its_own_range() -> None:
    weights = np.array([[0.1, 0.2], [0.3, 0.5]])
    found = decoded(pictures.linear_heat(weights)).tolist()
    assert found[0][0] == shade("viridis", 0.0)
    assert found[1][1] == shade("viridis", 1.0)
    assert found == decoded(pictures.linear_heat(weights * 7 - 3)).tolist()


def test_a_constant_map_and_one_without_numbers() -> None:
    constant = decoded(pictures.linear_heat(np.full((2, 2), 0.25)))
    np.testing.assert_allclose(constant[0, 0], shade("viridis", 0.5), atol=2)
    assert (constant == constant[0, 0]).all()
    assert (decoded(pictures.linear_heat(np.full((2, 2), np.nan))) == [128, 160, 160]).all()


def test_a_gradient_runs_from_the_lowest_to_the_highest_colour() -> None:
    text = pictures.gradient("inferno", stops=3)
    low, high = shade("inferno", 0.0), shade("inferno", 1.0)
    assert text.startswith(f"linear-gradient(to right, rgb({low[0]} {low[1]} {low[2]}), ")
    assert text.endswith(f", rgb({high[0]} {high[1]} {high[2]}))")


def test_a_sheet_frames_failures_in_red() -> None:
    images = np.full((3, 4, 4, 3), 10, dtype=np.uint8)
    failed = np.array([False, True, False])
    file = pictures.sheet(list(images), columns=2, gap=2, border=2, failed=failed, white=False)
    with Image.open(io.BytesIO(file)) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (2 * 6 + 2, 2 * 6 + 2, 4)
    assert tuple(pixels[0, 6]) == (179, 38, 30, 255)
    assert pixels[3, 1, 3] == 0, "no frame around the first"
    assert (pixels[2:6, 8:12, :3] == 10).all()


def test_a_sheet_on_white_has_columns_of_their_own_width_and_is_enlarged() -> None:
    images = [np.full((4, width, 3), width, dtype=np.uint8) for width in (3, 5, 3, 5)]
    with Image.open(io.BytesIO(pictures.sheet(images, columns=2, gap=1, enlarge=3))) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (3 * 9, 3 * 9, 3)
    assert (pixels[:12, 9:12] == 255).all()
    assert (pixels[:12, 12:] == 5).all()
    assert (pixels[15:, :9] == 3).all()
