"""How an ONNX file stores its tensors: float16, data files, and the same bytes every time."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

import dkm_deploy as dkm
from converters.onnx.graph.load import load
from dkm_deploy.cli import main
from dkm_deploy.runtimes.onnx_runtime.runtime import runtime


class Storing(nn.Module):
    """Ids ``(n, t)`` to scores ``(n, t, 6)``: a dense table, factors, a norm, grouped LUTs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(3000, 64)
        self.scale = nn.Parameter(torch.ones(64))
        self.norm = nn.LayerNorm(64)
        self.middle = nn.Linear(64, 64)
        self.out = nn.Linear(64, 6)

    def forward(self, ids):
        x = self.norm(self.embed(ids) * self.scale)
        return self.out(torch.relu(self.middle(x)))


RULES = [
    dkm.Rule(match="middle.weight", spec=dkm.PaletteSpec(bits=5, group_size=16)),
    dkm.Rule(match="out.weight", spec=dkm.PaletteSpec(bits=2)),
    dkm.Rule(match="*", skip=True),
]
IDS = torch.tensor([[0, 1, 1500, 2999]])
HALVES = {f"{name}.float16" for name in ("embed.weight", "middle.bias", "norm.weight")}


def frozen_model() -> nn.Module:
    torch.manual_seed(0)
    model = Storing().eval()
    nn.init.uniform_(model.norm.weight, 0.5, 2)
    return dkm.palettize(model, dkm.Recipe(rules=RULES))


@pytest.fixture(scope="module")
def frozen() -> nn.Module:
    return frozen_model()


@pytest.fixture(scope="module")
def plain(frozen, tmp_path_factory) -> dkm.Artifact:
    return dkm.convert(frozen, IDS, tmp_path_factory.mktemp("plain") / "m.onnx")


@pytest.fixture(scope="module")
def halved(frozen, tmp_path_factory) -> dkm.Artifact:
    path = tmp_path_factory.mktemp("halved") / "m.onnx"
    return dkm.convert(frozen, IDS, path, storage_dtype="float16")


@pytest.fixture(scope="module")
def pair(frozen, tmp_path_factory) -> dkm.Artifact:
    """Both options at once: the model and its data file, alone in a folder."""
    path = tmp_path_factory.mktemp("pair") / "m.onnx"
    return dkm.convert(frozen, IDS, path, storage_dtype="float16", external_data=True)


def answers(path: os.PathLike[str]) -> np.ndarray:
    return runtime.load(Path(path)).run({"ids": IDS.numpy()})["output"]


class TestFloat16:
    def test_the_numbers_are_those_of_the_rounded_weights(self, frozen, halved):
        rounded = copy.deepcopy(frozen)
        with torch.no_grad():
            for name in ("embed.weight", "middle.bias", "norm.weight"):
                rounded.get_parameter(name).copy_(rounded.get_parameter(name).half())
            for buffer in rounded.middle.buffers():
                buffer.copy_(buffer.half() if buffer.is_floating_point() else buffer)
            expected = rounded(IDS).numpy()
            assert np.abs(frozen(IDS).numpy() - expected).max() > 1e-5  # the rounding shows
        assert np.abs(answers(halved) - expected).max() < 2e-6

    def test_values_keep_their_names_and_are_cast_once(self, halved):
        graph = onnx.load(halved).graph
        types = {tensor.name: tensor.data_type for tensor in graph.initializer}
        halves = {name for name, kind in types.items() if kind == TensorProto.FLOAT16}
        assert halves - {"norm.bias.float16"} == HALVES | {"middle.weight.lut"}
        casts = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "Cast"}
        for stored in halves:
            value = f"{stored}.float32" if stored.endswith(".lut") else stored[: -len(".float16")]
            assert casts[stored] == value

    def test_it_halves_what_it_may(self, plain, halved):
        before, after = plain.ledger.by_kind(), halved.ledger.by_kind()
        assert after["indices"] == before["indices"]
        assert after["lut"] == before["lut"] - 2 * 4 * 32  # the one of 4 entries would not shrink
        assert after["dense"] < before["dense"] * 0.502
        assert after["graph"] - before["graph"] < 5 * 120
        assert halved.notes == ("scale stays float32: Mul may need its precision",)
        assert plain.notes == ()

    def test_the_palettes_are_the_frozen_ones_with_their_luts_rounded(self, frozen, halved):
        palettes = dkm.palettes(frozen)
        palettes["middle.weight"] = palettes["middle.weight"].astype(np.float16)
        assert dkm.read_palettes(halved) == palettes
        report = dkm.validate([halved], reference=frozen, inputs=IDS)
        assert report, report.failed

    def test_a_cast_that_loses_digits_is_no_palette(self, halved, tmp_path):
        """The LUT's own type would say more than the graph computes with."""
        model = onnx.load(halved)
        lut = next(t for t in model.graph.initializer if t.name == "middle.weight.lut")
        values = numpy_helper.to_array(lut).astype(np.float64) + 1e-9
        lut.CopyFrom(numpy_helper.from_array(values, lut.name))
        onnx.save(model, tmp_path / "m.onnx")
        with pytest.raises(dkm.DkmError, match="middle.weight: .* loses precision"):
            dkm.read_palettes(tmp_path / "m.onnx")


