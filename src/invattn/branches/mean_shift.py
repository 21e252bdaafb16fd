"""A start of the weights at which attention pulls tokens towards the origin by the mean of similar tokens."""

from __future__ import annotations

import torch
from torch import nn

_VALUE, _OUTPUT = 0.5, 2.0


@torch.no_grad()
def start_as_shift(value: nn.Linear, output: nn.Linear) -> None:
    """Set W_V = I/2, W_L = -2 I and no biases, so that g(x)_i is about -(the mean of the tokens that token i sees).

    Where a token sees those of its own cluster, x + g(x) shrinks the cluster's centre and leaves the differences
    within it alone: what a density model of exchangeable points has to do. The scale that holds the certificate then
    takes the part of W_L that the bound does not allow.

    Args:
        value: The map W_V, C to C.
        output: The map W_L, C to C.
    """
    for linear, factor in ((value, _VALUE), (output, -_OUTPUT)):
        linear.weight.copy_(factor * torch.eye(*linear.weight.shape))
        linear.bias.zero_()
