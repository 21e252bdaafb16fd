"""The memory that a computation holds at its peak, counted."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors made inside this context and alive at one time, in the graph of autograd too.

    Each storage counts once, from the operation that makes it until nothing holds it any more. Storages made before
    (parameters, inputs) and the workspace inside a single operation are not counted. Exact and reproducible, on every
    device; not the figure of an allocator, which also rounds up and caches.

    Attributes:
        live: Bytes alive now.
        peak: The most bytes alive at one time.

    Example:
        >>> import torch
        >>> from invattn.testing import PeakMemory
        >>> with PeakMemory() as memory:
        ...     x = torch.zeros(1000)
        ...     y = (x + 1).sum()
        >>> memory.peak, memory.live
        (8004, 4004)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._seen: dict[int, weakref.ref[UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _tensors((args, tuple((kwargs or {}).values()))):
            self._notice(tensor, new=False)
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            self._notice(tensor, new=True)
        return result

    def _notice(self, tensor: Tensor, *, new: bool) -> None:
        """Count a storage that is seen for the first time, unless it was there before."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen:
            return
        size = storage.nbytes() if new else 0

        def gone(_: object) -> None:
            self._seen.pop(key, None)
            self.live -= size

        self._seen[key] = weakref.ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)


def _tensors(found: object) -> Iterator[Tensor]:
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, list | tuple):
        for part in found:
            yield from _tensors(part)