class TestDataFile:
    def test_a_model_in_two_files_is_the_one_in_one(self, frozen, halved, pair):
        files = {path.name: path.stat().st_size for path in pair.path.parent.iterdir()}
        assert set(files) == {"m.onnx", "m.onnx.data"}
        assert files["m.onnx"] < 6000
        assert load(pair.path) == load(halved.path)
        assert answers(pair).tobytes() == answers(halved).tobytes()
        assert dkm.read_palettes(pair) == dkm.read_palettes(halved)
        report = dkm.validate([pair], reference=frozen, inputs=IDS)
        assert report, report.failed

    def test_its_bytes_are_counted(self, halved, pair):
        sizes = [path.stat().st_size for path in pair.path.parent.iterdir()]
        assert pair.size_bytes == sum(sizes)
        assert pair.ledger.companions == (pair.path.with_name("m.onnx.data"),)
        kinds = pair.ledger.by_kind()
        assert all(
            kinds[k] == halved.ledger.by_kind()[k] for k in ("indices", "lut", "dense", "padding")
        )

    def test_the_model_refers_to_it_by_its_name_alone(self, pair):
        tensors = onnx.load(pair, load_external_data=False).graph.initializer
        outside = [t for t in tensors if t.data_location == TensorProto.EXTERNAL]
        places = [{entry.key: entry.value for entry in t.external_data} for t in outside]
        assert {place["location"] for place in places} == {"m.onnx.data"}
        assert "embed.weight.float16" in {t.name for t in outside}
        assert TensorProto.UINT8 in {t.data_type for t in outside}  # planes of indices
        assert max(numpy_helper.to_array(t).nbytes for t in tensors if t not in outside) <= 1024

    def test_too_large_for_one_file_means_two(self, frozen, tmp_path, monkeypatch):
        monkeypatch.setattr(sys.modules["converters.onnx.writing.write"], "LARGEST", 100_000)
        dkm.convert(frozen, IDS, tmp_path / "m.onnx")
        assert (tmp_path / "m.onnx.data").exists()

    def test_there_is_none_if_nothing_is_large(self, tmp_path):
        path = tmp_path / "m.onnx"
        dkm.convert(nn.Linear(3, 2).eval(), torch.ones(1, 3), path, external_data=True)
        assert list(tmp_path.iterdir()) == [path]

    def test_one_that_no_longer_belongs_goes_and_others_stay(self, frozen, pair, tmp_path):
        path = tmp_path / "m.onnx"
        model = onnx.load(pair)
        onnx.save(model, path, save_as_external_data=True, location="shared.bin")
        extra = numpy_helper.from_array(np.ones(2000, np.float32), "extra")
        onnx.external_data_helper.set_external_data(extra, "m.onnx.data")
        (tmp_path / "m.onnx.data").write_bytes(extra.raw_data)
        extra.ClearField("raw_data")
        model = onnx.load(path, load_external_data=False)
        model.graph.initializer.append(extra)
        onnx.save(model, path)
        (tmp_path / "m.onnx.txt").write_text("notes of mine")
        dkm.convert(frozen, IDS, path, force=True)
        assert {p.name for p in tmp_path.iterdir()} == {"m.onnx", "shared.bin", "m.onnx.txt"}

    def test_one_that_is_there_is_not_replaced_without_force(self, frozen, tmp_path):
        (tmp_path / "m.onnx.data").write_bytes(b"precious")
        with pytest.raises(FileExistsError, match=r"m\.onnx\.data: already exists"):
            dkm.convert(frozen, IDS, tmp_path / "m.onnx", external_data=True)
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"precious"]


def test_the_command_line_has_the_options_and_tells_what_stays(frozen, tmp_path, capsys):
    dkm.save(frozen, tmp_path / "m.safetensors")
    command = ["convert", f"{__name__}:Storing", "--weights", f"{tmp_path}/m.safetensors"]
    options = ["--option", "storage_dtype=float16", "--option", "external_data=true"]
    more = ["--input", "1x4:int64", "-o", f"{tmp_path}/m.onnx", *options]
    assert main([*command, *more]) == 0
    assert "scale stays float32: Mul may need its precision" in capsys.readouterr().out
    assert (tmp_path / "m.onnx.data").exists()


@pytest.mark.parametrize(
    ("option", "value"), [("storage_dtype", "float64"), ("external_data", "yes")]
)
def test_an_option_with_an_unknown_value_is_refused(frozen, tmp_path, option, value):
    with pytest.raises(dkm.DkmError, match=f"{option} is '{value}'; it must be "):
        dkm.convert(frozen, IDS, tmp_path / "m.onnx", **{option: value})
    assert not list(tmp_path.iterdir())


WRITE = """
import sys
import dkm_deploy as dkm
from tests.converters.onnx.writing.test_storage import IDS, frozen_model

options = {"storage_dtype": "float16", "external_data": True}
dkm.convert(frozen_model(), IDS, sys.argv[1], **options)
"""


def test_every_process_writes_the_same_bytes(pair, tmp_path):
    """The other process hashes strings in another way."""
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", WRITE, str(tmp_path / "m.onnx")]
    subprocess.run(command, check=True, env=environment)
    for name in ("m.onnx", "m.onnx.data"):
        assert (tmp_path / name).read_bytes() == pair.path.with_name(name).read_bytes()
