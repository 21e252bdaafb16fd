"""A flow on disk: rebuilt, verified, and told apart from a single block."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from invattn import CertificateError, DataError
from invattn.bijections import initialize
from invattn.cli.main import main
from invattn.hub import ModelConfig, TokenFlowConfig, load_flow, load_model, save_model
from invattn.recipes import Certified, Released
from invattn.solvers import Adaptive

CONFIG = TokenFlowConfig(
    tokens=5,
    channels=2,
    attention="gaussian",
    blocks=2,
    attention_layers=1,
    hidden_channels=(6,),
    solver=Adaptive(rtol=1e-5),
)


def save(folder: Path, config: TokenFlowConfig = CONFIG) -> torch.Tensor:
    model = config.build()
    x = torch.randn(8, 5, 2)
    initialize(model, x)
    save_model(model, folder, config=config)
    return model(x).detach()


@pytest.mark.parametrize("attention", ["concatenation", "pointwise", "uniform", "none"])
def test_a_loaded_flow_computes_the_same(tmp_path: Path, attention: str) -> None:
    config = TokenFlowConfig(
        tokens=5, channels=2, attention=attention, blocks=1, attention_layers=1, hidden_channels=(6, 4)
    )
    torch.manual_seed(1)
    model = config.build()
    x = torch.randn(8, 5, 2)
    initialize(model, x)
    certificate = save_model(model, tmp_path, config=config)
    loaded = load_flow(tmp_path)
    assert torch.equal(loaded.model(x), model(x))
    assert loaded.config == config
    assert loaded.certificate == certificate
    assert certificate["bound"] <= 0.99
    assert len(certificate["blocks"]) == (1 if attention == "none" else 2)
    assert loaded.config.distribution(config.build()).event_shape == (5, 2)


def test_certify_checks_every_block_of_a_flow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "flow")
    assert main(["certify", str(tmp_path / "flow"), "--shape", "5,2"]) == 0
    text = capsys.readouterr().out
    assert text.count("gaussian attention") == 2
    assert "bijections.7" in text
    assert "certified: every block" in text
    save(tmp_path / "other", TokenFlowConfig(tokens=5, channels=2, blocks=1, attention_layers=1, recipe=Released()))
    assert main(["certify", str(tmp_path / "other")]) == 1


def test_a_changed_flow_is_refused_with_the_block(tmp_path: Path) -> None:
    save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["lipschitz"] = 0.5
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CertificateError, match="not the certified one"):
        load_flow(tmp_path)


def test_a_flow_is_no_block_and_a_block_no_flow(tmp_path: Path) -> None:
    save(tmp_path / "flow")
    with pytest.raises(DataError, match="does not hold a single attention block"):
        load_model(tmp_path / "flow")
    config = ModelConfig(channels=4, kind="gaussian", recipe=Certified())
    save_model(config.build(), tmp_path / "block", config=config)
    with pytest.raises(DataError, match="does not hold a flow"):
        load_flow(tmp_path / "block")


@pytest.mark.parametrize(("key", "value"), [("blocks", None), ("hidden_channels", 3), ("attention", "nothing")])
def test_a_damaged_configuration_is_one_line(tmp_path: Path, key: str, value: object) -> None:
    save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config[key] = value
    if value is None:
        del config[key]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError) as caught:
        load_flow(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_context_is_kept_and_files_of_before_it_are_read(tmp_path: Path) -> None:
    save(tmp_path)
    assert "context_channels" not in json.loads((tmp_path / "config.json").read_text())
    assert load_flow(tmp_path).config == CONFIG
    config = TokenFlowConfig(tokens=5, channels=2, blocks=1, attention_layers=1, context_channels=3)
    assert TokenFlowConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
