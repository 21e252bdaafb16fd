from pathlib import Path
from typing import Any

import pytest

from invattn import ATTENTION_KINDS, RECIPES
from invattn.experiments.reconstruction.run import ReconstructionConfig


def make(**options: Any) -> ReconstructionConfig:
    return ReconstructionConfig(output=Path("out"), **options)


def test_the_defaults_are_the_papers_protocol() -> None:
    config = make()
    assert (config.chosen_epochs(), config.chosen_batch_size(), config.repeats, config.lr) == (100, 64, 3, 0.003)
    assert (config.train_size, config.test_size, config.lipschitz) == (1000, 1000, 0.9)
    assert config.attention_names() == ATTENTION_KINDS
    assert config.recipe_names() == ("certified",)
    assert config.pixels() == 32


def test_the_original_size_has_its_own_defaults_which_the_user_can_change() -> None:
    config = make(image_size="original")
    assert (config.chosen_epochs(), config.chosen_batch_size(), config.pixels()) == (1, 1, "original")
    config = make(image_size="original", epochs=3, batch_size=2)
    assert (config.chosen_epochs(), config.chosen_batch_size()) == (3, 2)


def test_lists_of_names() -> None:
    config = make(attention="pointwise, gaussian", recipe="all")
    assert config.attention_names() == ("pointwise", "gaussian")
    assert config.recipe_names() == tuple(RECIPES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "gausian"}, "gaussian"),
        ({"attention": "gaussian,"}, "unknown attention"),
        ({"attention": "gaussian,gaussian"}, "twice"),
        ({"recipe": "released,all"}, "mixes 'all' with names"),
        ({"recipe": "certifed"}, "certified"),
        ({"solver": "newton"}, "solver"),
        ({"image_size": "64"}, "image size"),
        ({"epochs": 0}, "epochs: expected a whole number, at least 1; got 0"),
        ({"repeats": -1}, "repeats"),
        ({"batch_size": 0}, "batch_size"),
        ({"iterations": 0}, "iterations"),
        ({"test_size": 0}, "test_size"),
        ({"lr": float("nan")}, "lr: expected a number above 0; got nan"),
        ({"lr": 0.0}, "lr"),
        ({"lr": 1e7}, "at most 1e\\+06; got"),
        ({"lipschitz": 1.0}, "between 0 and 1, neither included"),
    ],
)
def test_bad_options_are_one_clear_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make(**options)
    assert "\n" not in str(caught.value)


def test_the_command_names_every_choice_and_no_folder() -> None:
    config = make(data="cifar10", data_root=Path("/secret/place"), recipe="released", iterations=100, lr=0.01)
    command = config.command()
    assert command.startswith("invattn reconstruct --data cifar10 --data-root DATA --attention gaussian,")
    for part in ("--recipe released", "--iterations 100", "--lr 0.01", "--epochs 100", "--batch-size 64", "--seed 0"):
        assert part in command
    assert "secret" not in command
    assert "secret" not in str(config.settings())
