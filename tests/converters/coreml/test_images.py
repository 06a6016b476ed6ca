"""Packages with images and labels are run as they describe it: by the evaluator, by validate."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

import dkm_deploy as dkm
from dkm_deploy.formats.mlpackage.proto import model_class
from dkm_deploy.runtimes import NotTakenError, WrongLabelError
from dkm_deploy.runtimes.mlprogram import runtime
from dkm_deploy.runtimes.mlprogram.interface import IMAGES_KEY, PackageTranslator
from tests.converters.coreml.test_options import Pixels

IMAGE = {"scale": 1 / 127.5, "bias": [-1.0, -0.9, -0.8]}
LABELS = ["ant", "bee", "cat", "dog"]
EXACT = {"compute_precision": "float32"}


@pytest.fixture(scope="module")
def frozen():
    torch.manual_seed(0)
    return dkm.palettize(Pixels().eval(), dkm.Recipe.uniform(2))


def _photographs(count):
    """Whole pixels, as numbers that the model takes."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 8, 8), generator=generator)
    return pixels, pixels * IMAGE["scale"] + torch.tensor(IMAGE["bias"]).reshape(3, 1, 1)


def _verdict(path, frozen, x, **options):
    report = dkm.validate([path], reference=frozen, inputs=x, **options).to_dict()
    (row,) = [row for row in report["models"] if row["path"]]
    return {check["name"]: check for check in row["checks"]}


@pytest.mark.parametrize("options", [{}, {"class_labels": LABELS}])
@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_images_and_labels_pass(tmp_path, frozen, color, options):
    _, x = _photographs(3)
    path, images = tmp_path / "m.mlpackage", {"x": {**IMAGE, "color": color}}
    dkm.convert(frozen, x[:1], path, images=images, **EXACT, **options)
    checks = _verdict(path, frozen, x)
    assert checks["parity"]["status"] == checks["palettes"]["status"] == "passed"


def test_the_evaluator_takes_pixels_and_gives_the_label(tmp_path, frozen):
    pixels, x = _photographs(1)
    options = {"images": {"x": IMAGE}, "class_labels": LABELS, **EXACT}
    path = dkm.convert(frozen, x, tmp_path / "m.mlpackage", **options).path
    outputs = runtime.load(path).run({"x": pixels.numpy()})
    scores = frozen(x)[0].detach()
    assert outputs["classLabel"] == LABELS[int(scores.argmax())]
    torch.testing.assert_close(torch.tensor(outputs["classLabel_probs"]), scores)


def test_a_wrong_model_fails_and_located(tmp_path, frozen):
    _, x = _photographs(2)
    options = {"images": {"x": IMAGE}, "class_labels": LABELS, **EXACT}
    path = dkm.convert(frozen, x[:1], tmp_path / "m.mlpackage", **options).path
    with torch.no_grad():
        frozen.conv.bias.add_(0.5)
    parity = _verdict(path, frozen, x)["parity"]
    assert parity["status"] == "failed"
    assert "first error in conv" in parity["reason"]


@pytest.mark.parametrize("change", [lambda x: x + 1e-3, lambda x: 3 * x, lambda x: x * torch.nan])
def test_numbers_that_are_no_pixels_are_skipped(tmp_path, frozen, change):
    _, x = _photographs(1)
    path = dkm.convert(frozen, x, tmp_path / "m.mlpackage", images={"x": IMAGE}).path
    checks = _verdict(path, frozen, change(x))
    assert checks["palettes"]["status"] == "passed"
    assert checks["parity"]["status"] == "skipped"
    assert (
        "input 'x' is an image in the file: its values must be pixels" in checks["parity"]["reason"]
    )


def test_an_image_of_another_tool_is_skipped(tmp_path, frozen):
    _, x = _photographs(1)
    path = dkm.convert(frozen, x, tmp_path / "m.mlpackage", images={"x": IMAGE}).path
    _change(path, lambda metadata: metadata.pop(IMAGES_KEY))
    parity = _verdict(path, frozen, x)["parity"]
    assert parity["status"] == "skipped"
    assert "the file does not say how its pixels become" in parity["reason"]


