"""Histograms of weights, use of entries, and the recipe that a model's palettes follow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.validation.measures.palette_statistics import Layer, histograms, layer, recipe_of
from tests.models import MIXED, TiedNet, small_net

SPECS = [
    dkm.PaletteSpec(2, cluster_dim=2, group_size=4),
    dkm.PaletteSpec(2, group_size=2),
    dkm.PaletteSpec(4, per_channel_scale=True),
]
RECIPES = [
    MIXED,
    dkm.Recipe.uniform(3),
    *(dkm.Recipe(rules=[dkm.Rule("stem.*", spec)]) for spec in SPECS),
]


def test_a_histogram_counts_every_weight_before_and_after():
    original = small_net()
    found = dkm.palettes(dkm.palettize(original, MIXED))
    for name, told in histograms(found, original).items():
        weights = original.get_parameter(name)
        assert sum(told.original) == sum(told.palettized) == weights.numel()
        assert told.low <= weights.min() <= weights.max() <= told.high
        assert told.centroids == tuple(found[name].lut.ravel().tolist())
        edges = np.linspace(told.low, told.high, len(told.original) + 1)
        assert told.original[0] == np.count_nonzero(weights.detach().numpy() < edges[1])


def test_without_the_original_only_the_palettes_are_counted():
    found = dkm.palettes(dkm.palettize(small_net(), MIXED))
    for told in (*histograms(found, None).values(), *histograms(found, TiedNet()).values()):
        assert told.original == ()
        assert sum(told.palettized) > 0


@pytest.mark.parametrize("recipe", RECIPES[2:])
def test_centroids_are_left_out_where_they_are_not_the_weights_values(recipe):
    (told,) = histograms(dkm.palettes(dkm.palettize(small_net(), recipe)), None).values()
    assert told.centroids == ()


def test_equal_weights_have_a_histogram_too():
    palette = dkm.Palette(np.zeros((2, 2), np.uint8), np.full((1, 1, 2, 1), 3.0, np.float32))
    (told,) = histograms({"w": palette}, None).values()
    assert (told.low, told.high) == (2.5, 3.5)
    assert len(told.palettized) == 48
    assert told.palettized[24] == sum(told.palettized) == 4
    assert told.centroids == (3.0, 3.0)


def test_a_histogram_reaches_from_the_smallest_to_the_largest_of_both():
    palette = dkm.Palette(np.array([[0, 1]], np.uint8), np.array([-1.0, 1]).reshape(1, 1, 2, 1))
    for values, ends in (([-3.0, 0.5], (-3, 1)), ([-0.5, 7.0], (-1, 7)), ([0.0, 0.0], (-1, 1))):
        model = nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            model.weight.copy_(torch.tensor([values]))
        for each in (model, model.bfloat16()):
            told = histograms({"weight": palette}, each)["weight"]
            assert (told.low, told.high) == ends
            assert sum(told.original) == sum(told.palettized) == 2


def test_an_original_of_another_shape_is_not_counted():
    palette = dkm.Palette(np.zeros((2, 1), np.uint8), np.ones((1, 1, 2, 1), np.float32))
    assert histograms({"weight": palette}, nn.Linear(2, 1))["weight"].original == ()


def test_several_luts_vectors_or_scales_have_no_centroids():
    indices, lut = np.array([[0, 1], [1, 0]], np.uint8), np.ones((1, 1, 2, 1), np.float32)
    for palette in (
        dkm.Palette(indices, np.ones((2, 1, 2, 1), np.float32)),
        dkm.Palette(indices, np.ones((1, 1, 2, 2), np.float32)),
        dkm.Palette(indices, lut, scale=np.ones((2, 1), np.float32)),
    ):
        assert histograms({"w": palette}, None)["w"].centroids == ()
    assert histograms({"w": dkm.Palette(indices, lut)}, None)["w"].centroids == (1, 1)


def test_what_is_not_finite_in_the_original_is_left_out():
    original, found = small_net(), dkm.palettes(dkm.palettize(small_net(), MIXED))
    with torch.no_grad():
        original.head.weight[0, 0] = torch.inf
    assert sum(histograms(found, original)["head.weight"].original) == 39


def test_uses_are_over_all_luts():
    indices = np.array([[0, 1], [1, 1]], np.uint8)
    told = layer("w", dkm.Palette(indices, np.ones((2, 1, 4, 1), np.float32)))
    assert told.uses == (1, 3, 0, 0)
    assert told.used_entries == 2
    assert told.entropy_bits == pytest.approx(0.811, abs=1e-3)


def test_a_layer_is_told_with_its_layout():
    palette = dkm.Palette(np.zeros((4, 6), np.uint8), np.ones((2, 3, 4, 2), np.float32), axis=1)
    told = layer("w", palette)
    assert told == Layer(
        name="w",
        shape=(4, 12),
        bits=2,
        cluster_dim=2,
        groups=6,
        bits_per_weight=(24 * 2 + 2 * 3 * 4 * 2 * 32) / 48,
        used_entries=1,
        entropy_bits=0.0,
        uses=(24, 0, 0, 0),
    )
    assert str(told.entropy_bits) == "0.0"  # and not -0.0
    assert (type(told.groups), type(told.used_entries)) == (int, int)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_recipe_of_a_model_gives_the_same_layout(recipe, tmp_path):
    model = small_net()
    frozen = dkm.palettize(model, recipe)
    (tmp_path / "r.toml").write_text(recipe_of(dkm.palettes(frozen), frozen).to_toml())
    again = dkm.Recipe.load(tmp_path / "r.toml")
    assert again.assign(model).specs == recipe.assign(model).specs
    assert dkm.palettes(dkm.palettize(model, again)) == dkm.palettes(frozen)


def test_the_recipe_of_names_with_signs_of_patterns():
    model = nn.ModuleDict({"a[0]": nn.Linear(8, 8), "a0": nn.Linear(8, 8)})
    recipe = dkm.Recipe(dkm.PaletteSpec(2), [dkm.Rule("a[[]0*", dkm.PaletteSpec(3))])
    frozen = dkm.palettize(model, recipe)
    again = recipe_of(dkm.palettes(frozen), frozen)
    assert again.assign(model).specs == recipe.assign(model).specs


def test_the_layout_of_most_weights_is_the_default():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 16), nn.Linear(8, 9), nn.Linear(8, 8))
    two, three, four = (dkm.PaletteSpec(bits) for bits in (2, 3, 4))
    rules = [dkm.Rule("0.*", two), dkm.Rule("1.*", three), dkm.Rule("2.*", two)]
    recipe = dkm.Recipe(four, [*rules, dkm.Rule("3.*", skip=True)])
    frozen = dkm.palettize(model, recipe)
    assert recipe_of(dkm.palettes(frozen), frozen) == dkm.Recipe(
        two, [dkm.Rule("1.weight", three), dkm.Rule("3.weight", skip=True)]
    )


def test_a_model_without_palettes_has_an_empty_recipe():
    assert recipe_of({}, small_net()) == dkm.Recipe()


def test_reports_and_bundles_tell_the_recipe(tmp_path):
    frozen = dkm.palettize(small_net(), MIXED)
    inputs = torch.randn(2, 3, 8, 8)
    path = dkm.convert(frozen, inputs[:1], tmp_path / "m.onnx").path
    report = dkm.validate([path], reference=frozen, inputs=inputs)
    assert "bits = 8" in report.recipe
    dkm.write_golden(tmp_path / "golden", reference=frozen, inputs=inputs)
    assert dkm.validate_golden([path], tmp_path / "golden").recipe == report.recipe
