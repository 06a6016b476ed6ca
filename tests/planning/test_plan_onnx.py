"""Plans for ONNX files, by the bytes that palettize_file then writes."""

from __future__ import annotations

import io

import numpy as np
import onnx
import pytest
import torch
from rich.console import Console

import dkm_deploy as dkm
from converters.onnx.rewriting.weights_as_inputs import WeightsAsInputs
from tests.converters.onnx.models import LEVELS, dense_twin, run, save
from tests.planning.onnx_net import net, rows

QUIET = Console(file=io.StringIO())
SPECS = [
    *(dkm.PaletteSpec(bits) for bits in (1, 2, 3)),
    dkm.PaletteSpec(2, group_size=32),
    dkm.PaletteSpec(4, cluster_dim=2),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return save(tmp_path_factory.mktemp("net") / "net.onnx", net())


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A cache that tests share."""
    return tmp_path_factory.mktemp("cache")


def _plan(file, budget, calibration=None, **more):
    how = {"candidates": SPECS, "console": QUIET} | more
    data = rows(24) if calibration is None else calibration
    return dkm.plan(file, budget, calibration=data, **how)


@pytest.mark.parametrize("budget", [9_000, 12_000, 40_000])
def test_the_file_fits_and_was_predicted(file, kept, tmp_path, budget):
    found = _plan(file, budget, cache=kept)
    written = dkm.palettize_file(file, tmp_path / "small.onnx", found.recipe)
    assert written.bytes_after == found.size_bytes["onnx"]
    assert 0.8 * budget < written.bytes_after <= budget
    assert abs(found.predicted_bytes - written.bytes_after) <= 0.005 * written.bytes_after
    chosen = {made.name: made.spec.bits for made in found.decisions if made.spec is not None}
    assert {name: p.bits for name, p in dkm.read_palettes(written).items()} == chosen
    assert found.least_loss <= found.loss


def test_the_loss_is_that_of_the_weight_alone(file, kept, tmp_path):
    found = _plan(file, 12_000, cache=kept)
    made = next(made for made in found.decisions if made.name == "w2")
    recipe = dkm.Recipe(rules=[dkm.Rule("w2", spec=made.spec)])
    palettes = dkm.palettize_file(file, tmp_path / "one.onnx", recipe).palettes
    model, feeds = onnx.load(file), {"x": rows(24).numpy()}
    (expected,) = run(model, feeds, LEVELS[1])
    (actual,) = run(dense_twin(model, palettes), feeds, LEVELS[1])
    loss = np.square(actual - expected).sum() / np.square(expected).sum()
    assert made.loss == pytest.approx(loss, rel=1e-4)


def test_more_bytes_lose_less(file, kept):
    losses = [_plan(file, budget, cache=kept).loss for budget in (9_000, 20_000, 1_000_000)]
    assert losses[0] > losses[1] > losses[2] == 0


def test_a_plan_that_was_killed_goes_on(file, tmp_path, monkeypatch):
    real, left = WeightsAsInputs.run, 7

    def _killed(*arguments):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(WeightsAsInputs, "run", _killed)
    how = {"cache": tmp_path / "kept", "calibration": rows(16), "candidates": SPECS[:3]}
    with pytest.raises(KeyboardInterrupt):
        _plan(file, 12_000, **how)
    left = 1 + 4 * 3 - 6  # the outputs as they are, and the losses that were not measured yet
    resumed = _plan(file, 12_000, **how)
    assert left == 0
    left = 1
    assert _plan(file, 12_000, **how) == resumed


def test_a_budget_below_the_least_is_refused_with_the_least(file, kept):
    with pytest.raises(dkm.DkmError, match="budget of 900 bytes cannot be met") as caught:
        _plan(file, 900, cache=kept)
    least = int(str(caught.value).split()[-2].replace(",", ""))
    assert _plan(file, least, cache=kept).size_bytes["onnx"] == least


def test_a_metric_of_the_users_own(file):
    x = rows(40)
    (labels,) = (output.argmax(1) for output in run(net(), {"x": x.numpy()}, LEVELS[1]))

    def _right(outputs, labels):
        return 100 * float(np.mean(outputs.argmax(1) == labels))

    found = _plan(file, 9_000, [(x, labels)], metric=_right, candidates=SPECS[:2])
    lost = [40 * made.loss / 100 for made in found.decisions]
    assert lost == pytest.approx([round(answers) for answers in lost])
    assert any(lost)


def test_calibration_is_cut_as_one_likes(file):
    """The loss is summed over the samples, however they come."""
    x, specs = rows(40), SPECS[:1]
    forms = [x, x.numpy(), {"x": x}, [x[:25], (x[25:].numpy(), None)], iter([(x, [0] * 40)])]
    losses = [_plan(file, 12_000, form, candidates=specs).loss for form in forms]
    assert losses == pytest.approx([losses[0]] * len(forms), rel=1e-5)


def test_a_file_of_one_batch_and_names_with_patterns(tmp_path):
    file = save(tmp_path / "fixed.onnx", net(batch=3, middle="w[3]"))
    found = _plan(file, 12_000, {"x": rows(6)}, candidates=SPECS[1:2])
    dkm.palettize_file(file, tmp_path / "small.onnx", found.recipe)
    with pytest.raises(dkm.DkmError, match="8 samples do not split into batches of 3"):
        _plan(file, 17_000, rows(8))


def test_what_a_palette_makes_larger_stays_dense(tmp_path):
    proto = net()
    w4 = next(held for held in proto.graph.initializer if held.name == "w4")
    w4.CopyFrom(onnx.numpy_helper.from_array(np.ones((48, 1), np.float32), "w4"))
    found = _plan(save(tmp_path / "thin.onnx", proto), 12_000, candidates=SPECS[1:2])
    assert next(made for made in found.decisions if made.name == "w4").spec is None


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"budget": "much"}, "size 'much'"),
        ({"calibration": {"z": rows(2), "x": rows(2)}}, "inputs are .*; the file takes x"),
        ({"calibration": torch.zeros(2, 5)}, r"input 'x' has shape \(2, 5\)"),
        ({"metric": lambda outputs, labels: 0.0}, "metric needs labels"),
        ({"calibration": [(rows(24), [1, 2])]}, "2 labels for 24 inputs"),
        ({"targets": "coreml"}, r"targets: it can become onnx alone; coreml needs the PyTorch"),
        ({"method": "sensitive"}, "method: kmeans alone, for such files give no gradients"),
        ({"example_inputs": rows(1)}, "example_inputs: the file is not exported again"),
        ({"dynamic_shapes": {}}, "dynamic_shapes: the file is not exported again"),
        ({"candidates": [dkm.PaletteSpec(2, cluster_dim=7)]}, "none of 1 candidates fits any"),
    ],
)
def test_wrong_use(file, how, message):
    with pytest.raises(dkm.DkmError, match=message):
        _plan(file, **{"budget": 30_000} | how)


def test_a_file_that_is_palettized_already(file, tmp_path):
    small = dkm.palettize_file(file, tmp_path / "small.onnx", dkm.Recipe.uniform(2))
    with pytest.raises(dkm.DkmError, match=r"small\.onnx: palettized already \(w1, w2"):
        _plan(small.path, 30_000)
