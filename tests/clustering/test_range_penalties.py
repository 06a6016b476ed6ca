from __future__ import annotations

import pytest
import torch

from dkm_deploy.clustering.range_penalties import largest_magnitude, overshoot_penalty, soft_span


def _weight(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def test_the_largest_alone_gets_a_gradient():
    weight = _weight(0.5, -2.0, 1.0)
    value = largest_magnitude(weight)
    value.backward()
    assert value.item() == 2
    assert weight.grad.tolist() == [0, -1, 0]


class TestBeyond:
    def test_is_the_margin_and_what_sticks_out(self):
        weight, margin = _weight(0.5, -2.0, 1.5), torch.tensor(1.0, requires_grad=True)
        value = overshoot_penalty(weight, margin)
        value.backward()
        assert value.item() == pytest.approx(1 + 1 + 0.5)
        assert weight.grad.tolist() == [0, -1, 1]

    @pytest.mark.parametrize(("margin", "slope"), [(3.0, 1), (1.75, 0), (1.0, -1), (-1.0, 1)])
    def test_the_margin_rests_where_one_value_sticks_out(self, margin, slope):
        learned = torch.tensor(margin, requires_grad=True)
        overshoot_penalty(_weight(0.5, -2.0, 1.5), learned).backward()
        assert learned.grad.item() == slope


class TestSoftSpan:
    def test_is_between_soft_extremes(self):
        weight, sharpness = _weight(0.0, 1.0), torch.tensor(2.0, dtype=torch.float64)
        high = torch.tensor(2.0).exp() / (1 + torch.tensor(2.0).exp())
        expected = high - (1 - high) + torch.tensor(-2.0).exp()
        assert soft_span(weight, sharpness).item() == pytest.approx(expected.item())

    def test_tends_to_the_range(self):
        weight = _weight(-1.0, 0.3, 0.4, 2.5)
        spans = [soft_span(weight, torch.tensor(a, dtype=torch.float64)).item() for a in (1, 50)]
        assert spans[0] < 3.5
        assert spans[1] == pytest.approx(3.5)

    def test_large_weights_do_not_overflow(self):
        weight = torch.tensor([-6e4, 6e4], dtype=torch.float16)
        assert soft_span(weight, torch.tensor(10.0)).item() == pytest.approx(12e4, rel=1e-3)

    def test_its_gradient(self):
        weight = _weight(-1.0, 0.3, 0.4, 2.5)
        sharpness = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(soft_span, (weight, sharpness))
