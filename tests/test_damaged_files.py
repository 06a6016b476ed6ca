"""Every reader on thousands of damaged files: a result or one clear line, and nothing else.

Nothing hangs, fills the memory, writes to what it reads or opens what lies beside it. ``make test``
takes a few hundred files; the slow tests take thousands of others.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import tempfile
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tomli_w
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import dkm_deploy as dkm
from converters.ort.flatbuffer_reader import read
from dkm_deploy.formats.aimodel.asset import DIGEST, METADATA, PROGRAM
from dkm_deploy.formats.mlpackage.proto import model_class
from dkm_deploy.report.html.comparison import comparison_page
from dkm_deploy.report.runs import compare_runs
from dkm_deploy.validation import report_rows, row_errors
from dkm_deploy.validation.size_budget import Budget, budget_checks
from tests.converters.coreai.assets import extra
from tests.damage import damaged, damaged_json, damaged_message, harmless, refusal

MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
MANIFEST = "Manifest.json"
BUDGET = """
[[files]]
match = "*.onnx"
max_bytes = "3.4MB"
base_bytes = 1_000
max_growth = "1%"

[[files]]
match = "ios/*.mlpackage"
max_bytes = 5_000
"""
IDS = torch.randint(20, (2, 6), generator=torch.Generator().manual_seed(0))
SUMS = ("SHA256SUMS", DIGEST)
QUICK, SLOW = 15, 3000


class Net(nn.Module):
    """Rows, vectors, groups and widths that are no power of two: ids to scores."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.conv = nn.Conv1d(16, 8, 3, padding=1)
        self.middle = nn.Linear(8, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, ids: Tensor) -> Tensor:
        values = self.conv(self.embedding(ids).transpose(1, 2)).mean(2)
        return self.head(torch.tanh(self.middle(values)))


RECIPE = dkm.Recipe(
    default=dkm.PaletteSpec(bits=3),
    rules=[
        dkm.Rule("conv.*", dkm.PaletteSpec(bits=4, cluster_dim=2, axis=1, group_size=8)),
        dkm.Rule("middle.*", dkm.PaletteSpec(bits=2, group_size=4)),
        dkm.Rule("head.*", skip=True),
    ],
)

Edit = Callable[[bytes, int], bytes]
Act = Callable[[Path], object]


def message(kind: Callable[[], Any]) -> Edit:
    """Damage to the fields of a protobuf message."""
    return lambda data, seed: damaged_message(kind().FromString(data), seed).SerializeToString()


def as_json(data: bytes, seed: int) -> bytes:
    return json.dumps(damaged_json(json.loads(data), seed)).encode()


def as_toml(data: bytes, seed: int) -> bytes:
    try:
        return tomli_w.dumps(damaged_json(tomllib.loads(data.decode()), seed)).encode()
    except (AttributeError, TypeError):  # no table, or null, which TOML does not have
        return damaged(data, seed)


def header(data: bytes, seed: int) -> bytes:
    """Damage to the header of a safetensors file."""
    (size,) = struct.unpack("<Q", data[:8])
    forged = as_json(data[8 : 8 + size], seed)
    return struct.pack("<Q", len(forged)) + forged + data[8 + size :]


def layout(data: bytes, seed: int) -> bytes:
    """Damage to what a checkpoint says of its palettes."""
    return with_layout(data, lambda told: damaged_json(told, seed))


def with_layout(data: bytes, change: Callable[[Any], Any]) -> bytes:
    (size,) = struct.unpack("<Q", data[:8])
    table = json.loads(data[8 : 8 + size])
    (key,) = table["__metadata__"]
    table["__metadata__"][key] = json.dumps(change(json.loads(table["__metadata__"][key])))
    forged = json.dumps(table).encode()
    return struct.pack("<Q", len(forged)) + forged + data[8 + size :]


def words(data: bytes, seed: int) -> bytes:
    """Offsets, lengths and layouts of a .ort file in place of each other."""
    places = _places(data)
    random, changed = np.random.default_rng(seed), bytearray(data)
    for _ in range(random.integers(1, 4)):
        into, source = random.integers(len(places), size=2)
        changed[places[into] : places[into] + 4] = data[places[source] : places[source] + 4]
    return bytes(changed)


@cache
def _places(data: bytes) -> list[int]:
    spans = [span for span in read(memoryview(data)).spans if span.part != "raw_data"]
    return [at for span in spans for at in range(span.start, span.end - 3, 4)]


def rehash(asset: Path) -> None:
    """Bring the digest of an asset in line with its program, likewise."""
    program = (asset / PROGRAM).read_bytes()
    (asset / DIGEST).write_bytes(hashlib.sha256(program).digest())


def sign(folder: Path) -> None:
    """Bring the sums of a bundle in line with its files, as one who means harm would."""
    parts = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "SHA256SUMS")
    lines = [
        f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}\n"
        for p in parts
    ]
    (folder / "SHA256SUMS").write_text("".join(lines))


