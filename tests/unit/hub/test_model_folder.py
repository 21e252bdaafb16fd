import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from invattn import CertificateError, DataError, invertible_attention
from invattn.bijections import Bijection
from invattn.hub import ModelConfig, load_model, save_model
from invattn.recipes import Certified, Paper, Recipe, Released, ReleasedGenerative, Strict, Unconstrained
from invattn.solvers import Adaptive, Anderson, Picard, Solver

RECIPES = [
    Certified(),
    Strict(phi="softplus"),
    Paper(column_sum=0.8, normalize="total"),
    Released(),
    ReleasedGenerative(),
    Unconstrained(),
]


def make(kind: str = "dot_product", recipe: Recipe | None = None, solver: Solver | None = None) -> ModelConfig:
    return ModelConfig(channels=12, kind=kind, recipe=recipe or Certified(), lipschitz=0.8, solver=solver, squeeze=2)


def saved(folder: Path, config: ModelConfig | None = None) -> Bijection:
    config = config or make()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = config.build()
    save_model(model, folder, config=config)
    return model


def edit(path: Path, change: Any) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize("kind", ["gaussian", "embedded_gaussian", "dot_product", "concatenation", "pointwise"])
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_loaded_model_computes_the_same(tmp_path: Path, kind: str, recipe: Recipe) -> None:
    config = make(kind, recipe, Picard(max_steps=7, early_stop=False))
    model = saved(tmp_path / "a" / "model", config)
    loaded = load_model(tmp_path / "a" / "model")
    x = torch.randn(2, 3, 6, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(loaded.model(x), model.eval()(x))
    assert torch.equal(loaded.model.solve(model(x)).value, model.solve(model(x)).value)
    assert loaded.config == config
    assert (loaded.certificate["bound"] is None) == (recipe.name not in ("certified", "strict"))
    assert not loaded.model.training


def test_a_folder_may_be_named_by_a_string(tmp_path: Path) -> None:
    config = make()
    model = config.build()
    save_model(model, str(tmp_path / "model"), config=config)
    x = torch.randn(2, 3, 6, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(load_model(str(tmp_path / "model")).model(x), model.eval()(x))


def test_the_certificate_holds_every_factor_and_tensor(tmp_path: Path) -> None:
    model = saved(tmp_path)
    certificate = json.loads((tmp_path / "certificate.json").read_text())
    bound = make().block_of(model).lipschitz_bound()
    assert certificate["bound"] == bound.value <= 0.8
    assert certificate["norm"] == bound.norm
    assert certificate["factors"] == bound.factors
    assert certificate["tensors"].keys() == model.state_dict().keys()


@pytest.mark.parametrize("solver", [None, Adaptive(max_steps=9), Anderson(depth=2), Picard(rtol=1e-3)])
def test_configurations_round_trip(solver: Solver | None) -> None:
    config = make(recipe=Certified(position_grid=(2, 3)), solver=solver)
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_a_model_without_squeeze_is_the_block(tmp_path: Path) -> None:
    config = ModelConfig(channels=4, kind="gaussian", recipe=Certified(), layout="tokens", num_heads=2)
    model = saved(tmp_path, config)
    assert config.block_of(model) is model
    x = torch.randn(1, 5, 4)
    assert torch.equal(load_model(tmp_path).model(x), model(x))


@pytest.mark.parametrize("name", ["value.weight", "output.bias"])
def test_one_changed_weight_is_refused(tmp_path: Path, name: str) -> None:
    saved(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    name = next(key for key in state if key.endswith(name))
    flat = state[name].view(-1)
    flat[0] = torch.nextafter(flat[0], flat[0] + 1)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CertificateError, match=f"block .*: the tensor {name} is not the certified one"):
        load_model(tmp_path)


def test_other_changes_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    edit(tmp_path / "a" / "config.json", lambda config: config.update(lipschitz=0.99))
    with pytest.raises(CertificateError, match=r"config\.json is not the certified one \(and \d+ more\)"):
        load_model(tmp_path / "a")
    saved(tmp_path / "b")
    edit(tmp_path / "b" / "certificate.json", lambda certificate: certificate.update(bound=0.5))
    with pytest.raises(CertificateError, match=r"the model's bound is 0\.\d+, but its certificate says 0\.5"):
        load_model(tmp_path / "b")
    saved(tmp_path / "c", make(recipe=Released()))
    edit(tmp_path / "c" / "certificate.json", lambda certificate: certificate.update(bound=0.5, norm="inf,2"))
    with pytest.raises(CertificateError, match="the model's bound is None, but its certificate says"):
        load_model(tmp_path / "c")
    saved(tmp_path / "d")
    state = load_file(tmp_path / "d" / "model.safetensors")
    state["extra"] = torch.zeros(1)
    save_file(state, tmp_path / "d" / "model.safetensors")
    with pytest.raises(DataError, match=r"do not fit the model of config\.json \(extra\)"):
        load_model(tmp_path / "d")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "certificate.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated"])
def test_damaged_folders_are_one_line(tmp_path: Path, name: str, damage: str) -> None:
    saved(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    if damage != "missing":
        (tmp_path / name).write_bytes(content[:50] if damage == "truncated" else b"")
    with pytest.raises((DataError, CertificateError), match=name.replace(".", r"\.")) as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_only_objects_of_the_library_are_stored() -> None:
    class Own(Recipe):
        name = "own"

        def build(self, shape: Any) -> Any:
            raise NotImplementedError

    with pytest.raises(TypeError, match="got Own"):
        make(recipe=Own()).to_json()


def test_unknown_objects_are_not_built() -> None:
    plain = make().to_json()
    with pytest.raises(DataError, match=r"unknown recipe 'system'"):
        ModelConfig.from_json(plain | {"recipe": {"class": "system", "fields": {}}})
    with pytest.raises(DataError, match="recipe cannot be rebuilt"):
        ModelConfig.from_json(plain | {"recipe": {"class": "Paper", "fields": {"no_such": 1}}})
    with pytest.raises(DataError, match="exactly these keys"):
        ModelConfig.from_json({"channels": 3})


def test_a_block_of_another_configuration_does_not_load(tmp_path: Path) -> None:
    saved(tmp_path)
    other = invertible_attention(12, kind="gaussian", layout="tokens")
    state = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(RuntimeError):
        make().build().load_state_dict(state)