@pytest.fixture(scope="module")
def written(tmp_path_factory, frozen):
    path = tmp_path_factory.mktemp("written") / "m.mlpackage"
    return dkm.convert(frozen, _photographs(1)[1], path, images={"x": IMAGE}).path


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[1]",
        '{"x": {"scale": 1}}',
        '{"x": 3}',
        '{"x": {"scale": 0, "bias": [0]}}',
        '{"x": {"scale": 1, "bias": [NaN]}}',
    ],
)
def test_damaged_metadata_is_refused(tmp_path, written, text):
    path = shutil.copytree(written, tmp_path / "m.mlpackage")
    _change(path, lambda metadata: metadata.update({IMAGES_KEY: text}))
    with pytest.raises(dkm.DkmError, match=r"m\.mlpackage: metadata 'dkm_deploy\.images'"):
        runtime.load(path)


def _change(path, edit):
    file = path / "Data/com.apple.CoreML/model.mlmodel"
    model = model_class().FromString(file.read_bytes())
    edit(model.description.metadata.userDefined)
    file.write_bytes(model.SerializeToString())


def test_an_image_of_another_shape_says_so(tmp_path, frozen):
    _, x = _photographs(1)
    path = dkm.convert(frozen, x, tmp_path / "m.mlpackage", images={"x": {"bias": -1.0}}).path
    session = runtime.load(path)
    for shape in ((1, 3, 4, 4), (1, 2, 8, 8), (3, 8)):
        given = session.interface.to_file_inputs({"x": np.full(shape, -1.0, np.float32)})
        with pytest.raises(dkm.DkmError, match=r"the file takes \(1, 3, 8, 8\)"):
            session.run(given)


def test_a_label_that_is_not_the_best_fails(tmp_path, frozen, monkeypatch):
    _, x = _photographs(1)
    options = {"class_labels": LABELS, **EXACT}
    path = dkm.convert(frozen, x, tmp_path / "m.mlpackage", **options).path
    session = type(runtime.load(path))
    run = session.run
    worst = LABELS[int(frozen(x).argmin())]
    monkeypatch.setattr(
        session, "run", lambda *given: run(*given) | {"classLabel": np.array(worst)}
    )
    parity = _verdict(path, frozen, x)["parity"]
    assert parity["status"] == "failed"
    assert parity["reason"].startswith(f"the file gives the label '{worst}'; the highest score")


def test_equal_scores_may_have_either_label():
    classifier = PackageTranslator({}, "label", "scores", ("a", "b", "c"))
    scores = np.float32([2, 1, 2])
    for label in ("a", "c"):
        made = classifier.to_model_outputs({"label": np.array(label), "scores": scores})
        np.testing.assert_array_equal(made["scores"], scores[None])
    for label in ("b", "d"):
        with pytest.raises(WrongLabelError, match=f"gives the label '{label}'"):
            classifier.to_model_outputs({"label": np.array(label), "scores": scores})


def test_pixels_come_back_whatever_the_scale():
    for scale, bias in ((1 / 255, 0.0), (1 / 127.5, -1.0), (0.0171, -2.1), (1.0, -128.0)):
        interface = _interface(scale, bias)
        pixels = np.arange(256, dtype=np.float32).reshape(1, 1, 16, 16)
        values = pixels * np.float32(scale) + np.float32(bias)
        np.testing.assert_array_equal(interface.to_file_inputs({"x": values})["x"], pixels)
        with pytest.raises(NotTakenError, match="1 of 256 values are not, the first is"):
            interface.to_file_inputs({"x": values + np.float32(scale) * (pixels == 255)})


def _interface(scale, bias):
    from dkm_deploy.runtimes.mlprogram.interface import Pixels as Numbers

    return PackageTranslator({"x": Numbers(scale, (bias,))})


def test_the_file_keeps_how_pixels_become_numbers(tmp_path, frozen):
    _, x = _photographs(1)
    path = dkm.convert(frozen, x, tmp_path / "m.mlpackage", images={"x": {"bias": -1.0}}).path
    file = path / "Data/com.apple.CoreML/model.mlmodel"
    metadata = model_class().FromString(file.read_bytes()).description.metadata
    assert json.loads(metadata.userDefined[IMAGES_KEY]) == {
        "x": {"scale": 1.0, "bias": [-1.0, -1.0, -1.0]}
    }
