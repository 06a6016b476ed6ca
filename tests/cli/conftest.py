"""Models, checkpoints and files that tests of the commands share."""

from __future__ import annotations

import pytest
from onnx import helper
from safetensors.torch import save_file

import dkm_deploy as dkm
from dkm_deploy.cli import main
from tests.command import MODEL, ROW
from tests.converters.onnx.models import model as onnx_model
from tests.converters.onnx.models import save as save_onnx
from tests.converters.onnx.models import tensor, values
from tests.models import MIXED, images, small_net


@pytest.fixture(scope="package")
def folder(tmp_path_factory):
    """A plain checkpoint, a palettized one, inputs with labels, and both files."""
    folder = tmp_path_factory.mktemp("cli")
    model = small_net()
    save_file(model.state_dict(), folder / "plain.safetensors")
    dkm.save(dkm.palettize(model, MIXED), folder / "packed.safetensors")
    labels = model(images(8)).argmax(1)
    save_file({"x": images(8), "labels": labels}, folder / "inputs.safetensors")
    code = main(
        [
            *["convert", MODEL, "--weights", f"{folder}/packed.safetensors"],
            *[
                "--input",
                "1x3x8x8",
                "-o",
                f"{folder}/model.onnx",
                "-o",
                f"{folder}/model.mlpackage",
            ],
        ]
    )
    assert code == 0
    return folder


@pytest.fixture(scope="package")
def dense_onnx(tmp_path_factory):
    """An ONNX file with one weight and one table that is added."""
    path = tmp_path_factory.mktemp("dense") / "dense.onnx"
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["h", "table"], ["y"]),
    ]
    return save_onnx(path, onnx_model(nodes, [tensor("w", values(64, 32)), tensor("table", ROW)]))
