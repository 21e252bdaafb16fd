"""A folder that holds one model: ``model.safetensors``, ``config.json`` and ``certificate.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as format_safetensors
from torch import Tensor

from invattn._errors import CertificateError, DataError
from invattn.bijections import Bijection
from invattn.checkpoints.certificate import certificate_of, hash_json, hash_tensors
from invattn.checkpoints.config import ModelConfig
from invattn.records import atomic_write, read_json, write_json

WEIGHTS, CONFIG, CERTIFICATE = "model.safetensors", "config.json", "certificate.json"

BOUND_TOLERANCE = 1e-9
"""Relative difference allowed between the stored bound and the recomputed one: other machines sum in another order."""


class LoadedModel(NamedTuple):
    """A verified model.

    Attributes:
        model: The bijection with the stored weights, in eval mode.
        config: What it was built from.
        certificate: The content of ``certificate.json``; its ``bound`` is None where nothing is proven.
    """

    model: Bijection
    config: ModelConfig
    certificate: dict[str, Any]


def save_model(model: Bijection, folder: Path, *, config: ModelConfig) -> dict[str, Any]:
    """Write a model with its certificate; the folder is made if it is missing.

    Args:
        model: What ``config.build`` made, trained or not.
        folder: Where the three files go; older ones of the same names are replaced.
        config: What the model was built from.

    Returns:
        The content of ``certificate.json``.

    Raises:
        OSError: If a file cannot be written.
    """
    state = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    plain = json.loads(json.dumps(config.to_json()))
    proven = certificate_of(config.block_of(model))
    certificate = {
        **(proven or {"bound": None, "norm": None, "derivation": "nothing is proven of this recipe", "factors": {}}),
        "config": hash_json(plain),
        "tensors": hash_tensors(state),
    }
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / WEIGHTS, format_safetensors(state))
    write_json(folder / CONFIG, plain)
    write_json(folder / CERTIFICATE, certificate)
    return certificate


def load_model(folder: Path) -> LoadedModel:
    """Rebuild a model from its folder and verify that it is the one that was certified.

    Args:
        folder: What ``save_model`` wrote.

    Returns:
        The model in eval mode, its configuration and certificate.

    Raises:
        DataError: If a file is missing, damaged, or from another version.
        CertificateError: If the configuration or any tensor is not the stored one, or the bound cannot be reproduced.
    """
    certificate = read_json(folder / CERTIFICATE)
    if not isinstance(certificate, dict) or not {"bound", "config", "tensors"} <= certificate.keys():
        raise DataError(f"{folder / CERTIFICATE} is not a certificate of invattn. Save the model again.")
    plain = read_json(folder / CONFIG)
    if hash_json(plain) != certificate["config"]:
        raise CertificateError(f"{folder / CONFIG} differs from what the certificate was made for. {_REMEDY}")
    state = _read_weights(folder / WEIGHTS)
    _check_tensors(state, certificate["tensors"], folder / WEIGHTS)
    config = ModelConfig.from_json(plain)
    model = config.build()
    try:
        model.load_state_dict(state)
    except RuntimeError:
        raise DataError(
            f"the tensors of {folder / WEIGHTS} do not fit the model of config.json. Use the version that wrote it."
        ) from None
    _check_bound(certificate_of(config.block_of(model)), certificate, folder)
    model.eval()
    return LoadedModel(model, config, certificate)


_REMEDY = "Restore the folder from its source, or save the model again."


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return parse_safetensors(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. {_REMEDY}") from None
    except (SafetensorError, ValueError):
        raise DataError(f"{path} is damaged or not a safetensors file. {_REMEDY}") from None


def _check_tensors(state: Mapping[str, Tensor], stored: Any, path: Path) -> None:
    found = hash_tensors(state)
    if not isinstance(stored, dict):
        raise DataError(f"the certificate beside {path} lists no tensors. {_REMEDY}")
    different = sorted(name for name in found.keys() | stored.keys() if found.get(name) != stored.get(name))
    if different:
        raise CertificateError(f"{path} differs from its certificate in {', '.join(different)}. {_REMEDY}")


def _check_bound(proven: dict[str, Any] | None, stored: Mapping[str, Any], folder: Path) -> None:
    now = None if proven is None else proven["bound"]
    then = stored["bound"]
    same = now is None if then is None else now is not None and math.isclose(now, then, rel_tol=BOUND_TOLERANCE)
    if not same or (proven is not None and proven["norm"] != stored.get("norm")):
        raise CertificateError(f"the bound of {folder} is {now}, but its certificate says {then}. {_REMEDY}")
