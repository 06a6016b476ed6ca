"""Calls that a newcomer writes: refused in one line that shows a right one, or taken as meant."""

from __future__ import annotations

import ast
import inspect
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from tests.wrong_arguments import CALLS


@pytest.fixture(scope="module")
def given():
    model = nn.Linear(8, 4)
    prepared = dkm.prepare(nn.Linear(8, 4), 2)
    return SimpleNamespace(
        model=model,
        recipe=dkm.Recipe.uniform(2),
        frozen=dkm.palettize(model, 2),
        prepared=prepared,
        optimizer=torch.optim.SGD(prepared.parameters(), 1e-3),
        x=torch.randn(4, 8),
        labels=torch.zeros(4, dtype=torch.long),
    )


# A call, and what it is told beside a right one.
WRONG = {
    "palettize(recipe, model)": "model is of type Recipe; give a torch.nn.Module",
    "palettize('net.onnx', 4)": "dkm.palettize_file and dkm.read_palettes take one",
    "palettize(type(model), 4)": "model is the class Linear; give an instance, such as Linear()",
    "palettize(model.state_dict(), 4)": "load it into its model (load_state_dict)",
    "palettize(model, '4')": "recipe is '4'; give a dkm.Recipe, a dkm.PaletteSpec or bits",
    "palettize(model, 'r.toml')": "recipe is 'r.toml'; give dkm.Recipe.load('r.toml')",
    "palettize(model, dkm.PaletteSpec)": "recipe is the class PaletteSpec",
    "palettize(model, dkm.Rule('*', spec=4))": "give dkm.Recipe(rules=[rule])",
    "palettize(model, 4, x)": "method is of type Tensor; give a record, or one of kmeans",
    "palettize(model, 4, targets=None)": "targets is None; give a name or several",
    "palettize(model, 4, targets=x)": "targets: a name is of type Tensor; give a str",
    "palettize(model, 4, 'sensitive', (x, labels))": "a pair of inputs and labels; give a list",
    "palettize(model, 4, 'sensitive', 'x.npy')": "calibration is 'x.npy'; give a tensor",
    "prepare(recipe, model)": "model is of type Recipe",
    "prepare(model, dkm.DKM())": "recipe is of type DKM",
    "prepare(model, 4, dkm.DKM)": "method is the class DKM; give an instance, or its name",
    "step(optimizer)": "model is an optimizer (SGD); give the model",
    "freeze('net.pt')": "model is 'net.pt', a name or a path",
    "convert(frozen, 'net.onnx', x)": "path is of type Tensor; give a str or a path",
    "convert(x, frozen, 'net.onnx')": "frozen is of type Tensor; give a torch.nn.Module",
    "convert(frozen, x.shape, 'net.onnx')": "inputs are (4, 8), a shape; give a tensor",
    "convert(frozen, (b for b in [x]), 'net.onnx')": "give a tensor, tuple or dict",
    "save('net.safetensors', frozen)": "a name or a path",
    "load(model, 'net.safetensors')": "give a str or a path",
    "read_palettes(frozen)": "path is of type ParametrizedLinear; give a str or a path",
    "palettes('net.onnx')": "dkm.palettize_file and dkm.read_palettes take one",
    "palettize_file('net.onnx', 4, 'small.onnx')": "recipe is 'small.onnx'",
    "correct_outputs(model, frozen, x)": "frozen has no palettes",
    "correct_outputs(frozen, x, model)": "original is of type Tensor",
    "correct_outputs(frozen, model, None)": "calibration data is missing",
    "fit(prepared, x, epochs=1, optimizer=optimizer)": "data is of type Tensor; give batches",
    "fit(prepared, (x, labels), epochs=1, optimizer=optimizer)": "[(inputs, labels)]",
    "fit(prepared, [(x, labels)], epochs=1, optimizer='sgd')": "optimizer is 'sgd'",
    "fit(prepared, [x], epochs=1, optimizer=optimizer, loss=nn.MSELoss)": "the class MSELoss",
    "plan('3.3MB', model)": "budget is Linear(",
    "plan(model, 2.5e6, calibration=x)": "budget is 2500000.0; it must be an integer",
    "plan(model, '3MB', x)": "targets: a name is of type Tensor",
    "plan(model, '3MB')": "calibration data is missing",
    "validate('net.onnx', frozen, x)": "validate: too many positional arguments",
    "validate('net.onnx', reference=frozen)": "validate: missing a required argument: 'inputs'",
    "prepare(model, recipe, bits=4)": "prepare: got an unexpected keyword argument 'bits'",
    "validate(frozen, inputs=x)": "files is of type ParametrizedLinear; give a path",
    "validate({'a': 'net.onnx'}, reference=frozen, inputs=x)": "give a path or a list of paths",
    "validate_golden(frozen, 'golden')": "files is of type ParametrizedLinear",
    "validate_device_outputs(x, 'golden')": "give a str or a path",
    "write_golden(frozen, reference=frozen, inputs=x)": "folder is of type ParametrizedLinear",
    "RangeLoss(recipe, model)": "model is of type Recipe",
    "Recipe([dkm.Rule('*', spec=4)])": "give a dkm.PaletteSpec, or bits",
    "Rule(['fc1', 'fc2'], spec=4)": "it must be a pattern",
    "PaletteSpec('4')": "bits is '4'; it must be an integer",
}


@pytest.mark.parametrize("call", WRONG)
def test_a_wrong_call_is_told_a_right_one(given, call):
    with pytest.raises(dkm.DkmError) as caught:
        eval(f"dkm.{call}", {"dkm": dkm, "nn": nn}, vars(given))  # noqa: S307  # from the table above
    message = str(caught.value)
    assert WRONG[call] in message
    assert f", as in dkm.{call.partition('(')[0]}(" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", CALLS)
def test_the_call_that_is_shown_is_one_of_the_function(given, name):
    function = getattr(dkm, name)
    wrong = {
        name: object()
        for name, p in inspect.signature(function).parameters.items()
        if p.default is p.empty and p.kind is not p.VAR_KEYWORD
    }
    with pytest.raises(dkm.DkmError) as caught:
        function(**wrong)
    shown = ast.parse(str(caught.value).partition(", as in ")[2], mode="eval").body
    assert isinstance(shown, ast.Call)
    assert ast.unparse(shown.func) == f"dkm.{name}"
    keywords = {keyword.arg: keyword.value for keyword in shown.keywords}
    inspect.signature(function).bind(*shown.args, **keywords)


def test_the_call_shown_is_of_the_function_that_the_user_called(given):
    """And not of another public one that it calls: plan writes files by convert."""
    with pytest.raises(dkm.DkmError, match=r"inputs are 3; .*, as in dkm\.plan\("):
        dkm.plan(given.model, "3kB", "onnx", given.x, example_inputs=3, candidates=[2])
