from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

import dkm_deploy as dkm
from dkm_deploy.post_training.bin_quant import Bins
from tests.models import images, wide_net

SPEC = dkm.PaletteSpec(8)


def _right(outputs, labels):
    return 100 * float(np.mean(outputs.argmax(1) == labels))


@pytest.fixture(scope="module")
def model():
    return wide_net()


@pytest.fixture(scope="module")
def labelled(model):
    return [(images(40, seed), model(images(40, seed)).argmax(1)) for seed in range(2)]


def _values():
    return torch.randn(40, 50, generator=torch.Generator().manual_seed(0))


def test_the_first_bins():
    values = _values()
    bins = Bins.first(values, SPEC, means=False)
    mean, spread = values.double().mean(), values.double().std(correction=0)
    expected = [values.min(), mean - spread, mean, mean + spread, values.max()]
    assert bins.edges.tolist() == pytest.approx([float(edge) for edge in expected])
    middles = [(a + b) / 2 for a, b in pairwise(expected)]
    assert bins.levels().tolist() == pytest.approx([float(middle) for middle in middles])


@pytest.mark.parametrize("means", [True, False])
def test_every_value_is_within_its_bin(means):
    bins = Bins.first(_values(), SPEC, means).cut(0).cut(4)
    assert bins.count == 6
    low, high = bins.edges[bins.members()], bins.edges[bins.members() + 1]
    assert ((low <= bins.weight) & (bins.weight <= high)).all()
    levels = bins.levels()
    assert ((bins.edges[:-1] <= levels) & (levels <= bins.edges[1:])).all()
    palette = bins.palette()
    assert palette.bits == 3
    assert np.array_equal(palette.decode(), bins.decode().numpy())


def test_means_are_never_worse_than_midpoints():
    errors = [float(Bins.first(_values(), SPEC, means).errors().sum()) for means in (True, False)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("value", [0.0, 3.5])
def test_a_weight_of_equal_values_is_exact(value):
    palette = Bins.first(torch.full((3, 4), value), SPEC, means=True).palette()
    assert palette.bits == 1
    assert (palette.decode() == value).all()


def test_a_large_tolerance_leaves_four_bins(model, labelled):
    method = dkm.BinQuant(_right, tolerance=100)
    found = dkm.palettes(dkm.palettize(model, dkm.Recipe.uniform(4), method, labelled))
    assert {palette.bits for palette in found.values()} == {2}


def test_by_name_it_asks_the_top_1_accuracy(model, labelled):
    recipe = dkm.Recipe(rules=[dkm.Rule("hidden.weight", spec=dkm.PaletteSpec(3))])
    named = dkm.palettes(dkm.palettize(model, recipe, "bin_quant", labelled))
    assert named == dkm.palettes(dkm.palettize(model, recipe, dkm.BinQuant(_right), labelled))


def test_bins_are_cut_until_the_metric_is_back(model):
    batches = [(images(40, seed), model(images(40, seed)).detach()) for seed in range(2)]
    inputs, wanted = (torch.cat(parts) for parts in zip(*batches, strict=True))

    def _near(outputs, wanted):
        return -100 * float(np.linalg.norm(outputs - wanted) / np.linalg.norm(wanted))

    def _lost(bits):
        rules = [dkm.Rule("hidden.weight", spec=dkm.PaletteSpec(bits))]
        method = dkm.BinQuant(_near, tolerance=10)
        frozen = dkm.palettize(model, dkm.Recipe(rules=rules), method, batches)
        bins = len(np.unique(dkm.palettes(frozen)["hidden.weight"].indices))
        return -_near(frozen(inputs).detach().numpy(), wanted.numpy()), bins

    (rough, four), (lost, more) = _lost(2), _lost(5)
    assert four == 4 < more < 32
    assert lost <= 10 < rough


def test_a_search_that_was_killed_goes_on(model, labelled, tmp_path):
    calls, stop = 0, 10

    def _metric(outputs, labels):
        nonlocal calls
        calls += 1
        if calls > stop:
            raise KeyboardInterrupt
        return _right(outputs, labels)

    method = dkm.BinQuant(_metric, tolerance=0.5, cache=tmp_path)
    recipe = dkm.Recipe.uniform(3)
    with pytest.raises(KeyboardInterrupt):
        dkm.palettize(model, recipe, method, labelled)
    calls, stop = 0, 1_000
    resumed = dkm.palettes(dkm.palettize(model, recipe, method, labelled))
    first = calls
    calls = 0
    assert dkm.palettes(dkm.palettize(model, recipe, method, labelled)) == resumed
    assert calls == 1 < first  # the baseline alone
    whole = dkm.BinQuant(_metric, tolerance=0.5)
    assert dkm.palettes(dkm.palettize(model, recipe, whole, labelled)) == resumed
    assert calls - 1 == first + 9  # 10 calls before the kill, the baseline one of them


@pytest.mark.parametrize("evaluations", [0, 7])
def test_without_evaluations_the_squared_error_decides(model, labelled, evaluations):
    calls = 0

    def _metric(outputs, labels):
        nonlocal calls
        calls += 1
        return _right(outputs, labels)

    method = dkm.BinQuant(_metric, tolerance=0, evaluations=evaluations)
    found = dkm.palettes(dkm.palettize(model, dkm.Recipe.uniform(3), method, labelled))
    assert calls == evaluations + 1
    assert len(np.unique(found["hidden.weight"].indices)) > 4


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"bits": 4, "cluster_dim": 2}, "bin_quant needs cluster_dim=1, one LUT and no scale"),
        ({"bits": 4, "group_size": 8}, "bin_quant needs cluster_dim=1, one LUT and no scale"),
        ({"bits": 1}, "bin_quant starts with 4 values, and a LUT of 1 bits holds 2; use more bits"),
    ],
)
def test_layouts_it_has_not(model, labelled, spec, message):
    recipe = dkm.Recipe(rules=[dkm.Rule("wide.weight", spec=dkm.PaletteSpec(**spec))])
    with pytest.raises(dkm.DkmError, match=message):
        dkm.palettize(model, recipe, dkm.BinQuant(_right), labelled)


def test_it_needs_labels(model):
    with pytest.raises(dkm.DkmError, match="metric needs labels"):
        dkm.palettize(model, dkm.Recipe.uniform(2), dkm.BinQuant(_right), images())
