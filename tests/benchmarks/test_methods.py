"""The benchmark of methods: which cells there are, what they weigh, and what its table says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from benchmarks.distil import Course, distil, scores, sgd
from benchmarks.methods.cells import DENSE, Cell, Result, cells, key
from benchmarks.methods.peers import palette_of
from benchmarks.methods.subject import FULL, QUICK, size_of
from benchmarks.methods.table import entry, table
from benchmarks.methods.ways import MODELS, RESNET, WAYS, WIDTHS, spec_of


def test_the_most_telling_cells_come_first_and_seed_by_seed():
    found = cells((RESNET,), ("kmeans", "sensitive"), ("8", "2"), 2)
    assert [(c.method, c.width, c.seed) for c in found] == [
        (DENSE, "", 0),
        ("kmeans", "2", 0),
        ("sensitive", "2", 0),
        ("kmeans", "8", 0),
        ("sensitive", "8", 0),
        ("sensitive", "2", 1),
        ("sensitive", "8", 1),
    ]


def test_each_cell_has_a_key_of_its_own():
    found = cells(MODELS, tuple(WAYS), tuple(WIDTHS), 3)
    assert key(found[0], FULL) != key(found[0], QUICK)
    assert len({key(cell, FULL) for cell in found}) == len(set(found)) == len(found)


def test_bytes_are_indices_and_half_width_luts_and_the_rest_as_float16():
    model = nn.Sequential(nn.Linear(40, 30), nn.BatchNorm1d(30), nn.Linear(30, 2))
    recipe = dkm.Recipe(dkm.PaletteSpec(3), [dkm.Rule(max_elements=999, skip=True)])
    size = size_of(dkm.palettize(model, recipe))
    packed = 1200 * 3 // 8 + 8 * 2
    assert size.total_bytes == packed + 2 * (30 + 30 + 30 + 60 + 2)
    assert size.bits_per_weight == pytest.approx(8 * packed / 1200)


def test_weights_of_a_peer_are_a_palette_or_an_error():
    weight = torch.tensor([[0.5, -1.0, 0.5], [2.0, -1.0, 2.0]])
    palette = palette_of("layer.weight", weight, 2)
    assert palette.bits == 2
    assert torch.equal(torch.tensor(palette.decode()), weight)
    with pytest.raises(dkm.DkmError, match="layer.weight: 3 distinct values, 1 bits have 2"):
        palette_of("layer.weight", weight, 1)


def test_vectors_fill_the_dimension_of_the_model():
    assert spec_of("3/4", 1) == dkm.PaletteSpec(3, 4, 1)
    assert spec_of("3", 1) == dkm.PaletteSpec(3)


def _result(score, total_bytes=1000, cpu_s=3.0):
    return Result(score, 90.0, 2.01, total_bytes, cpu_s)


def test_a_table_says_what_was_not_run():
    wanted = cells((RESNET,), ("kmeans", "sensitive", "plan"), ("4", "2"), 2)
    results = {
        Cell(RESNET, "kmeans", "2", 0): _result(20.0),
        Cell(RESNET, "sensitive", "2", 0): _result(30.0),
        Cell(RESNET, "sensitive", "2", 1): _result(32.0),
        Cell(RESNET, "plan", "2", 0): _result(60.0, 990),
    }
    lines = list(table(RESNET, wanted, results))
    assert lines[0] == "| method | 4 | 2 | CPU s |"
    assert lines[3] == "| bytes | - | 1,000 | |"
    assert lines[4] == "| kmeans | not run | 20.00 / 90.0 | 3 |"
    assert lines[5] == "| sensitive | not run | 31.00 ± 1.41 / 90.0 | 3 |"
    assert lines[6] == "| plan | not run | 60.00 / 90.0 (-1.0 % bytes) | 3 |"
    assert entry([], results, None) == "-"


def test_seconds_are_those_of_the_fastest_seed_of_each_width():
    wanted = cells((RESNET,), ("sensitive",), ("4", "2"), 2)
    took = {("4", 0): 8.0, ("4", 1): 20.0, ("2", 0): 9.0, ("2", 1): 5.0}
    results = {Cell(RESNET, "sensitive", *at): _result(30.0, cpu_s=s) for at, s in took.items()}
    assert list(table(RESNET, wanted, results))[4].endswith("| 5 to 8 |")


def test_distilling_brings_a_model_nearer_to_the_scores_it_is_taught():
    torch.manual_seed(0)
    model, inputs = nn.Linear(8, 3), torch.randn(64, 8)
    taught = nn.Linear(8, 3)(inputs).detach()
    calls = []
    before = (model(inputs).softmax(1) - taught.softmax(1)).norm()
    course = Course([(inputs, taught)] * 20, 20, scores, sgd, 0.02, norms=True)
    distil(model, course, lambda: calls.append(1))
    assert (model(inputs).softmax(1) - taught.softmax(1)).norm() < before
    assert len(calls) == 20


@pytest.mark.parametrize("norms", [False, True])
def test_batch_norms_go_by_the_batch_only_if_the_course_says_so(norms):
    model = nn.Sequential(nn.Linear(8, 3), nn.BatchNorm1d(3))
    inputs = 5 + torch.randn(64, 8)
    before = model[1].running_mean.clone()
    course = Course([(inputs, torch.randn(64, 3))], 1, scores, sgd, 0.02, norms=norms)
    distil(model, course, lambda: None)
    assert torch.equal(model[1].running_mean, before) != norms
