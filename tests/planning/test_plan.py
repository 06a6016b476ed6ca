from __future__ import annotations

import io
from math import prod

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.conversion.plan_subject import FileSizes
from dkm_deploy.planning.module_subject import ModuleSubject
from dkm_deploy.post_training import loss_probe as probes
from dkm_deploy.post_training.methods import KMeans
from tests.models import images, wide_net

QUIET = Console(file=io.StringIO())
BITS = [dkm.PaletteSpec(bits) for bits in (1, 2, 3, 4)]
MIXED = [
    BITS[1],
    *(dkm.PaletteSpec(4, **how) for how in ({}, {"group_size": 16}, {"cluster_dim": 2})),
]
WEIGHTS = ["stem.weight", "hidden.weight", "wide.weight", "head.weight"]


@pytest.fixture(scope="module")
def model():
    return wide_net()


@pytest.fixture(scope="module")
def samples():
    return images(24)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A cache that the tests which write files share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def ruled(monkeypatch):
    """Bytes by a rule, in place of files, for tests that are about something else."""
    monkeypatch.setattr(
        ModuleSubject, "weigh", lambda subject, _, specs: _by_rule(subject.shapes, specs)
    )


def _by_rule(shapes, specs):
    """1,000 bytes, 4 for a dense value, n bits an index, 4 for an entry of a LUT, 50 a palette."""
    counts = {name: prod(shape) for name, shape in shapes.items()}
    payload = sum(
        counts[name] * spec.bits // (8 * spec.cluster_dim) + 4 * (spec.cluster_dim << spec.bits)
        for name, spec in specs.items()
    )
    dense = sum(4 * count for name, count in counts.items() if name not in specs)
    total = 1_000 + dense + payload + 50 * len(specs)
    return FileSizes(total, dense, {name: spec.bits for name, spec in specs.items()}, 4, False)


def _plan(model, samples, budget, targets=("onnx",), **more):
    how = {"candidates": BITS, "console": QUIET} | more
    return dkm.plan(model, budget, targets, samples, **how)


@pytest.mark.parametrize("target", ["onnx", pytest.param("coreml", marks=pytest.mark.slow)])
@pytest.mark.parametrize("budget", [pytest.param(22_000, marks=pytest.mark.slow), 30_000])
def test_the_file_fits_and_was_predicted(model, samples, kept, tmp_path, target, budget):
    found = _plan(model, samples, budget, (target,), candidates=MIXED, cache=kept)
    frozen = dkm.palettize(model, found.recipe)
    suffix = {"onnx": "onnx", "coreml": "mlpackage"}[target]
    artifact = dkm.convert(frozen, samples[:1], tmp_path / f"net.{suffix}")
    assert artifact.size_bytes == found.size_bytes[target]
    assert 0.8 * budget < artifact.size_bytes <= budget
    assert abs(found.predicted_bytes - artifact.size_bytes) <= 0.005 * artifact.size_bytes
    assert found.least_loss <= found.loss
    assert sum(made.loss for made in found.decisions) == pytest.approx(found.loss)


def test_each_of_several_files_fits(model, samples, kept):
    found = _plan(model, samples, 26_000, ("onnx", "coreml"), candidates=MIXED, cache=kept)
    assert set(found.size_bytes) == {"onnx", "coreml"}
    assert 0.8 * 26_000 < max(found.size_bytes.values()) <= 26_000


@pytest.mark.slow
@pytest.mark.parametrize("target", ["coreml", "coreml:iOS26"])
def test_scales_in_luts_and_beside_them_are_predicted(model, samples, tmp_path, target):
    scaled = [dkm.PaletteSpec(bits, per_channel_scale=True) for bits in (2, 3, 4)]
    found = _plan(model, samples, 24_000, (target,), candidates=scaled)
    assert any(made.spec and made.spec.per_channel_scale for made in found.decisions)
    actual = found.size_bytes[target]
    assert abs(found.predicted_bytes - actual) <= 0.005 * actual


@pytest.mark.usefixtures("ruled")
def test_more_bytes_lose_less(model, samples):
    plans = [_plan(model, samples, budget) for budget in ("8kB", "12kB", "20kB", "1MB")]
    losses = [found.loss for found in plans]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1] == 0
    assert all(made.spec is None for made in plans[-1].decisions)


@pytest.mark.usefixtures("ruled")
def test_the_loss_is_that_of_the_weight_alone(model, samples):
    found = _plan(model, samples, 13_000)
    made = next(made for made in found.decisions if made.name == "hidden.weight")
    recipe = dkm.Recipe(rules=[dkm.Rule("hidden.weight", spec=made.spec)])
    expected, actual = model(samples), dkm.palettize(model, recipe)(samples)
    loss = ((actual - expected).square().sum() / expected.square().sum()).item()
    assert made.loss == pytest.approx(loss, rel=1e-5)


@pytest.mark.usefixtures("ruled")
def test_the_path_of_a_program_stands_for_its_model(tmp_path):
    model, x = nn.Linear(40, 30), torch.randn(6, 40)
    torch.export.save(torch.export.export(model.eval(), (x[:2],)), tmp_path / "net.pt2")
    # All samples at once are cut into the batches that the program is fixed to.
    plans = [_plan(one, x, 3_000) for one in (tmp_path / "net.pt2", str(tmp_path / "net.pt2"))]
    expected = _plan(model, x, 3_000)
    assert [found.recipe for found in plans] == [expected.recipe] * 2
    assert plans[0].loss == pytest.approx(expected.loss, rel=1e-5)


@pytest.mark.usefixtures("ruled")
def test_a_plan_stands_for_its_recipe(model, samples):
    found = _plan(model, samples, 13_000)
    assert dkm.Recipe.of(found) is found.recipe
    frozen = dkm.palettize(model, found)
    assert dkm.palettes(frozen) == dkm.palettes(dkm.palettize(model, found.recipe))


