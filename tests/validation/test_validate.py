"""Validation end to end, with faults planted in real files."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import dkm_deploy as dkm
from dkm_deploy import runtimes
from tests.damage import overwrite
from tests.models import MIXED, images, small_net

SUFFIXES = [".onnx", ".mlpackage"]
COUNT = 24


@pytest.fixture(scope="module")
def frozen():
    return dkm.palettize(small_net(), MIXED)


@pytest.fixture(scope="module")
def files(frozen, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return [dkm.convert(frozen, images(1), folder / f"model{s}").path for s in SUFFIXES]


@pytest.fixture(scope="module")
def labels():
    return small_net()(images(COUNT)).argmax(1)


def _checks(model):
    return {check.name: check.status for check in model.checks}


def test_right_files_pass_every_check(frozen, files, labels):
    report = dkm.validate(
        files,
        reference=frozen,
        original=small_net(),
        inputs=images(COUNT),
        labels=labels,
        limits=dkm.Limits(
            max_metric_loss=100, min_agreement=0, max_bytes=10**6, max_size_ratio=100
        ),
        also={"one bit": dkm.palettize(small_net(), dkm.Recipe.uniform(1))},
    )
    assert report
    assert [m.name for m in report.models] == [
        "original (fp32)",
        "one bit",
        "frozen (hard)",
        "model.onnx",
        "model.mlpackage",
    ]
    for model in report.files:
        assert set(_checks(model).values()) == {"passed"}
        assert list(_checks(model)) == [
            *("palettes", "dense", "interface", "parity", "metric", "agreement", "size")
        ]
        assert model.errors["output"].max_abs < 0.01
        assert sum(model.bytes_by_kind.values()) == model.size_bytes
        assert model.ideal_bytes < model.size_bytes
        assert 0 < model.deflated_bytes < model.size_bytes
        assert model.half_ratio < model.size_ratio
    original, one_bit, reference, exact, half = report.models
    assert original.metric == 100
    assert original.errors["output"].max_abs > 0.01
    assert one_bit.bits_per_weight < reference.bits_per_weight
    assert exact.metric == reference.metric
    assert exact.metric_loss.low <= exact.metric_loss.value <= exact.metric_loss.high
    assert exact.metric_loss.value == pytest.approx(100 - exact.metric)
    answers = frozen(images(COUNT)).argmax(1).numpy()
    flipped = np.flatnonzero(answers != labels.numpy())
    assert [flip.input for flip in exact.flips] == flipped.tolist()
    assert exact.flip_count == len(flipped) == round(COUNT * (1 - exact.agreement))
    assert original.flips == ()
    assert exact.errors["output"].max_abs < 1e-5 < half.errors["output"].max_abs
    assert report.samples == COUNT
    assert {layer.name: layer.bits for layer in report.layers} == {
        "stem.weight": 3,
        "head.weight": 8,
    }
    assert report.dense["depthwise.weight"].endswith("left dense by the recipe")


def test_the_json_is_the_report(frozen, files, tmp_path):
    report = dkm.validate(files, reference=frozen, inputs=images(2))
    report.to_json(tmp_path / "report.json")
    table = json.loads((tmp_path / "report.json").read_text())
    assert table == json.loads(json.dumps(report.to_dict()))
    assert table["passed"] is True
    report.to_html(tmp_path / "report.html")
    assert "model.mlpackage" in (tmp_path / "report.html").read_text()
    with pytest.raises(FileExistsError):
        report.to_json(tmp_path / "report.json")


def test_nothing_is_compared_with_what_is_not_given(frozen, files):
    report = dkm.validate(files[:1], reference=frozen, inputs=images(2))
    model = report.files[0]
    assert (model.metric, model.agreement, model.size_ratio) == (None, None, None)
    assert list(_checks(model)) == ["palettes", "dense", "interface", "parity"]


def test_a_custom_metric_is_used(frozen, files):
    def mean_score(output, labels):
        return float(output.mean())

    report = dkm.validate(
        files[:1], reference=frozen, inputs=images(3), labels=np.zeros(3), metric=mean_score
    )
    assert report.metric_name == "mean_score"
    expected = frozen(images(3)).mean().item()
    assert report.files[0].metric == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("names", [("x",), None])
def test_inputs_go_in_by_name_or_in_order(frozen, files, names):
    inputs = {"x": images(2)} if names else (images(2),)
    assert dkm.validate(files, reference=frozen, inputs=inputs)


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (dkm.Limits(max_relative_error=1e-12), "parity"),
        (dkm.Limits(outputs={"output": dkm.OutputLimits(max_abs_error=1e-12)}), "parity"),
        (dkm.Limits(max_bytes=100), "size"),
        (dkm.Limits(max_size_ratio=0.001), "size"),
        (dkm.Limits(max_metric_loss=-101), "metric"),
        (dkm.Limits(min_agreement=1.1), "agreement"),
    ],
)
def test_every_limit_can_fail(frozen, files, labels, limits, name):
    report = dkm.validate(
        files,
        reference=frozen,
        original=small_net(),
        inputs=images(COUNT),
        labels=labels,
        limits=limits,
    )
    assert not report
    for model in report.files:
        assert [n for n, status in _checks(model).items() if status == "failed"] == [name]
    assert len(report.failed) == 2


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (dkm.Limits(max_metric_loss=1), "metric"),
        (dkm.Limits(min_agreement=0.5), "agreement"),
        (dkm.Limits(max_size_ratio=0.5), "size"),
    ],
)
def test_a_limit_that_cannot_be_checked_is_skipped(frozen, files, limits, name):
    report = dkm.validate(files[:1], reference=frozen, inputs=images(2), limits=limits)
    assert _checks(report.files[0])[name] == "skipped"
    assert len(report.skipped) == 1


def test_without_a_runtime_parity_is_skipped(frozen, files, monkeypatch):
    monkeypatch.setattr(runtimes, "runtimes", lambda: ())
    report = dkm.validate(files, reference=frozen, inputs=images(2))
    for model in report.files:
        assert _checks(model).items() >= {"palettes": "passed", "parity": "skipped"}.items()
        assert model.runtime is None
    assert report
    assert not dkm.validate(files, reference=frozen, inputs=images(2), require=True)


def test_what_is_required_can_pass(frozen, files):
    assert dkm.validate(files, reference=frozen, inputs=images(2), require=True)


def test_only_named_checks_must_have_run(frozen, files, monkeypatch):
    def report(*names, **how):
        return dkm.validate(files, reference=frozen, inputs=images(2), require=names, **how)

    assert report("palettes", "parity")
    limited = dkm.Limits(max_metric_loss=1)  # it needs an original
    assert report("parity", limits=limited)
    assert not report("metric", limits=limited)
    unasked = report("parity", "size")
    assert not unasked
    assert unasked.lacking == tuple(
        f"{file.name}: size: required, but no limit asks for it" for file in unasked.files
    )
    assert report("parity", "size", limits=dkm.Limits(max_bytes=10**9))
    monkeypatch.setattr(runtimes, "runtimes", lambda: ())
    assert report("palettes")
    assert not report("palettes", "parity")


@pytest.mark.parametrize("names", ["speed", ["parity", ""]])
def test_there_must_be_such_a_check(frozen, files, names):
    with pytest.raises(
        dkm.DkmError, match="require: unknown check .*; known checks are palettes, "
    ):
        dkm.validate(files, reference=frozen, inputs=images(2), require=names)


def test_nothing_passes_because_it_was_not_checked(files, monkeypatch):
    monkeypatch.setattr(runtimes, "runtimes", lambda: ())
    report = dkm.validate(files, reference=small_net(), inputs=images(2))
    assert not report.failed
    assert not report
    assert not dkm.validate([], reference=small_net(), inputs=images(2))


def test_a_reference_without_palettes_leaves_the_weights_unchecked(frozen, files):
    report = dkm.validate(files[:1], reference=small_net(), inputs=images(2))
    assert _checks(report.files[0]).items() >= {"palettes": "skipped", "parity": "failed"}.items()


def test_a_single_input_goes_by_any_name(frozen, tmp_path):
    class Renamed(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = small_net()

        def forward(self, pixels):
            return self.model(pixels)

    other = dkm.palettize(Renamed().eval(), dkm.Recipe(rules=[dkm.Rule(spec=8)]))
    path = dkm.convert(other, images(1), tmp_path / "m.onnx").path
    plain = dkm.palettize(small_net(), dkm.Recipe(rules=[dkm.Rule(spec=8)]))
    report = dkm.validate([path], reference=plain, inputs={"x": images(2)})
    assert _checks(report.files[0])["parity"] == "passed"


class _TwoOutputs(nn.Module):
    """Scores and what they are made of, in the order asked for."""

    def __init__(self, *names):
        super().__init__()
        self.model, self.names = small_net(), names

    def forward(self, x):
        scores = self.model(x)
        found = {"scores": scores, "halves": -scores / 2}
        return {name: found[name] for name in self.names}


def test_outputs_in_another_order_are_matched_by_name(tmp_path, labels):
    recipe = dkm.Recipe(rules=[dkm.Rule(spec=8)])
    right = dkm.palettize(_TwoOutputs("scores", "halves").eval(), recipe)
    other = dkm.palettize(_TwoOutputs("halves", "scores").eval(), recipe)
    path = dkm.convert(other, images(1), tmp_path / "m.onnx").path
    report = dkm.validate([path], reference=right, inputs=images(COUNT), labels=labels)
    assert report
    assert report.files[0].metric == report.models[0].metric > 50


def test_swapped_outputs_fail(tmp_path):
    frozen = dkm.palettize(
        _TwoOutputs("scores", "halves").eval(), dkm.Recipe(rules=[dkm.Rule(spec=8)])
    )
    model = onnx.load(dkm.convert(frozen, images(1), tmp_path / "m.onnx").path)
    swapped = {"scores": "halves", "halves": "scores"}
    for node in model.graph.node:
        node.input[:] = [swapped.get(name, name) for name in node.input]
        node.output[:] = [swapped.get(name, name) for name in node.output]
    onnx.save(model, tmp_path / "bad.onnx")
    report = dkm.validate([tmp_path / "bad.onnx"], reference=frozen, inputs=images(2))
    assert _checks(report.files[0]).items() >= {"palettes": "passed", "parity": "failed"}.items()


class TestPlantedFaults:
    def test_one_flipped_index_in_onnx(self, frozen, files, tmp_path):
        bad = tmp_path / "bad.onnx"
        model = onnx.load(files[0])
        tensor = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.UINT8)
        data = numpy_helper.to_array(tensor).copy()
        data.flat[5] ^= 1
        tensor.CopyFrom(numpy_helper.from_array(data, tensor.name))
        onnx.save(model, bad)
        report = dkm.validate([bad], reference=frozen, inputs=images(2))
        assert _checks(report.files[0])["palettes"] == "failed"
        assert "stem.weight: 1 of 216 indices differ" in report.failed[0]

    def test_one_lut_step_in_core_ml(self, frozen, files, tmp_path):
        bad = tmp_path / "bad.mlpackage"
        shutil.copytree(files[1], bad)
        lut = dkm.palettes(frozen)["head.weight"].lut.astype(np.float16).tobytes()
        overwrite(bad, lut, bytes([lut[0] ^ 1]) + lut[1:])
        report = dkm.validate([bad], reference=frozen, inputs=images(2))
        assert (
            _checks(report.files[0]).items() >= {"palettes": "failed", "parity": "passed"}.items()
        )
        assert (
            "head.weight: LUT entries differ: 1 of 256 float16 values, by up to "
            in report.failed[0]
        )

    def test_a_weight_left_dense(self, frozen, tmp_path):
        recipe = dkm.Recipe(rules=[dkm.Rule("stem.*", dkm.PaletteSpec(3))])
        other = dkm.palettize(small_net(), recipe)
        bad = dkm.convert(other, images(1), tmp_path / "bad.onnx")
        report = dkm.validate([bad], reference=frozen, inputs=images(2))
        assert "head.weight is not a palette in the file" in report.failed[0]

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_other_arithmetic_with_the_right_weights(self, frozen, tmp_path, suffix):
        other = dkm.palettize(small_net(), MIXED)
        with torch.no_grad():
            other.head.bias[0] += 0.5
        bad = dkm.convert(other, images(1), tmp_path / f"bad{suffix}")
        report = dkm.validate([bad], reference=frozen, inputs=images(2))
        assert (
            _checks(report.files[0]).items() >= {"palettes": "passed", "parity": "failed"}.items()
        )

    def test_outputs_of_another_shape(self, frozen, tmp_path):
        other = nn.Sequential(dkm.palettize(small_net(), MIXED), nn.Flatten(0))
        bad = dkm.convert(other.eval(), images(1), tmp_path / "bad.onnx")
        report = dkm.validate([bad], reference=frozen, inputs=images(1))
        assert "parity: shape (5,) in place of (1, 5)" in " ".join(report.failed)


class TestBadInput:
    def test_a_metric_that_fails(self, frozen, files):
        def fails(output, labels):
            raise KeyError("no such class")

        with pytest.raises(dkm.DkmError, match="metric cannot be computed: KeyError: 'no such"):
            dkm.validate(files, reference=frozen, inputs=images(2), labels=np.ones(2), metric=fails)

    def test_a_limit_of_an_output_that_is_not_there(self, frozen, files):
        limits = dkm.Limits(outputs={"logits": dkm.OutputLimits(min_cosine=1)})
        with pytest.raises(dkm.DkmError, match="output 'logits'; the outputs are output"):
            dkm.validate(files, reference=frozen, inputs=images(2), limits=limits)

    def test_a_missing_file(self, frozen):
        with pytest.raises(FileNotFoundError, match=r"none\.onnx"):
            dkm.validate(["none.onnx"], reference=frozen, inputs=images(2))

    def test_a_truncated_file(self, frozen, files, tmp_path):
        bad = tmp_path / "bad.onnx"
        bad.write_bytes(files[0].read_bytes()[:1000])
        with pytest.raises(dkm.DkmError, match=r"bad\.onnx"):
            dkm.validate([bad], reference=frozen, inputs=images(2))

    def test_labels_of_another_length(self, frozen, files):
        with pytest.raises(dkm.DkmError, match="3 labels for 2 inputs"):
            dkm.validate(files, reference=frozen, inputs=images(2), labels=torch.zeros(3))

    def test_no_samples(self, frozen, files):
        with pytest.raises(dkm.DkmError, match="at least 1"):
            dkm.validate(files, reference=frozen, inputs=torch.zeros(0, 3, 8, 8))

    @pytest.mark.parametrize("inputs", [torch.ones(2, 3, 9), {"y": torch.ones(2, 3, 8, 8)}])
    def test_inputs_that_do_not_fit(self, frozen, files, inputs):
        with pytest.raises(dkm.DkmError, match="the PyTorch model does not run on the inputs"):
            dkm.validate(files, reference=frozen, inputs=inputs)


class Centred(nn.Module):
    """Each answer depends on the other samples of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x)
        return y - y.mean(0)


def test_a_file_sees_the_same_batches_as_the_model(tmp_path):
    torch.manual_seed(0)
    frozen = dkm.palettize(Centred(), 3)
    batch = {"x": {0: torch.export.Dim("batch", max=1024)}}
    path = dkm.convert(frozen, torch.randn(2, 6), tmp_path / "m.onnx", dynamic_shapes=batch)
    assert dkm.validate(path, reference=frozen, inputs=torch.randn(300, 6))
