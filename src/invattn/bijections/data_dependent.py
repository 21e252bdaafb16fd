"""Layers that start from data, and the one pass that starts them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class DataDependent(ABC):
    """A layer whose parameters are first set from its inputs."""

    @property
    @abstractmethod
    def is_fitted(self) -> bool:
        """Whether it has been set; kept in the state_dict."""

    @abstractmethod
    def fit(self, x: Tensor) -> None:
        """Set the parameters from inputs with shape (B, ...)."""


@torch.no_grad()
def initialize(module: nn.Module, x: Tensor) -> int:
    """Start every layer of a map that starts from data, in the order in which data reach it.

    Layers that were started before (or loaded so) are left alone. Call it once before training, and before a module
    is wrapped for several processes: each process would otherwise start from its own batch.

    Args:
        module: A bijection, or anything that holds some and is called with x.
        x: A first batch with shape (B, ...); several hundred samples are better than a few.

    Returns:
        How many layers were started.

    Example:
        >>> import torch
        >>> from invattn.bijections import ActNorm, initialize
        >>> initialize(ActNorm(3), torch.randn(64, 3))
        1
    """
    started: list[DataDependent] = []

    def before(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, DataDependent)
        if not layer.is_fitted:
            layer.fit(inputs[0])
            started.append(layer)

    handles = [part.register_forward_pre_hook(before) for part in module.modules() if isinstance(part, DataDependent)]
    try:
        module(x)
    finally:
        for handle in handles:
            handle.remove()
    return len(started)
