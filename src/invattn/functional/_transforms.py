"""What the surrounding torch.func transforms allow."""

from __future__ import annotations

import torch


def transforms_active() -> bool:
    """Whether a torch.func transform (grad, vjp, jvp, vmap, ...) is being applied right now."""
    return bool(torch._C._are_functorch_transforms_active())