EDITS: dict[str, list[tuple[str, Edit]]] = {
    "m.onnx": [("", damaged), ("", message(onnx.ModelProto))],
    "apart.onnx": [("", damaged), ("", message(onnx.ModelProto))],
    "dense.onnx": [("", damaged), ("", message(onnx.ModelProto))],
    "m.ort": [("", damaged), ("", words)],
    "m.mlpackage": [
        (MODEL, damaged),
        (MODEL, message(lambda: model_class()())),
        (WEIGHTS, damaged),
        (MANIFEST, damaged),
        (MANIFEST, as_json),
    ],
    "m.aimodel": [
        (PROGRAM, damaged),
        (PROGRAM, damaged),
        (DIGEST, damaged),
        (METADATA, damaged),
        (METADATA, as_json),
    ],
    "m.safetensors": [("", damaged), ("", header), ("", layout)],
    "golden": [
        ("bundle.json", as_json),
        ("bundle.json", damaged),
        ("tensors.safetensors", header),
        ("palettes.safetensors", layout),
        ("SHA256SUMS", damaged),
    ],
    "device": [("outputs.json", as_json), ("outputs.json", damaged), ("raw/0.bin", damaged)],
    "recipe.toml": [("", damaged), ("", as_toml)],
    "budget.toml": [("", damaged), ("", as_toml)],
    "report.json": [("", damaged), ("", as_json)],
}


def palettized(path: Path) -> object:
    with tempfile.TemporaryDirectory() as folder:
        return dkm.palettize_file(path, Path(folder) / "small.onnx", dkm.Recipe.uniform(2))


READ: list[Act] = [dkm.read_palettes, dkm.size_breakdown]
ACTS: dict[str, list[Act]] = {
    "m.onnx": READ,
    "apart.onnx": READ,
    "dense.onnx": [palettized],
    "m.ort": READ,
    "m.mlpackage": [
        *READ,
        lambda path: dkm.MLProgramEvaluator(path).run({"ids": IDS.int().numpy()}),
    ],
    "m.aimodel": READ,
    "m.safetensors": [*READ, lambda path: dkm.load(path, Net())],
    "golden": [lambda path: dkm.validate_golden([], path)],
    "device": [lambda path: dkm.validate_device_outputs([path], path.with_name("device.golden"))],
    "recipe.toml": [lambda path: dkm.Recipe.load(path).assign(Net())],
    "budget.toml": [lambda path: budget_checks(Path("out/m.onnx"), 1000, Budget.load(path))],
    "report.json": [lambda path: comparison_page(compare_runs([path]))],
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """One file of each kind, with palettes of every layout."""
    folder = tmp_path_factory.mktemp("sound")
    torch.manual_seed(0)
    model = Net().eval()
    frozen = dkm.palettize(model, RECIPE)
    for name in ("m.onnx", "m.ort", "m.mlpackage"):
        dkm.convert(frozen, IDS, folder / name)
    dkm.convert(frozen, IDS, folder / "apart.onnx", external_data=True)
    dkm.convert(model, IDS, folder / "dense.onnx")
    dkm.save(frozen, folder / "m.safetensors")
    labels = torch.zeros(2, dtype=torch.int64)
    dkm.write_golden(folder / "golden", reference=frozen, original=model, inputs=IDS, labels=labels)
    schedule = dkm.Schedule(steps=5, end=0.1)
    dkm.Recipe(RECIPE.default, RECIPE.rules, schedule).save(folder / "recipe.toml")
    (folder / "budget.toml").write_text(BUDGET)
    report = dkm.validate(
        [folder / "m.onnx"], reference=frozen, original=model, inputs=IDS, labels=labels
    )
    report.to_json(folder / "report.json")
    shutil.copytree(folder / "golden", folder / "device.golden")
    returned(folder / "device", folder / "golden", frozen(IDS))
    return folder


def returned(folder: Path, golden: Path, scores: Tensor) -> None:
    """What a device would give for a bundle."""
    (folder / "raw").mkdir(parents=True)
    (folder / "raw" / "0.bin").write_bytes(scores.detach().numpy().tobytes())
    shape = list(scores.shape)
    output = {"name": "output", "dtype": "float32", "shape": shape, "raw": "raw/0.bin"}
    told = {"format": "dkm-deploy device outputs", "version": 1, "runtime": "a phone"}
    told |= {"golden": hashlib.sha256((golden / "SHA256SUMS").read_bytes()).hexdigest()}
    (folder / "outputs.json").write_text(json.dumps(told | {"outputs": [output]}))


@pytest.fixture(scope="module")
def asset(sound):
    """An asset beside them, where the extra is installed."""
    extra()
    dkm.convert(dkm.load(sound / "m.safetensors", Net()), IDS, sound / "m.aimodel")


@pytest.fixture
def copied(sound, request, tmp_path):
    """A copy, alone in a folder that has others beside it."""

    def of(name):
        if name == "m.aimodel":
            request.getfixturevalue("asset")
        (tmp_path / "in").mkdir()
        shutil.copytree(sound, tmp_path / "beside")
        for source in sound.glob(f"{name}*"):
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, tmp_path / "in" / source.name)
        return tmp_path / "in" / name

    return of


