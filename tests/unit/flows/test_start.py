"""The first pass of data through a flow."""

from __future__ import annotations

import torch

from invattn.bijections import ActNorm, DataDependent, MonotoneSpline, Whitening
from invattn.flows import MultiscaleIResNet, start_from_data


def test_the_front_is_fitted_to_all_samples_and_the_rest_to_a_few() -> None:
    flow = MultiscaleIResNet((1, 4, 4), (1, 1), 4, whitening=4, knots=4)
    x = (
        torch.randn(700, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        * torch.linspace(1, 3, 700)[:, None, None, None]
    )
    layers = [part for part in flow.modules() if isinstance(part, DataDependent)]
    assert start_from_data(flow.bijection, x, few=50) == len(layers)
    assert all(layer.is_fitted for layer in layers)
    alone = Whitening(16)
    parts = flow.bijection.parts()
    alone.fit(parts[0](x))
    whitening, spline = parts[1], parts[2]
    assert isinstance(whitening, Whitening)
    assert isinstance(spline, MonotoneSpline)
    torch.testing.assert_close(whitening.weight, alone.weight)
    again = MonotoneSpline(16, knots=4)
    again.fit(alone(parts[0](x)))
    torch.testing.assert_close(spline.places, again.places, atol=1e-4, rtol=1e-4)
    assert start_from_data(flow.bijection, 2 * x) == 0
    few = MultiscaleIResNet((1, 4, 4), (1,), 4)
    start_from_data(few.bijection, x, few=2)
    first = ActNorm(4)
    first.fit(few.bijection.parts()[0](x))
    (started, *_) = [part for part in few.modules() if isinstance(part, ActNorm)]
    torch.testing.assert_close(started.log_scale, first.log_scale)
    # The last one, behind the block, has seen the two samples alone.
    z = few.bijection(x[[0, -1]]).view(2, 4, 2, 2).detach()
    torch.testing.assert_close(z.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
