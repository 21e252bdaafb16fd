"""A folder that holds one model: ``model.safetensors``, ``config.json`` and ``certificate.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as format_safetensors
from torch import Tensor, nn

from invattn._errors import CertificateError, DataError
from invattn._files import atomic_write, read_json, write_json
from invattn.bijections import Bijection
from invattn.hub.certificate import differences, full_certificate, hash_json
from invattn.hub.config import ModelConfig, StoredConfig
from invattn.hub.flow_config import FlowConfig, ImageFlowConfig, TokenFlowConfig, VectorFlowConfig

WEIGHTS, CONFIG, CERTIFICATE = "model.safetensors", "config.json", "certificate.json"

_REMEDY = "Restore the folder from its source, or save the model again."

_Kind = TypeVar("_Kind", bound=StoredConfig)
ConfigT = TypeVar("ConfigT", bound=StoredConfig, covariant=True)


class LoadedModel(NamedTuple, Generic[ConfigT]):
    """A model read from a folder.

    Attributes:
        model: The bijection with the stored weights, in eval mode.
        config: What it was built from.
        certificate: The content of ``certificate.json``; its ``bound`` is None where nothing is proven.
        problems: How model and certificate differ, one sentence each, with the name of the block; empty for a model
            that is what was certified.
    """

    model: Bijection
    config: ConfigT
    certificate: dict[str, Any]
    problems: tuple[str, ...] = ()


class ReadModel(NamedTuple):
    """What a folder holds, of whatever family; attributes as of :class:`LoadedModel`."""

    model: nn.Module
    config: StoredConfig
    certificate: dict[str, Any]
    problems: tuple[str, ...] = ()


def save_model(model: nn.Module, folder: Path | str, *, config: StoredConfig) -> dict[str, Any]:
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
    folder = Path(folder)
    state = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    plain = json.loads(json.dumps(config.to_json()))
    certificate = full_certificate(model) | {"config": hash_json(plain)}
    certificate["seal"] = hash_json(certificate)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / WEIGHTS, format_safetensors(state))
    write_json(folder / CONFIG, plain)
    write_json(folder / CERTIFICATE, certificate)
    return certificate


def load_model(folder: Path | str) -> LoadedModel[ModelConfig]:
    """Rebuild a model from its folder and verify that it is the one that was certified.

    Args:
        folder: What ``save_model`` wrote.

    Returns:
        The model in eval mode, its configuration and certificate.

    Raises:
        DataError: If a file is missing, damaged, from another version, or the model is no single block.
        CertificateError: If the configuration, a tensor, a bound or a factor is not the stored one; the block is named.
    """
    return _load(folder, ModelConfig, what="a single attention block")


def load_flow(folder: Path | str) -> LoadedModel[FlowConfig]:
    """Rebuild a flow from its folder, as :func:`load_model` does for a block.

    Raises:
        DataError: As ``load_model``, and if the folder holds another model.
        CertificateError: As ``load_model``.
    """
    return _load(folder, FlowConfig, what="a flow")  # type: ignore[type-abstract]


def _load(folder: Path | str, kind: type[_Kind], *, what: str) -> LoadedModel[_Kind]:
    loaded = read_model(folder)
    refuse(folder, loaded.problems)
    if not isinstance(loaded.config, kind):
        raise DataError(f"{folder} does not hold {what}. Give the folder of another model.")
    assert isinstance(loaded.model, Bijection), "what such a configuration builds"
    return LoadedModel(loaded.model, loaded.config, loaded.certificate, loaded.problems)


def refuse(folder: Path | str, problems: Sequence[str]) -> None:
    """Raise CertificateError if a model differs from its certificate, with the first difference.

    Args:
        folder: The model's, for the message.
        problems: What ``read_model`` found.
    """
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise CertificateError(f"{folder} differs from its certificate: {problems[0]}{more}. {_REMEDY}")


def read_model(folder: Path | str, *, families: Sequence[type[StoredConfig]] = ()) -> ReadModel:
    """Rebuild a model from its folder and list how it differs from its certificate, without refusing it.

    Args:
        folder: What ``save_model`` wrote.
        families: Configurations of models that are not the library's, which the folder may hold too.

    Raises:
        DataError: If a file is missing, damaged, or from another version.
    """
    folder = Path(folder)
    certificate = read_json(folder / CERTIFICATE)
    if not isinstance(certificate, dict) or not {"bound", "blocks", "config", "tensors"} <= certificate.keys():
        raise DataError(f"{folder / CERTIFICATE} is not a certificate of this version. Save the model again.")
    plain = read_json(folder / CONFIG)
    problems = []
    if hash_json(plain) != certificate["config"]:
        problems.append(f"{CONFIG} is not the certified one")
    config = _config(plain, families)
    try:
        model = config.build()
    except (TypeError, ValueError) as error:
        raise DataError(f"{folder / CONFIG} cannot be built: {error} {_REMEDY}") from None
    state = _read_weights(folder / WEIGHTS)
    own = model.state_dict()
    unknown = sorted(state.keys() ^ own.keys())
    if unknown or any(state[name].shape != own[name].shape for name in own):
        names = ", ".join(unknown) or "another shape"
        raise DataError(f"the tensors of {folder / WEIGHTS} do not fit the model of {CONFIG} ({names}). {_REMEDY}")
    _adopt(model, state)
    model.eval()
    problems += differences(model, certificate)
    sealed = {name: value for name, value in certificate.items() if name != "seal"}
    if not problems and hash_json(sealed) != certificate.get("seal"):
        problems.append(f"{CERTIFICATE} was changed after it was written")
    return ReadModel(model, config, certificate, tuple(problems))


def _config(plain: Any, families: Sequence[type[StoredConfig]]) -> StoredConfig:
    name = plain.get("model") if isinstance(plain, dict) else None
    own: tuple[type[StoredConfig], ...] = (ModelConfig, TokenFlowConfig, ImageFlowConfig, VectorFlowConfig)
    known: dict[Any, type[StoredConfig]] = {family.model: family for family in (*own, *families)}
    if name not in known:
        raise DataError(
            f"{CONFIG} names the model {name!r}, which is neither a single attention block nor a flow: read the folder "
            "with the command that wrote it."
        )
    return known[name].from_json(plain)


def _adopt(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load tensors with their own floating-point type: a certificate is about the stored numbers, not their casts."""
    types = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    if len(types) == 1:
        model.to(types.pop())
    model.load_state_dict(state)


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return parse_safetensors(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. {_REMEDY}") from None
    except (SafetensorError, ValueError):
        raise DataError(f"{path} is damaged or not a safetensors file. {_REMEDY}") from None
