"""Programs of several functions, with states, nested blocks, and rows that nothing reads."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.formats.mlpackage.package import open_package
from tests.converters.coreml.rewriting.packages import run, values
from tests.formats.mlpackage.packages import join, mb, save

X = values(2, 64, seed=9)


def _net(path, head):
    def body(x):
        hidden = mb.linear(x=x, weight=mb.const(val=values(64, 64, seed=1), name="base"))
        return mb.linear(x=hidden, weight=mb.const(val=head, name="head"), name="y")

    return save(path, body, (2, 64))


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Two functions that share ``base`` and have a ``head`` each, as coremltools joins them."""
    folder = tmp_path_factory.mktemp("several")
    parts = {
        name: _net(folder / f"{name}.mlpackage", values(32, 64, seed=seed))
        for name, seed in (("first", 2), ("second", 3))
    }
    return join(parts, folder / "net.mlpackage")


def test_functions_keep_sharing_a_weight_and_their_own_of_the_same_name(several, tmp_path):
    result = dkm.palettize_file(several, tmp_path / "small.mlpackage", 4)
    assert list(result.palettes) == ["base", "head", "second.head"]
    assert dkm.read_palettes(result.path) == dict(result.palettes)
    base, first, second = (palette.decode() for palette in result.palettes.values())
    for name, head in (("first", first), ("second", second)):
        made = run(result.path, X, function=name)
        np.testing.assert_allclose(made, X @ base.T @ head.T, rtol=1e-4, atol=1e-5)
    assert dkm.MLProgramEvaluator(result.path).functions == ("first", "second")
    indices = dkm.size_breakdown(result.path).by_kind()["indices"]
    assert indices == (64 * 64 + 2 * 32 * 64) // 2  # the shared one once


@pytest.mark.parametrize("function", [None, "first", "second"])
def test_each_function_is_validated_against_the_original(several, tmp_path, function):
    small = dkm.palettize_file(several, tmp_path / "small.mlpackage", 4).path
    report = dkm.validate(small, original=several, inputs={"x": X}, function=function)
    assert report, report.failed
    assert report.files[0].errors["y"].relative == 0


def test_a_recipe_tells_the_functions_apart(several, tmp_path):
    recipe = dkm.Recipe(rules=[dkm.Rule("second.head", spec=2)])
    result = dkm.palettize_file(several, tmp_path / "small.mlpackage", recipe)
    assert list(dkm.read_palettes(result.path)) == ["second.head"]
    np.testing.assert_array_equal(run(result.path, X), run(several, X))


def test_a_weight_that_one_function_adds_stays_dense_in_all(several, tmp_path):
    path = shutil.copytree(several, tmp_path / "net.mlpackage")
    package = open_package(path)
    (body,) = package.model.mlProgram.functions["second"].block_specializations.values()
    linear = next(o for o in body.operations if o.type == "linear" and o.outputs[0].name != "y")
    linear.type = "add"
    linear.inputs["y"].CopyFrom(linear.inputs["weight"])
    for key in {*linear.inputs} - {"x", "y"}:
        del linear.inputs[key]
    package.model_file.write_bytes(package.model.SerializeToString())
    result = dkm.palettize_file(path, tmp_path / "small.mlpackage", 4)
    assert result.dense == {"base": "input y of add: not the weight of a linear operation"}


def test_a_weight_in_a_nested_block(tmp_path):
    def body(x):
        weight = mb.const(val=values(64, 64, seed=1), name="outer")

        def _positive():
            inner = mb.const(val=values(64, 64, seed=2), name="inner")
            return mb.matmul(x=mb.matmul(x=x, y=weight), y=inner)

        is_positive = mb.greater(x=mb.reduce_sum(x=x, keep_dims=False), y=np.float32(0))
        found = mb.cond(pred=is_positive, _true_fn=_positive, _false_fn=lambda: mb.identity(x=x))
        return mb.identity(x=found, name="y")

    path = save(tmp_path / "net.mlpackage", body, (2, 64))
    result = dkm.palettize_file(path, tmp_path / "small.mlpackage", 3)
    outer, inner = (result.palettes[name].decode() for name in ("outer", "inner"))
    x = np.abs(X)
    np.testing.assert_allclose(run(result.path, x), x @ outer @ inner, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(run(result.path, -x), -x)


class _Accumulated(nn.Module):
    """Adds what it makes of each step to a buffer; positions are known."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.positions = nn.Linear(64, 64), nn.Embedding(512, 64)
        self.register_buffer("total", torch.zeros(2, 64))

    def forward(self, x):
        self.total.add_(self.fc(x) + self.positions(torch.arange(2)))
        return self.total * 1.0


def test_a_package_of_dkm_with_a_state_and_a_table_with_unread_rows(tmp_path):
    recipe = dkm.Recipe(rules=[dkm.Rule("positions.weight", spec=4)])
    frozen = dkm.palettize(_Accumulated().eval(), recipe)
    path = dkm.convert(frozen, torch.from_numpy(X), tmp_path / "net.mlpackage").path
    table = dkm.read_palettes(path)["positions.weight"]
    result = dkm.palettize_file(path, tmp_path / "small.mlpackage", 4)
    assert result.dense == {"positions.weight": "palettized already"}
    assert dkm.read_palettes(result.path) == {
        "fc_weight": result.palettes["fc_weight"],
        "positions.weight": table,
    }
    metadata = (open_package(each).user_metadata for each in (path, result.path))
    assert [("dkm_deploy.recipe" in each) for each in metadata] == [True, False]
    steps = dkm.Steps([torch.from_numpy(values(2, 64, seed=seed)) for seed in range(3)])
    report = dkm.validate(result.path, original=path, inputs=steps)
    assert report
    assert report.files[0].errors["output"].relative == 0
