"""The sizes of the DKM paper: its own count, and palettes that fit real layers."""

from __future__ import annotations

import pytest
import torch

from benchmarks.paper_sizes import MIB, NETWORKS, SETTINGS, rule_bytes, specs


@pytest.fixture(scope="module")
def networks():
    with torch.device("meta"):
        return {name: make() for name, make in NETWORKS.items()}


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_papers_figures_come_out_to_the_printed_digit(networks, setting):
    counted = rule_bytes(networks[setting.network], setting) / MIB
    digits = 1 if setting.mib > 10 else 2
    assert round(counted, digits) == setting.mib


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_palette_fits_its_weight_at_the_papers_bits(networks, setting):
    model = networks[setting.network]
    for name, spec in specs(model, setting).items():
        assert spec.refuse(model.get_parameter(name).shape) is None
        rates = {8.0} | {bits / dim for bits, dim in (setting.body, setting.last)}
        assert spec.bits / spec.cluster_dim in rates, name
