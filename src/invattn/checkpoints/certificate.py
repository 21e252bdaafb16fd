"""What is proven of a stored model, and of which weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from invattn._errors import CertificateError
from invattn.bijections import Bijection


def certificate_of(block: Bijection) -> dict[str, Any] | None:
    """Return bound, norm, derivation and every factor of an attention block; None if nothing is proven of it."""
    try:
        bound = block.lipschitz_bound()
    except CertificateError:
        return None
    return {
        "bound": bound.value,
        "norm": bound.norm,
        "derivation": bound.derivation,
        "factors": dict(bound.factors),
    }


def hash_tensors(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the SHA-256 of each tensor over its type, shape and values."""
    return {name: _hash_tensor(tensor) for name, tensor in state.items()}


def _hash_tensor(tensor: Tensor) -> str:
    values = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{values.dtype} {tuple(values.shape)} ".encode())
    digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def hash_json(value: Any) -> str:
    """Return the SHA-256 of plain values; the order of keys and the layout of a file do not change it."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
