"""The laws of the back ends on a GPU: value and all derivatives of the dense form on the processor, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from .test_backend_laws import SOME, AttentionCase, derivatives

DEVICE = "cuda"
CLOSE = 1e-9  # of the largest entry, float64; a GPU sums in another order
CASES = [case for case in SOME if case.backend != "fused" and case.sees in ("all", "causal")]


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES, ids=str)
def test_all_derivatives_are_those_of_the_dense_form_on_the_processor(
    case: AttentionCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invattn.functional.streamed.TILE_SCORES", 64)
    monkeypatch.setattr("invattn.functional.streamed.LEAST_ROWS", 2)
    inputs = case.inputs()

    def there(*tensors: Tensor) -> Tensor:
        return case.attend(*[tensor.to(DEVICE) for tensor in tensors]).cpu()

    def dense(*tensors: Tensor) -> Tensor:
        return case.attend(*tensors, backend="dense")

    found = dict(derivatives(there, inputs, seed=1))
    for what, expected in derivatives(dense, inputs, seed=1):
        pairs = [(found[what], expected)] if isinstance(expected, Tensor) else zip(found[what], expected, strict=True)
        for one, other in pairs:
            error = float((one - other).detach().abs().max())
            assert error <= CLOSE * max(1.0, float(other.detach().abs().max())), f"{what}: {error:.2g}"


@pytest.mark.gpu
def test_fused_is_refused_and_the_table_chooses_what_runs() -> None:
    case = next(case for case in SOME if str(case) == "fused-exp-row-product-all")
    inputs = [tensor.to(DEVICE) for tensor in case.inputs()]
    with pytest.raises(ValueError, match="fused kernels of torch for processors"):
        case.attend(*inputs)
    assert torch.isfinite(case.attend(*inputs, backend="streamed")).all()
