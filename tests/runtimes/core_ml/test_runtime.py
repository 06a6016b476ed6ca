"""The Core ML runtime, with a stand-in for the class of coremltools that needs a Mac."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import dkm_deploy as dkm
from dkm_deploy._support.silence import quiet
from dkm_deploy.errors import DkmError
from dkm_deploy.runtimes.core_ml import runtime
from dkm_deploy.runtimes.core_ml.runtime import COMPUTE_UNITS, CoreMLRuntime
from dkm_deploy.runtimes.mlprogram.evaluator import MLProgramEvaluator
from dkm_deploy.runtimes.mlprogram.interface import PackageTranslator
from tests.formats.mlpackage.packages import ct, mb, save, types

X = np.float32([1, -2])


class StandIn:
    """Has the methods of ``coremltools.models.MLModel`` that are used, and its habit of writing."""

    made: list["StandIn"] = []  # noqa: RUF012  # emptied by the fixture

    def __init__(self, path, compute_units, function_name=None):
        self.path, self.units, self.function = path, compute_units, function_name
        self._model = MLProgramEvaluator(path, function=function_name)
        with open(f"{path}/Manifest.json", "a") as manifest:  # noqa: PTH123
            manifest.write("\n")
        self.made.append(self)

    def make_state(self):
        return self._model.make_state()

    def predict(self, data, state=None):
        if data["x"][0] == 13:
            raise RuntimeError("Error: of\nmany lines")
        return self._model.run(data, state=state)


@pytest.fixture
def on_a_mac(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    models = SimpleNamespace(MLModel=StandIn)
    stand_in = SimpleNamespace(models=models, ComputeUnit=ct.ComputeUnit)
    monkeypatch.setattr(runtime, "coremltools", lambda: stand_in)
    monkeypatch.setattr(StandIn, "made", [])


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("core_ml") / "m.mlpackage"
    return save(path, lambda x: mb.mul(x=x, y=2.0, name="y"), (2,))


@pytest.mark.parametrize("units", COMPUTE_UNITS)
def test_the_chosen_units_run_the_package(on_a_mac, package, units):
    before = (package / "Manifest.json").read_bytes()
    session = CoreMLRuntime(units).load(package)
    assert session.input_shapes == {"x": (2,)}
    np.testing.assert_array_equal(session.run({"x": X.astype(np.float64)})["y"], 2 * X)
    (model,) = StandIn.made
    assert model.units is ct.ComputeUnit[units]
    assert model.path != str(package)
    assert (package / "Manifest.json").read_bytes() == before


def test_what_core_ml_says_is_one_line(on_a_mac, package, monkeypatch):
    with pytest.raises(DkmError, match=r"m\.mlpackage: Core ML failed: RuntimeError: Error: of$"):
        CoreMLRuntime().load(package).run({"x": np.float32([13, 0])})
    with pytest.raises(DkmError, match=r"has shape \(3,\); the file takes \(2,\)"):
        CoreMLRuntime().load(package).run({"x": np.zeros(3, np.float32)})

    def refuse(*_, **__):
        raise RuntimeError("no")

    monkeypatch.setattr(StandIn, "__init__", refuse)
    with pytest.raises(DkmError, match=r"m\.mlpackage: Core ML cannot load it: RuntimeError: no"):
        CoreMLRuntime().load(package)


def test_unknown_units_and_functions(on_a_mac, package):
    with pytest.raises(DkmError, match="compute_units is 'TPU'; it must be one of ALL, CPU_ONLY"):
        CoreMLRuntime("TPU")
    with pytest.raises(DkmError, match="there is no function 'half'; there are main"):
        CoreMLRuntime(function="half").load(package)
    CoreMLRuntime().of_function("main").load(package)
    assert StandIn.made[-1].function == "main"


def test_a_state_lasts_from_run_to_run(on_a_mac, tmp_path):
    specs = [mb.TensorSpec((2,), types.fp16), mb.StateTensorSpec((2,), dtype=types.fp16)]

    def counting(x, total):
        added = mb.add(x=mb.read_state(input=total), y=x)
        return mb.identity(x=mb.coreml_update_state(state=total, value=added), name="y")

    path = tmp_path / "m.mlpackage"
    with quiet():
        ct.convert(
            mb.program(input_specs=specs, opset_version=ct.target.iOS18)(counting),
            minimum_deployment_target=ct.target.iOS18,
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
        ).save(str(path))
    session = CoreMLRuntime().load(path)
    state = session.make_state()
    for calls in (1, 2):
        np.testing.assert_array_equal(session.run({"x": X}, state)["y"], calls * X)
    np.testing.assert_array_equal(session.run({"x": X})["y"], X)


def test_probabilities_come_in_the_order_of_the_labels(on_a_mac, package, monkeypatch):
    session = CoreMLRuntime().load(package)
    session.interface = PackageTranslator({}, "label", "probs", ("b", "a"))
    monkeypatch.setattr(
        StandIn, "predict", lambda *_: {"label": "a", "probs": {"a": 0.75, "b": 0.25}}
    )
    outputs = session.run({"x": X})
    assert outputs["label"] == "a"
    np.testing.assert_array_equal(outputs["probs"], [0.25, 0.75])


class Pillow:
    """Keeps what pictures would be made of."""

    @staticmethod
    def fromarray(pixels):
        return ("picture", pixels)


@pytest.mark.parametrize("color", ["RGB", "BGR", "GRAYSCALE"])
def test_an_image_is_given_as_a_picture(on_a_mac, tmp_path, monkeypatch, color):
    channels = 1 if color == "GRAYSCALE" else 3
    path, model = tmp_path / "m.mlpackage", torch.nn.Conv2d(channels, 2, 1)
    images = {"input": {"color": color}}
    dkm.convert(model.eval(), torch.zeros(1, channels, 2, 3), path, images=images)
    given = {}
    monkeypatch.setattr(StandIn, "predict", lambda _, data: given.update(data) or {})
    monkeypatch.setitem(sys.modules, "PIL", Pillow)
    monkeypatch.setitem(sys.modules, "PIL.Image", Pillow)
    pixels = np.arange(channels * 6, dtype=np.float32).reshape(1, channels, 2, 3)
    CoreMLRuntime().load(path).run({"input": pixels})
    kind, picture = given["input"]
    assert (kind, picture.dtype) == ("picture", np.uint8)
    planes = pixels[0][::-1] if color == "BGR" else pixels[0]
    expected = planes[0] if channels == 1 else planes.transpose(1, 2, 0)
    np.testing.assert_array_equal(picture, expected)


def test_an_image_without_pillow(on_a_mac, tmp_path, monkeypatch):
    path, model = tmp_path / "m.mlpackage", torch.nn.Conv2d(3, 2, 1)
    dkm.convert(model.eval(), torch.zeros(1, 3, 2, 3), path, images={"input": {}})
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    session = CoreMLRuntime().load(path)
    with pytest.raises(DkmError, match="an image for Core ML needs Pillow: pip install pillow"):
        session.run({"input": np.zeros((1, 3, 2, 3), np.float32)})
