from __future__ import annotations

import pytest
import torch

from dkm_deploy.clustering.quantizers.uniform_levels import assign_levels, quantize, start, values


def _vectors(count=400):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, count, 1, generator=generator, dtype=torch.float64)


def _learned(*rows):
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("clusters", [2, 4, 8])
def test_levels_are_uniform_and_symmetric(clusters):
    levels = values(_learned([-1.0, 2.0, 0.7]), clusters)[0, :, 0]
    torch.testing.assert_close(levels, torch.linspace(-0.7, 0.7, clusters, dtype=torch.float64))


def test_the_interval_decides_which_level_and_the_scale_its_value():
    vectors = torch.tensor([-9.0, -1.0, 0.4, 0.6, 3.0]).double().reshape(1, 5, 1)
    learned = _learned([-1.0, 2.0, 10.0])  # thresholds of 4 levels at -0.5, 0.5 and 1.5
    assert assign_levels(vectors, learned, 4).tolist() == [[0, 0, 1, 2, 3]]
    expected = torch.tensor([-10, -10, -10 / 3, 10 / 3, 10]).double()
    torch.testing.assert_close(quantize(vectors, learned, 4, 0.0).flatten(), expected)


@pytest.mark.parametrize("clusters", [2, 4, 256])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_training_sees_the_values_of_the_assigned_levels(clusters, dtype):
    vectors = _vectors().to(dtype)
    learned = start(vectors, clusters)
    levels = assign_levels(vectors, learned, clusters).unsqueeze(-1)
    expected = values(learned, clusters).to(dtype).gather(1, levels)
    assert torch.equal(quantize(vectors, learned, clusters, 1e-3), expected)


def test_it_starts_at_three_deviations_with_the_scale_of_least_error():
    vectors = _vectors()
    learned = start(vectors, 4)
    deviation = vectors[..., 0].std(1, correction=0)
    torch.testing.assert_close(learned[:, 1], 3 * deviation)
    torch.testing.assert_close(learned[:, 0], -3 * deviation)

    def error(factor):
        scaled = learned * torch.tensor([1, 1, factor])
        return (quantize(vectors, scaled, 4, 0.0) - vectors).square().sum()

    assert error(1.0) < min(error(0.99), error(1.01))


def test_gradients_by_hand():
    """Inside: g a 2 / (u - l) (1 + d sign(g) (x - q)) to w; to a: 2 q - 1; outside: none to w."""
    vectors = torch.tensor([0.5, -3.0]).double().reshape(1, 2, 1).requires_grad_()
    learned = _learned([-1.0, 2.0, 10.0]).requires_grad_()
    (
        quantize(vectors, learned, 4, 0.1) * torch.tensor([-1.0, 1.0]).reshape(1, 2, 1)
    ).sum().backward()
    inner = -1 * 10 * 2 * (1 - 0.1 * (0.5 - 2 / 3))  # x = 0.5 lies at q = 2 / 3, rounded to even
    torch.testing.assert_close(vectors.grad.flatten(), torch.tensor([inner / 3, 0.0]).double())
    expected = torch.tensor([[inner * -0.5 / 3, inner * -0.5 / 3, -1 / 3 - 1]]).double()
    torch.testing.assert_close(learned.grad, expected)