@pytest.mark.usefixtures("ruled")
@pytest.mark.parametrize("bits", [2, 3])
def test_better_than_uniform_at_equal_bytes(model, samples, bits):
    uniform = dict.fromkeys(WEIGHTS, dkm.PaletteSpec(bits))
    size = _by_rule({n: model.get_parameter(n).shape for n in WEIGHTS}, uniform).total
    probe = probes.LossProbe(model, samples, None)
    made = KMeans().palettes(model, uniform, None)
    expected = sum(probe.loss(name, torch.tensor(palette.decode())) for name, palette in made)
    assert _plan(model, samples, size).loss < expected


@pytest.mark.usefixtures("ruled")
def test_a_plan_that_was_killed_goes_on(model, samples, tmp_path, monkeypatch):
    measure, left = probes.LossProbe.loss, 7

    def _killed(*arguments):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(probes.LossProbe, "loss", _killed)
    with pytest.raises(KeyboardInterrupt):
        _plan(model, samples, 15_000, cache=tmp_path, candidates=BITS[1:])
    left = 5  # 4 weights and 3 widths are 12 measurements
    resumed = _plan(model, samples, 15_000, cache=tmp_path, candidates=BITS[1:])
    assert left == 0
    assert _plan(model, samples, 15_000, cache=tmp_path, candidates=BITS[1:]) == resumed
    with pytest.raises(KeyboardInterrupt):  # of other samples nothing is known
        _plan(model, samples + 1, 12_000, cache=tmp_path, candidates=BITS[1:])


@pytest.mark.usefixtures("ruled")
def test_a_budget_below_the_least_is_refused_with_the_least(model, samples):
    with pytest.raises(dkm.DkmError, match="budget of 1,100 bytes cannot be met") as caught:
        _plan(model, samples, 1_100)
    least = int(str(caught.value).split()[-2].replace(",", ""))
    assert _plan(model, samples, least).size_bytes["onnx"] == least


@pytest.mark.usefixtures("ruled")
def test_a_metric_of_the_users_own(model, samples):
    labels = model(samples).argmax(1)
    seen = []

    def _right(outputs, labels):
        seen.append(outputs.shape)
        return 100 * float(np.mean(outputs.argmax(1) == labels))

    halves = [(samples[:9], labels[:9]), (samples[9:], labels[9:])]
    found = _plan(model, halves, 8_000, metric=_right)
    assert set(seen) == {(24, 10)}
    lost = [24 * made.loss / 100 for made in found.decisions]
    assert lost == pytest.approx([round(answers) for answers in lost])
    assert any(lost)


@pytest.mark.usefixtures("ruled")
def test_a_metric_that_gives_no_number_is_never_chosen(model, samples):
    labels, calls = torch.zeros(24), 0

    def _often_nan(outputs, labels):
        nonlocal calls
        calls += 1
        return 1.0 if calls == 1 else float("nan")

    found = _plan(model, [(samples, labels)], "1MB", metric=_often_nan)
    assert calls > 1
    assert all(made.spec is None for made in found.decisions)
    with pytest.raises(dkm.DkmError, match="the metric of the dense model is nan"):
        _plan(model, [(samples, labels)], "1MB", metric=_often_nan)


@pytest.mark.usefixtures("ruled")
def test_only_what_the_targets_hold(model, samples):
    grouped = dkm.PaletteSpec(2, group_size=16)
    for target, budget, held in (("coreml:iOS17", 60_000, False), ("coreml:iOS18", 30_000, True)):
        found = _plan(model, samples, budget, (target,), candidates=[grouped, dkm.PaletteSpec(8)])
        assert any(made.spec == grouped for made in found.decisions) == held


@pytest.mark.usefixtures("ruled")
def test_palettes_of_another_method(model, samples):
    plain, weighed = (
        _plan(model, samples, 12_000, method=method) for method in ("kmeans", "sensitive")
    )
    assert weighed.loss < plain.loss


@pytest.mark.usefixtures("ruled")
def test_names_are_taken_literally(samples):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 64))
    model.add_module("a[0]", nn.Linear(64, 64))
    model.add_module("a0", nn.Linear(64, 64))
    found = _plan(model.eval(), samples, 9_000)
    assert len(found.recipe.assign(model).specs) == 3


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"budget": "much"}, "size 'much'"),
        ({"budget": -5}, "budget is -5; it must be at least 1"),
        ({"candidates": [dkm.PaletteSpec(2, cluster_dim=7)]}, "none of 1 candidates fits any"),
        ({"targets": ()}, "targets is empty"),
        ({"targets": ("tape",)}, "unknown target 'tape'"),
        ({"calibration": None}, "calibration data is missing"),
        ({"calibration": torch.zeros(2, 5)}, "does not run on calibration batch 1"),
        ({"metric": lambda outputs, labels: 0.0}, "metric needs labels"),
        ({"calibration": torch.full((2, 3, 8, 8), torch.nan)}, "gives NaN or infinity on the"),
        ({"method": "magic"}, "unknown post-training method 'magic'"),
    ],
)
def test_wrong_use(model, samples, how, message):
    arguments = {"budget": 30_000, "targets": ("onnx",), "calibration": samples} | how
    with pytest.raises(dkm.DkmError, match=message):
        dkm.plan(model, **arguments, console=QUIET)


def test_a_frozen_model_cannot_be_planned(model, samples):
    with pytest.raises(dkm.DkmError, match="start from the plain model"):
        dkm.plan(dkm.palettize(model, dkm.Recipe.uniform(2)), 30_000, ("onnx",), samples)
