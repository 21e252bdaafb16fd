"""What is proven of a stored model, block by block, and of which weights."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from invattn._errors import CertificateError
from invattn.bijections import ResidualBijection

BOUND_TOLERANCE = 1e-9
"""Relative difference allowed between a stored number and the recomputed one: other machines sum in another order."""


@dataclass(frozen=True)
class BlockCertificate:
    """What is proven of one residual block.

    Attributes:
        kind: What its branch is.
        bound: The Lipschitz bound of the branch; None where nothing is proven.
        norm: The norm of the bound, or None.
        derivation: How the bound came about.
        factors: Every number that it uses, by name.
    """

    kind: str
    bound: float | None
    norm: str | None
    derivation: str
    factors: dict[str, float]

    @property
    def holds(self) -> bool:
        """Whether the block is proven invertible for every input."""
        return self.bound is not None and self.bound < 1

    def steps(self, tolerance: float = 1e-6) -> int | None:
        """Return how many plain steps reach this error, relative to the first step, in the worst case.

        The least n with L^n / (1 - L) <= tolerance; None where nothing is proven.

        References:
            docs/theory.md, "Consequences".
        """
        if self.bound is None or not self.holds:
            return None
        if self.bound == 0:
            return 1
        return max(1, math.ceil(math.log(tolerance * (1 - self.bound)) / math.log(self.bound)))

    def to_json(self) -> dict[str, Any]:
        """Return the certificate as plain values."""
        return asdict(self)

    def difference(self, stored: Any) -> str | None:
        """Say in words how a stored certificate differs from this one; None where it does not."""
        if not isinstance(stored, Mapping):
            return "its certificate is missing"
        for name in ("kind", "norm"):
            if stored.get(name) != getattr(self, name):
                return f"{name} is {getattr(self, name)}, but its certificate says {stored.get(name)}"
        if not _same(self.bound, stored.get("bound")):
            return f"the bound is {self.bound}, but its certificate says {stored.get('bound')}"
        known = _mapping(stored.get("factors"))
        for name in sorted(self.factors.keys() | known.keys()):
            if not _same(self.factors.get(name), known.get(name)):
                return f"the factor {name} is {self.factors.get(name)}, but its certificate says {known.get(name)}"
        return None


def block_certificates(model: nn.Module) -> dict[str, BlockCertificate]:
    """Return the certificate of every residual block of a model, by its path; "block" for the model itself."""
    blocks = {name: part for name, part in model.named_modules() if isinstance(part, ResidualBijection)}
    return {name or "block": _certify(block) for name, block in blocks.items()}


def _certify(block: ResidualBijection) -> BlockCertificate:
    kind = block.branch.kind
    try:
        bound = block.lipschitz_bound()
    except CertificateError as error:
        return BlockCertificate(kind=kind, bound=None, norm=None, derivation=f"nothing is proven: {error}", factors={})
    return BlockCertificate(
        kind=kind, bound=bound.value, norm=bound.norm, derivation=bound.derivation, factors=dict(bound.factors)
    )


def certificate_of(model: nn.Module) -> dict[str, Any] | None:
    """Return bound, norm, derivation and factors of the least contractive block; None if a block has none."""
    return _worst(block_certificates(model))


def _worst(blocks: Mapping[str, BlockCertificate]) -> dict[str, Any] | None:
    if not blocks or any(block.bound is None for block in blocks.values()):
        return None
    plain = max(blocks.values(), key=lambda block: block.bound or 0.0).to_json()
    return {name: plain[name] for name in ("bound", "norm", "derivation", "factors")}


def full_certificate(model: nn.Module) -> dict[str, Any]:
    """Return what ``certificate.json`` holds about the weights: the worst block's numbers, all blocks, all hashes."""
    nothing: dict[str, Any] = {"bound": None, "norm": None, "derivation": "a block has no proof", "factors": {}}
    blocks = block_certificates(model)
    return {
        **(_worst(blocks) or nothing),
        "blocks": {name: block.to_json() for name, block in blocks.items()},
        "tensors": hash_tensors(model.state_dict()),
    }


def differences(model: nn.Module, stored: Mapping[str, Any]) -> list[str]:
    """Compare a model with a stored certificate.

    Args:
        model: The model, with the weights that are to be verified.
        stored: The content of ``certificate.json``.

    Returns:
        One sentence for each difference, with the name of the block; empty where there is none.
    """
    blocks = block_certificates(model)
    found = _tensor_differences(hash_tensors(model.state_dict()), stored.get("tensors"), list(blocks))
    known = _mapping(stored.get("blocks"))
    for name in sorted(blocks.keys() | known.keys()):
        difference = "the model has no such block" if name not in blocks else blocks[name].difference(known.get(name))
        if difference is not None:
            found.append(f"block {name}: {difference}")
    worst = _worst(blocks) or {"bound": None, "norm": None}
    if not found and (not _same(worst["bound"], stored.get("bound")) or worst["norm"] != stored.get("norm")):
        found.append(f"the model's bound is {worst['bound']}, but its certificate says {stored.get('bound')}")
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return what a file holds where a mapping belongs; an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def hash_tensors(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the SHA-256 of each tensor over its type, shape and values."""
    hashes = {}
    for name, tensor in state.items():
        values = tensor.detach().cpu().contiguous()
        digest = hashlib.sha256(f"{values.dtype} {tuple(values.shape)} ".encode())
        digest.update(values.numpy().tobytes())
        hashes[name] = digest.hexdigest()
    return hashes


def hash_json(value: Any) -> str:
    """Return the SHA-256 of plain values; the order of keys and the layout of a file do not change it."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _tensor_differences(now: Mapping[str, str], stored: Any, blocks: list[str]) -> list[str]:
    known = _mapping(stored)
    changed = sorted(name for name in now.keys() | known.keys() if now.get(name) != known.get(name))
    return [f"{_owner(name, blocks)}the tensor {name} is not the certified one" for name in changed]


def _owner(tensor: str, blocks: list[str]) -> str:
    """Return "block NAME: " for the innermost block that holds a tensor, or nothing."""
    holders = [name for name in blocks if tensor.startswith(f"{name}.")]
    if not holders and "block" in blocks:
        holders = ["block"]
    return f"block {max(holders, key=len)}: " if holders else ""


def _same(now: float | None, then: Any) -> bool:
    if now is None or then is None or isinstance(then, bool) or not isinstance(then, int | float):
        return now is None and then is None
    return math.isclose(now, then, rel_tol=BOUND_TOLERANCE)
