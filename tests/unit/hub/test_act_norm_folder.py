"""ActNorm outlives saving and loading, before it was started from data and after: four libraries start it anew."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from invattn.bijections import ActNorm, initialize
from invattn.hub import ImageFlowConfig, TokenFlowConfig, VectorFlowConfig, load_flow, save_model
from invattn.hub.flow_config import FlowConfig

CONFIGS: dict[str, FlowConfig] = {
    "image": ImageFlowConfig(image_shape=(1, 4, 4), blocks=(1, 1), hidden_channels=4, attention="gaussian"),
    "tokens": TokenFlowConfig(tokens=3, channels=2, blocks=1, attention_layers=1, hidden_channels=(4,)),
    "vectors": VectorFlowConfig(dimensions=3, blocks=2, hidden_channels=(4,)),
}


def data(config: FlowConfig, seed: int, shift: float = 0.0) -> torch.Tensor:
    return shift + 2 * torch.randn(64, *config.event_shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("through", ["state_dict", "folder"])
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_it_is_started_once_and_only_once(name: str, started: bool, through: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    model = config.build()
    layers = sum(isinstance(part, ActNorm) for part in model.modules())
    if started:
        assert initialize(model, data(config, 1)) == layers
    if through == "folder":
        save_model(model, tmp_path, config=config)
        other = load_flow(tmp_path).model
    else:
        other = config.build()
        other.load_state_dict(model.state_dict())
    x = data(config, 2, shift=5.0)
    before = model(x).detach()
    assert torch.equal(other(x), before)
    assert initialize(other, x) == (0 if started else layers)
    assert torch.equal(other(x), before) == started
    if not started:
        assert initialize(model, x) == layers
        assert torch.equal(other(x), model(x))
