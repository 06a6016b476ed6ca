from __future__ import annotations

import numpy as np
import torch

from dkm_deploy.clustering.quantizers.eight_bit import at_eight_bits
from dkm_deploy.clustering.quantizers.int8_lut import on_grid


def _values(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 60, 3, generator=generator, dtype=torch.float64).to(dtype)


def test_values_move_to_the_grid_of_8_bit_luts_by_half_a_step_at_most():
    values = _values()
    rounded = at_eight_bits(values)
    assert on_grid(rounded.numpy())
    step = values.abs().max() / 127
    assert 0.4 * step < (rounded - values).abs().max() <= 0.5 * step
    assert torch.equal(rounded.abs().max(), values.abs().max())


def test_the_gradient_is_scaled_by_sign_and_distance():
    values = _values().requires_grad_()
    upstream = _values().flip(1)
    rounded = at_eight_bits(values, 0.1)
    (gradient,) = torch.autograd.grad(rounded, values, upstream)
    span = 2 * values.abs().max()
    expected = upstream * (1 + 0.1 * upstream.sign() * (values - rounded) / span)
    torch.testing.assert_close(gradient, expected.detach())
    assert not torch.equal(gradient, upstream)


def test_zeros_and_small_halves():
    assert torch.equal(at_eight_bits(torch.zeros(1, 4, 1)), torch.zeros(1, 4, 1))
    small = _values(torch.float16) * 1e-3
    np.testing.assert_allclose(at_eight_bits(small), small, atol=0.6 * float(small.max()) / 100)
