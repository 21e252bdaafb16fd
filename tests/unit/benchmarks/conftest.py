"""Load what torch.func.jvp loads at its first use, without the deprecation warning that torch itself raises there."""

import warnings

import torch

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
    torch.func.jvp(torch.sin, (torch.ones(1),), (torch.ones(1),))
