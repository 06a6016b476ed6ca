"""The same program in fewer bytes."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder
from torch import nn

import dkm_deploy as dkm
from converters.coreml.passes.compact_program import compact
from converters.coreml.silence import silent
from dkm_deploy.formats.mlpackage.proto import coremltools
from tests.converters.coreml.programs import First, operations, spec
from tests.models import images
from tests.named_files import short_and_full


def _block(path):
    (function,) = spec(path).mlProgram.functions.values()
    (block,) = function.block_specializations.values()
    return block


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return short_and_full(tmp_path_factory.mktemp("pair"), ".mlpackage", 1)


def test_files_differ_in_names_alone(pair):
    frozen, files = pair
    assert operations(files["short"]) == operations(files["full"])
    outputs = [
        dkm.MLProgramEvaluator(file.path).run({"x": images(1).numpy()})["output"]
        for file in files.values()
    ]
    assert outputs[0].tobytes() == outputs[1].tobytes()
    palettes = [dkm.read_palettes(file) for file in files.values()]
    assert palettes[0] == palettes[1]
    assert palettes[0].keys() == dkm.palettes(frozen).keys()
    sizes = [file.ledger.by_kind()["graph"] for file in files.values()]
    assert sizes[0] < 0.85 * sizes[1]


def test_weights_are_found_by_either(pair):
    frozen, files = pair
    report = dkm.validate(
        list(files.values()), reference=frozen, inputs=images(1), require=("dense", "parity")
    )
    assert report, report.failed


def test_equal_constants_are_there_once_and_tensors_of_floats_keep_their_names(pair):
    for file in pair[1].values():
        constants = [o for o in _block(file.path).operations if o.type == "const"]
        plain = [o for o in constants if not o.outputs[0].name.startswith("p_")]
        values = [o.attributes["val"].SerializeToString(deterministic=True) for o in plain]
        assert len(set(values)) == len(values)
        assert len(plain) < len(constants), "biases"


def test_small_tensors_of_floats_are_in_the_program(pair):
    frozen, files = pair
    weights = (files["short"].path / "Data/com.apple.CoreML/weights/weight.bin").read_bytes()
    tensors = int.from_bytes(weights[:4], "little")
    assert tensors == len(dkm.palettes(frozen)), "indices alone"


def test_values_keep_their_meaning_in_blocks_inside(tmp_path):
    """A loop with a constant that is outside too, and a branch that takes one of a block above."""

    @Builder.program(
        input_specs=[Builder.TensorSpec((1, 3)), Builder.TensorSpec((1,))],
        opset_version=coremltools().target.iOS17,
    )
    def program(x, n):
        def body(i, value):
            return Builder.add(x=i, y=1.0), Builder.add(x=Builder.mul(x=value, y=2.0), y=x)

        count, looped = Builder.while_loop(
            _cond=lambda i, value: Builder.squeeze(x=Builder.less(x=i, y=Builder.add(x=n, y=2.0))),
            _body=body,
            loop_vars=(Builder.mul(x=n, y=0.0), Builder.mul(x=x, y=2.0)),
        )
        large = Builder.squeeze(x=Builder.greater(x=count, y=3.0))
        return Builder.cond(
            pred=large,
            _true_fn=lambda: Builder.mul(x=looped, y=2.0),
            _false_fn=lambda: Builder.sub(x=x, y=1.0),
            name="result",
        )

    with silent():
        model = coremltools().convert(program, minimum_deployment_target=coremltools().target.iOS17)
        model.save(str(tmp_path / "before.mlpackage"))
    shutil.copytree(tmp_path / "before.mlpackage", tmp_path / "after.mlpackage")
    made = spec(tmp_path / "after.mlpackage")
    compact(made.mlProgram, shorten=True)
    file = tmp_path / "after.mlpackage/Data/com.apple.CoreML/model.mlmodel"
    assert len(made.SerializeToString()) < 0.9 * file.stat().st_size
    file.write_bytes(made.SerializeToString())
    for n in (0.0, 5.0):
        given = {"x": np.ones((1, 3), np.float32), "n": np.full(1, n, np.float32)}
        found = [
            dkm.MLProgramEvaluator(tmp_path / f"{when}.mlpackage").run(given)["result"]
            for when in ("before", "after")
        ]
        assert found[0].tobytes() == found[1].tobytes()
        assert found[0][0, 0] == {0.0: 0.0, 5.0: 766.0}[n]


def test_short_names_are_none_of_the_models(tmp_path):
    """An input and an output that are called as short names are."""

    class Letters(nn.Module):
        def __init__(self):
            super().__init__()
            self.v2 = nn.Linear(16, 16)

        def forward(self, v0):
            return {"v1": torch.tanh(self.v2(v0)) * 2, "v3": v0 + 1}

    frozen, x = dkm.palettize(Letters().eval(), 2), torch.randn(3, 16)
    file = dkm.convert(frozen, x, tmp_path / "m.mlpackage")
    assert dkm.validate([file], reference=frozen, inputs=x)


class CalledLikeItsWeight(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(32, 8)

    def forward(self, a_weight):
        return self.a(a_weight)


def test_an_input_may_be_called_like_a_weight(tmp_path):
    frozen, x = dkm.palettize(CalledLikeItsWeight().eval(), 4), torch.randn(2, 32)
    artifact = dkm.convert(frozen, x, tmp_path / "m.mlpackage")
    assert artifact.notes == ()  # it was run
    assert dkm.read_palettes(artifact.path)["a.weight"].bits == 4
    assert dkm.validate([artifact.path], reference=frozen, inputs=x)


def test_another_kind_of_names_is_refused(tmp_path):
    model = First(nn.LSTM(4, 4)).eval()
    with pytest.raises(dkm.DkmError, match="names is 'long'; it must be one of short, full"):
        dkm.convert(model, torch.ones(1, 1, 4), tmp_path / "m.mlpackage", names="long")
