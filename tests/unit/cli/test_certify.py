"""The certificate of a stored model is recomputed, printed and compared; whatever was changed is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from invattn import CertificateError, invertible_attention
from invattn.bijections import Bijection, Composed
from invattn.cli.main import main
from invattn.hub import BlockCertificate, ModelConfig, block_certificates, load_model, read_model, save_model
from invattn.hub.certificate import certificate_of, differences, full_certificate
from invattn.recipes import Certified, Paper, Recipe


def saved(folder: Path, recipe: Recipe | None = None, squeeze: int = 2) -> ModelConfig:
    config = ModelConfig(channels=4, kind="concatenation", recipe=recipe or Certified(), num_heads=2, squeeze=squeeze)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = config.build()
    save_model(model, folder, config=config)
    return config


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    status = main(["certify", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def edit(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def multiply_a_weight(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    name = next(key for key in state if key.endswith("value.weight"))
    save_file({**state, name: 3 * state[name]}, folder / "model.safetensors")


def edit_a_factor(folder: Path) -> None:
    def change(certificate: Any) -> None:
        certificate["blocks"]["bijections.1.tokens"]["factors"]["head_1.V"] *= 1.001

    edit(folder / "certificate.json", change)


def edit_the_derivation(folder: Path) -> None:
    edit(folder / "certificate.json", lambda certificate: certificate.update(derivation="trust me"))


def test_a_certified_model_is_printed_and_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path)
    status, out, err = run(capsys, tmp_path, "--shape", "1,4,6", "--derivation")
    bound = load_model(tmp_path).certificate["bound"]
    assert status == 0
    assert err == ""
    row = next(line for line in out.splitlines() if line.startswith("bijections.1.tokens "))
    assert row.split() == ["bijections.1.tokens", "concatenation", "attention", f"{bound:.9f}", "inf,2", "153"]
    assert "bijections.1.tokens: Theorem R, kernel elu+1" in out
    constants = load_model(tmp_path).model.bi_lipschitz((1, 4, 6))
    assert f"{constants.lower:.6g} |x - y|_{{inf,2}} <=" in out
    assert constants.upper == pytest.approx(2 * (1 + bound))
    assert out.endswith("the model is the one that was certified.\n")


def test_an_uncertified_model_is_printed_and_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path, Paper(), squeeze=1)
    status, out, err = run(capsys, tmp_path, "--shape", "4,3,3")
    assert status == 1
    assert re.search(r"^tokens +concatenation attention +none +- +-$", out, re.MULTILINE)
    assert "whole model at (4, 3, 3): none" in out
    assert "is not proven invertible (tokens). Train it with --recipe certified" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (multiply_a_weight, r"block bijections\.1\.tokens: the tensor \S+value\.weight is not the certified one"),
        (edit_a_factor, r"block bijections\.1\.tokens: the factor head_1\.V is \S+, but its certificate says"),
        (edit_the_derivation, r"certificate\.json was changed after it was written"),
    ],
)
def test_a_tampered_model_is_refused_with_the_name_of_the_block(
    tamper: Callable[[Path], None], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path)
    tamper(tmp_path)
    status, out, err = run(capsys, tmp_path)
    assert status == 1
    assert "bijections.1.tokens  concatenation attention" in out  # the table is printed all the same
    assert re.search(words, err)
    assert err.count("\n") == 1
    with pytest.raises(CertificateError, match=words):
        load_model(tmp_path)


def test_a_changed_weight_with_its_hash_made_anew_is_still_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    multiply_a_weight(tmp_path)
    hashes = full_certificate(read_model(tmp_path).model)["tensors"]
    edit(tmp_path / "certificate.json", lambda certificate: certificate.update(tensors=hashes))
    with pytest.raises(CertificateError, match=r"block bijections\.1\.tokens: the (bound|factor \S+) is"):
        load_model(tmp_path)


@pytest.mark.parametrize("shape", ["3,x", "0,2", "1,2,3,4", ""])
def test_a_wrong_shape_is_one_line(shape: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path)
    status, _, err = run(capsys, tmp_path, "--shape", shape)
    assert status == 1
    assert "is no shape of an input; write C,H,W" in err
    assert err.count("\n") == 1


def test_a_missing_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, tmp_path / "nothing")
    assert status == 1
    assert "does not exist" in err
    assert err.count("\n") == 1


def test_a_configuration_that_cannot_be_built_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path)
    edit(tmp_path / "config.json", lambda config: config.update(lipschitz=1.5))
    status, _, err = run(capsys, tmp_path)
    assert status == 1
    assert "config.json cannot be built: lipschitz must lie strictly between 0 and 1; got 1.5." in err


def chain(*recipes: str) -> Bijection:
    torch.manual_seed(0)
    parts = [invertible_attention(4, recipe=recipe, lipschitz=0.5 + 0.1 * i) for i, recipe in enumerate(recipes)]
    return Composed(parts)


def test_every_block_of_a_chain_has_its_own_certificate() -> None:
    model = chain("certified", "certified")
    blocks = block_certificates(model)
    assert list(blocks) == ["bijections.0.tokens", "bijections.1.tokens"]
    for i, block in enumerate(blocks.values()):
        assert block.holds
        assert block.bound == pytest.approx(0.5 + 0.1 * i, rel=1e-4)
    worst = certificate_of(model)
    assert worst is not None
    assert worst["bound"] == blocks["bijections.1.tokens"].bound
    assert certificate_of(chain("certified", "paper")) is None
    assert certificate_of(Composed([])) is None


def test_blocks_that_come_or_go_are_named() -> None:
    stored = full_certificate(chain("certified", "certified"))
    assert differences(chain("certified", "certified"), stored) == []
    fewer = differences(chain("certified"), stored)
    assert "block bijections.1.tokens: the model has no such block" in fewer
    more = differences(chain("certified", "certified"), full_certificate(chain("certified")))
    assert "block bijections.1.tokens: its certificate is missing" in more
    other = {**stored, "blocks": {name: {**block, "kind": "mlp"} for name, block in stored["blocks"].items()}}
    assert (
        "block bijections.0.tokens: kind is embedded_gaussian attention, but its certificate says mlp"
        in differences(chain("certified", "certified"), other)
    )


@pytest.mark.parametrize(("bound", "steps"), [(0.5, 21), (0.7, 43), (0.9, 153), (0.95, 328), (0.0, 1)])
def test_worst_case_steps(bound: float, steps: int) -> None:
    """The column for 1e-6 of the design's table: the least n with L^n / (1 - L) <= 1e-6."""
    assert BlockCertificate("test", bound, "2", "", {}).steps() == steps
    if bound:
        assert bound**steps / (1 - bound) <= 1e-6 < bound ** (steps - 1) / (1 - bound)


def test_nothing_proven_means_no_steps() -> None:
    assert BlockCertificate("test", None, None, "", {}).steps() is None
    assert BlockCertificate("test", 1.0, "2", "", {}).steps() is None
    assert not BlockCertificate("test", 1.0, "2", "", {}).holds