def survives(path: Path, seeds: range, acts: list[Act]) -> int:
    """Damage the file at ``path`` again and again; how many times an act refused it."""
    refused, edits = 0, EDITS[path.name]
    for act in acts:
        assert refusal(lambda act=act: act(path)) is None
    for seed in seeds:
        part, edit = edits[seed % len(edits)]
        file = path / part if part else path
        held = {file, path / "SHA256SUMS", path / DIGEST}
        whole = {f: f.read_bytes() for f in held if f.is_file()}
        file.write_bytes(edit(whole[file], seed))
        if part not in SUMS and path.suffix == ".aimodel":
            rehash(path)
        elif part not in SUMS and (path / "SHA256SUMS").exists():
            sign(path)
        for act in acts:
            try:
                with harmless(path.parent):
                    refused += refusal(lambda act=act: act(path)) is not None
            except BaseException as error:
                error.add_note(f"{path.name}: seed {seed}")
                raise
        for original, data in whole.items():
            original.write_bytes(data)
    return refused


# Of assets test_coreai_read.py has a few; to write one here takes longer than to damage it.
@pytest.mark.parametrize("name", [name for name in EDITS if name != "m.aimodel"])
def test_damaged(copied, name):
    assert survives(copied(name), range(QUICK), ACTS[name]) > QUICK // 4


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITS)
def test_thousands_damaged(copied, name):
    assert survives(copied(name), range(QUICK, QUICK + SLOW), ACTS[name]) > SLOW // 4


VALIDATED = ("m.onnx", "m.ort", "m.mlpackage")


def _dkm_error_alone(error: Exception) -> str:
    """A crash of a reader or runtime is told as the reason of its file; here it may not be one."""
    if not isinstance(error, dkm.DkmError):
        raise error
    return str(error)


@pytest.fixture
def validate(sound, monkeypatch):
    frozen = dkm.load(sound / "m.safetensors", Net())
    for module in (row_errors, report_rows):
        monkeypatch.setattr(module, "error_line", _dkm_error_alone)
    return lambda path: dkm.validate([path], reference=frozen, inputs=IDS)


@pytest.mark.parametrize("name", VALIDATED)
def test_damaged_and_validated(copied, validate, name):
    assert survives(copied(name), range(QUICK // 2), [validate])


@pytest.mark.slow
@pytest.mark.parametrize("name", VALIDATED)
def test_thousands_damaged_and_validated(copied, validate, name):
    assert survives(copied(name), range(QUICK, QUICK + SLOW), [validate])


ANY = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)
ENTRIES = st.fixed_dictionaries({"shape": VALUES, "bits": VALUES, "axis": VALUES})


@ANY
@given(text=st.text(max_size=200))
def test_any_text_is_a_recipe_or_none(tmp_path, text):
    path = tmp_path / "recipe.toml"
    path.write_text(text, "utf-8")
    refusal(lambda: dkm.Recipe.load(path))


@ANY
@given(value=VALUES | st.fixed_dictionaries({"conv.weight": ENTRIES | VALUES}))
def test_any_value_is_a_layout_or_none(sound, tmp_path, value):
    path, whole = tmp_path / "m.safetensors", (sound / "m.safetensors").read_bytes()
    path.write_bytes(with_layout(whole, lambda _: value))
    for act in ACTS["m.safetensors"]:
        refusal(lambda act=act: act(path))


@ANY
@given(key=st.sampled_from(["inputs", "labels", "limits", "metric", "provenance"]), value=VALUES)
def test_any_value_is_part_of_a_manifest_or_none(sound, tmp_path, key, value):
    path = tmp_path / "golden"
    if not path.exists():
        shutil.copytree(sound / "golden", path)
    manifest = json.loads((sound / "golden" / "bundle.json").read_text())
    (path / "bundle.json").write_text(json.dumps(manifest | {key: value}))
    sign(path)
    refusal(lambda: dkm.validate_golden([], path))


@pytest.mark.parametrize("name", ["m.mlpackage", "golden"])
def test_no_link_leads_out_of_a_folder(copied, tmp_path, name):
    """Each part in turn is a link to the same part elsewhere, which would read as well."""
    path, elsewhere = copied(name), tmp_path / "beside" / name
    parts = sorted(path.rglob("*"))
    assert len(parts) > 5
    for part in parts:
        hidden = part.rename(path.parent / "hidden")
        part.symlink_to(elsewhere / part.relative_to(path))
        for act in ACTS[name]:
            with harmless(path.parent):
                assert refusal(lambda act=act: act(path)), part
        part.unlink()
        hidden.rename(part)
    assert refusal(lambda: ACTS[name][0](path)) is None
