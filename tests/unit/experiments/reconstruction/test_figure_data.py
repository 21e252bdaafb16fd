from pathlib import Path

import numpy as np
import pytest
import torch

from invattn.experiments.kit.data.dequantise import DequantisedImages
from invattn.experiments.kit.inversion import invert_images
from invattn.experiments.kit.output import Arrays, write_arrays
from invattn.experiments.kit.solver import choose_solver
from invattn.experiments.reconstruction.figures import make_figure_data, shown_images, trace_size
from invattn.hub import ModelConfig
from invattn.recipes import Certified, Recipe, Released, Unconstrained


def make_arrays(recipe: Recipe, kind: str = "dot_product", *, count: int = 11, size: int = 12) -> Arrays:
    generator = torch.Generator().manual_seed(4)
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    images = DequantisedImages(pixels, seed=3)
    config = ModelConfig(
        channels=12, kind=kind, recipe=recipe, squeeze=2, solver=choose_solver(recipe, name="default", iterations=None)
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = config.build().eval()
    report = invert_images(model, images, count=count, batch_size=4, clip=not model.certified, keep=shown_images(count))
    before = torch.random.get_rng_state()
    arrays = make_figure_data(model, config, images=images, report=report)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert next(model.parameters()).dtype == torch.float32
    return arrays


def test_shapes_and_types_are_those_the_report_reads() -> None:
    arrays = make_arrays(Certified())
    kinds = {name: (value.dtype.name, value.shape) for name, value in arrays.items()}
    assert kinds == {
        "originals": ("uint8", (8, 12, 12, 3)),
        "reconstructions": ("uint8", (8, 12, 12, 3)),
        "errors": ("float32", (8, 12, 12)),
        "image_mse": ("float64", (8,)),
        "image_index": ("int64", (8,)),
        "all_mse": ("float64", (11,)),
        "residual_steps": ("int64", (61,)),
        "residual_median": ("float64", (61,)),
        "residual_max": ("float64", (61,)),
        "curve_c": ("float64", (4,)),
        "curve_steps": ("int64", (61,)),
        "curve_error": ("float64", (4, 61)),
        "attention_image": ("uint8", (12, 12, 3)),
        "attention_query": ("int64", (4, 2)),
        "attention_maps": ("float32", (4, 6, 6)),
    }


def test_a_certified_model_shows_its_images_again() -> None:
    arrays = make_arrays(Certified())
    difference = arrays["originals"].astype(int) - arrays["reconstructions"].astype(int)
    assert np.abs(difference).max() <= 1  # a value at the border of two grey levels may fall on either side
    assert (difference == 0).mean() > 0.99
    assert arrays["errors"].max() < 0.05
    assert np.array_equal(arrays["image_mse"], arrays["all_mse"][arrays["image_index"]])
    assert arrays["residual_max"][-1] < 1e-12 < arrays["residual_max"][0]
    assert (arrays["residual_median"] <= arrays["residual_max"]).all()


def test_a_smaller_constant_converges_faster() -> None:
    errors = make_arrays(Certified(), "concatenation")["curve_error"]
    assert errors[0, 5] < errors[1, 5] < errors[2, 5]
    assert (errors[:, -1] < errors[:, 0]).all()


def test_parts_that_do_not_apply_are_missing() -> None:
    assert not {"curve_error", "curve_c"} & make_arrays(Unconstrained()).keys()
    assert "attention_maps" not in make_arrays(Certified(), "pointwise")
    assert {"curve_error", "attention_maps"} <= make_arrays(Released(), "gaussian", count=3).keys()


def test_the_pictures_are_spread_over_the_data() -> None:
    assert shown_images(1000) == [0, 125, 250, 375, 500, 625, 750, 875]
    assert shown_images(3) == [0, 1, 2]
    assert shown_images(8) == list(range(8))


def test_large_images_get_fewer_images_and_steps() -> None:
    assert trace_size(256, 8) == (8, 60)
    images, steps = trace_size(9701, 8)
    assert images == 1
    assert 4 <= steps <= 10
    assert trace_size(10**6, 8) == (1, 1)


def test_arrays_survive_the_file(tmp_path: Path) -> None:
    arrays = {"a": np.arange(3), "b": np.array([1.0, np.inf, np.nan])}
    write_arrays(tmp_path / "x.npz", arrays)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as stored:
        assert set(stored.files) == {"a", "b"}
        assert np.array_equal(stored["b"], arrays["b"], equal_nan=True)


def test_the_noise_of_an_image_does_not_depend_on_its_batch() -> None:
    pixels = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    images = DequantisedImages(pixels, seed=3)
    whole = images(torch.arange(5), 2)
    assert torch.equal(images(torch.tensor([3]), 2), whole[3:4])
    assert not torch.equal(images(torch.arange(5), 1), whole)
    assert not torch.equal(DequantisedImages(pixels, seed=4)(torch.arange(5), 2), whole)
    assert torch.equal((256 * (whole + 0.5)).floor().to(torch.uint8), pixels)
    assert (len(images), images.size) == (5, (4, 4))
    with pytest.raises(IndexError):
        images(torch.tensor([5]))


def test_the_curve_of_the_models_own_constant_is_that_of_a_rebuilt_model(monkeypatch: pytest.MonkeyPatch) -> None:
    own = make_arrays(Certified(), count=2)["curve_error"][2]
    monkeypatch.setattr("invattn.experiments.reconstruction.figures.CURVE_CONSTANTS", (0.9 + 1e-12,))
    rebuilt = make_arrays(Certified(), count=2)["curve_error"][0]
    assert np.allclose(own, rebuilt, rtol=1e-6, atol=1e-14)
