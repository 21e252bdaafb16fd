"""The full-size recipes in configs/: each is valid, and its models can be built."""

from __future__ import annotations

from pathlib import Path

import pytest

from invattn.bijections import ResidualBijection
from invattn.experiments.density.command import TRAIN
from invattn.experiments.density.config import DensityConfig

CONFIGS = Path(__file__).resolve().parents[4] / "configs"


def load(name: str, tmp_path: Path) -> DensityConfig:
    arguments = ["--config", str(CONFIGS / f"{name}.yaml"), "--output", str(tmp_path)]
    config = TRAIN.read(TRAIN.parser().parse_args(arguments))
    assert isinstance(config, DensityConfig)
    return config


def kinds_of(config: DensityConfig, attention: str, recipe: str) -> tuple[list[str], int]:
    """The kind of every residual block, in order, and the number of parameters."""
    model = config.model_config(attention, recipe).build()
    assert model.output_shape((3, 32, 32)) == (3072,)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return [part.branch.kind for part in model.modules() if isinstance(part, ResidualBijection)], parameters


@pytest.mark.parametrize(("name", "attention"), [("dot", "dot_product"), ("concat", "concatenation")])
def test_table_3_has_48_blocks_of_512_channels_and_one_attention_after_the_first_scale(
    name: str, attention: str, tmp_path: Path
) -> None:
    recipe = {"dot": "certified", "concat": "released_generative"}[name]
    kinds, parameters = kinds_of(load(f"table3_{name}", tmp_path), attention, recipe)
    assert kinds == [*16 * ["convolution"], f"{attention} attention", *32 * ["convolution"]]
    assert 25.0e6 < parameters < 25.1e6  # 25.0 million in the released code


def test_the_full_size_recipes_differ_in_their_attention_alone(tmp_path: Path) -> None:
    settings = [load(f"table3_{name}", tmp_path).settings() for name in ("iresnet", "dot", "concat")]
    assert [entry.pop("attention") for entry in settings] == ["none", "dot_product", "concatenation"]
    assert settings[0] == settings[1] == settings[2]
    assert settings[0]["blocks"] == "16,16,16"
    assert load("table3_dot", tmp_path).epochs == 200


def test_the_small_recipe_has_both_controls(tmp_path: Path) -> None:
    config = load("table3_small", tmp_path)
    assert [kind for kind, _ in config.variants()] == ["none", "pointwise", "embedded_gaussian"]
    kinds, parameters = kinds_of(config, "embedded_gaussian", "certified")
    assert kinds.count("convolution") == 24
    assert kinds.count("embedded_gaussian attention") == 6
    assert 4.0e6 < parameters < 4.2e6
