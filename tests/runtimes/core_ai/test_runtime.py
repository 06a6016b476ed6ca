"""The Core AI runtime: Apple's own, and what is said where it is not installed."""

from __future__ import annotations

import asyncio
import copy
import os
import shutil
from importlib.metadata import version

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.runtimes import runtime_for
from dkm_deploy.runtimes.core_ai import packages
from dkm_deploy.runtimes.core_ai.runtime import CoreAIRuntime
from tests.converters.coreai.assets import extra, rehashed
from tests.models import MIXED, images, small_net


@pytest.fixture
def bare(monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda name: None)


def test_convert_names_the_extra(bare, tmp_path):
    frozen = dkm.palettize(nn.Linear(4, 4), dkm.Recipe.uniform(2))
    path = tmp_path / "m.aimodel"
    with pytest.raises(dkm.DkmError, match=r'coreai.* missing: pip install "dkm-deploy\[coreai'):
        dkm.convert(frozen, torch.randn(1, 4), path)
    assert not path.exists()


def test_running_names_the_extra(bare, tmp_path):
    assert "dkm-deploy[coreai]" in CoreAIRuntime().unavailable()
    with pytest.raises(dkm.DkmError, match=r'pip install "dkm-deploy\[coreai\]"'):
        runtime_for(tmp_path / "m.aimodel")
    with pytest.raises(dkm.DkmError, match=r'pip install "dkm-deploy\[coreai\]"'):
        CoreAIRuntime().load(tmp_path / "m.aimodel")


def test_other_targets_work_without_it(bare, tmp_path):
    frozen = dkm.palettize(nn.Linear(4, 4), dkm.Recipe.uniform(2))
    dkm.prepare(nn.Linear(4, 4), dkm.Recipe.uniform(2), targets=("onnx", "coreai"))
    dkm.convert(frozen, torch.randn(1, 4), tmp_path / "m.onnx")


def test_what_is_not_noise_is_passed_on(capfd):
    with packages.quiet_imports():
        os.write(2, b"[7f] ODIE [default]: Loading function\n")
        os.write(2, b"something else went wrong\n")
    assert capfd.readouterr().err == "something else went wrong\n"


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    extra()
    frozen = dkm.palettize(small_net(), MIXED)
    path = tmp_path_factory.mktemp("core_ai") / "m.aimodel"
    return frozen, dkm.convert(frozen, images(1), path).path


def test_validate(net):
    frozen, path = net
    report = dkm.validate([path], reference=frozen, original=small_net(), inputs=images(4))
    assert report, report.failed
    assert f"Core AI {version('coreai-core')}" in str(report.to_dict())


def test_an_asset_in_float16_is_judged_by_the_limits_of_float16(net, tmp_path):
    frozen, _ = net
    path = tmp_path / "m.aimodel"
    dkm.convert(frozen, images(1), path, compute_precision="float16")
    report = dkm.validate([path], reference=frozen, inputs=images(4))
    assert report, report.failed
    assert "x the model's own float16 noise" in str(report.to_dict())
    strict = dkm.Limits(max_relative_error=1e-4)  # that of float32
    assert not dkm.validate([path], reference=frozen, inputs=images(4), limits=strict)


def test_within_a_running_loop(net):
    _, path = net
    session = CoreAIRuntime().load(path)
    arrays = {"x": images(1).numpy()}

    async def notebook():
        return session.run(arrays)

    expected = session.run(arrays)["output"]
    np.testing.assert_array_equal(asyncio.run(notebook())["output"], expected)


def test_inputs_that_do_not_fit(net):
    _, path = net
    session = CoreAIRuntime().load(path)
    assert session.input_shapes == {"x": (1, 3, 8, 8)}
    with pytest.raises(dkm.DkmError, match=r"has shape \(2, 3, 8, 8\)"):
        session.run({"x": images(2).numpy()})
    with pytest.raises(dkm.DkmError, match="inputs are y; the file takes x"):
        session.run({"y": images(1).numpy()})


def test_numbers_that_32_bits_do_not_hold(tmp_path):
    extra()
    frozen = dkm.palettize(nn.Sequential(nn.Embedding(20, 8)), dkm.Recipe.uniform(2))
    path = dkm.convert(frozen, torch.tensor([1, 2]), tmp_path / "m.aimodel").path
    session = CoreAIRuntime().load(path)
    expected = frozen(torch.tensor([3, 4])).numpy()
    np.testing.assert_array_equal(session.run({"input": np.array([3, 4])})["output"], expected)
    with pytest.raises(dkm.DkmError, match="input 'input' has values that int32 cannot hold"):
        session.run({"input": np.array([3, 2**40])})


def test_a_damaged_asset(net, tmp_path):
    _, path = net
    damaged = shutil.copytree(path, tmp_path / "m.aimodel")
    (damaged / "main.mlirb").write_bytes(b"ML\xefR")
    with pytest.raises(dkm.DkmError, match="is not the program whose SHA-256"):
        CoreAIRuntime().load(damaged)
    rehashed(damaged, b"ML\xefR\x0d")
    with pytest.raises(dkm.DkmError, match=r"m\.aimodel: its program is damaged [^\n]+$"):
        CoreAIRuntime().load(damaged)


def test_the_first_layer_that_is_off_is_named(net):
    frozen, path = net
    changed = copy.deepcopy(frozen)
    with torch.no_grad():
        changed.head.bias[0] += 1
    report = dkm.validate([path], reference=changed, inputs=images(2))
    assert not report
    assert "first error in head: " in str(report.failed)
    assert "its input is right" in str(report.failed)


def test_an_infinite_value_is_located_too(net, tmp_path):
    frozen, _ = net
    changed = copy.deepcopy(frozen)
    with torch.no_grad():
        changed.head.bias[0] = torch.inf
    path = dkm.convert(changed, images(1), tmp_path / "m.aimodel").path
    report = dkm.validate([path], reference=frozen, inputs=images(2))
    assert "first error in head: relative error inf" in report.failed[0]


def test_values_around_every_kind_of_layer(tmp_path):
    extra()

    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.mix = nn.Embedding(20, 8), nn.Linear(8, 8)
            self.conv = nn.Conv1d(8, 8, 3, padding=1)
            self.out = nn.Linear(8, 4, bias=False)

        def forward(self, ids):
            mixed = torch.tanh(self.mix(self.embed(ids)))
            return self.out(self.conv(mixed.transpose(1, 2)).transpose(1, 2))

    torch.manual_seed(0)
    frozen = dkm.palettize(Words().eval(), dkm.Recipe.uniform(2))
    ids = torch.randint(0, 20, (2, 6))
    path = dkm.convert(frozen, ids, tmp_path / "m.aimodel").path
    probe = CoreAIRuntime().probe(path, list(dkm.palettes(frozen)))
    assert [tap.weight for tap in probe.taps] == list(dkm.palettes(frozen))
    seen = {}
    for name in ("embed", "mix", "conv", "out"):
        layer = getattr(frozen, name)
        layer.register_forward_hook(lambda _, x, y, name=name: seen.update({name: (x[0], y)}))
    frozen(ids)
    values = probe.at(probe.taps).run({"ids": ids.numpy()})
    for tap in probe.taps:
        taken, made = seen[tap.weight.removesuffix(".weight")]
        if tap.weight == "embed.weight":  # a lookup takes each id as a vector of one
            taken = taken[..., None]
        np.testing.assert_allclose(values[tap.input], taken.detach(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(values[tap.output], made.detach(), rtol=1e-4, atol=1e-5)
