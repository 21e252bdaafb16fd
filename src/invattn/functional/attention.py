"""Normalised attention from factors, by the back end that suits the case.

A score is either a product q_i . k_j or a sum q_i + k_j of two scalars; the latter is the concatenation
kind, which is never built from an N x N x 2C tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from invattn.functional._transforms import transforms_active
from invattn.functional.dense import Response, attend_dense, positions, with_triangle
from invattn.functional.dispatch import Case, Choice, choose
from invattn.functional.fused import attend_fused
from invattn.functional.sorted_attention import attend_sorted
from invattn.functional.streamed import attend_streamed


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    response: Response,
    logit_bias: Tensor | None = None,
    mask: Tensor | None = None,
    causal: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Return sum_j P_ij v_j for every query i.

    Args:
        query: Query factors with shape (B, H, N, d), d = 1 for additive scores.
        key: Key factors with shape (B, H, M, d).
        value: Values with shape (B, H, M, C).
        response: Kernel and normalisation.
        logit_bias: Added to log phi(score), shape (H, N, M); positive kernels only.
        mask: Boolean, shape (N, M); True where query i may see key j.
        causal: Query i sees keys 0 ... i, besides what the mask says.
        backend: Name of the back end, see :data:`invattn.functional.BACKENDS`; None: that of the response, or the one
            that the table of :mod:`invattn.functional.dispatch` says.

    Returns:
        A tensor with shape (B, H, N, C), which autograd and torch.func differentiate twice and more. A query that may
        see no key gets zeros.

    Raises:
        ValueError: If a logit bias meets a kernel without logarithm, or the back end cannot do this.

    References:
        Zha et al. 2021, Table 1 and Eq. 2.
    """
    if logit_bias is not None and response.kernel.log_value is None:
        raise ValueError(f"a logit bias needs a positive kernel; {response.kernel.name!r} has no logarithm.")
    chosen = explain(
        query, key, value, response=response, logit_bias=logit_bias, mask=mask, causal=causal, backend=backend
    )
    if chosen.backend == "dense":
        seen = with_triangle(mask, positions(query), positions(key)) if causal else mask
        return attend_dense(query, key, value, response, logit_bias, seen)
    device = query.device.type
    casting = torch.is_autocast_enabled(device)
    with torch.autocast(device, enabled=False):
        query, key, value = _equally_precise(query, key, value, at_least=torch.float32 if casting else None)
        if chosen.backend == "sorted":
            out = attend_sorted(query, key, value, response)
        elif chosen.backend == "fused":
            out = attend_fused(query, key, value, response, causal)
        else:
            bias = None if logit_bias is None else logit_bias.to(query.dtype)
            out = attend_streamed(query, key, value, response, bias, mask, causal)
    return out.to(torch.get_autocast_dtype(device)) if casting else out


def explain(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    response: Response,
    logit_bias: Tensor | None = None,
    mask: Tensor | None = None,
    causal: bool = False,
    backend: str | None = None,
) -> Choice:
    """Return which back end :func:`attend` takes for these arguments, and why."""
    recorded = transforms_active() or (
        torch.is_grad_enabled() and any(part.requires_grad for part in (query, key, value))
    )
    case = Case(
        response,
        batch=query.shape[:-2].numel(),
        heads=query.shape[-3],
        queries=query.shape[-2],
        keys=key.shape[-2],
        itemsize=query.element_size(),
        order=2 if recorded else 0,
        device=query.device.type,
        width=max(query.shape[-1], value.shape[-1]),
        masked=mask is not None,
        causal=causal,
        biased=logit_bias is not None,
        compiling=torch.compiler.is_compiling(),
    )
    return choose(case, backend or response.backend)


def _equally_precise(*tensors: Tensor, at_least: torch.dtype | None) -> list[Tensor]:
    dtype = tensors[0].dtype if at_least is None else at_least
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return [tensor.to(dtype) for tensor in tensors]
