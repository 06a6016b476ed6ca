"""Core AI assets as bytes: the ledger adds up, and damage is one line, without Apple's packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import OrderedDict
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from converters.coreai.read_palettes import contents
from dkm_deploy.formats.ledger import size_on_disk
from dkm_deploy.runtimes.core_ai.packages import quiet_imports
from tests.converters.coreai.assets import extra, rehashed
from tests.models import MIXED, images, small_net

extra()

UNSIGNED = (1, 2, 3, 4, 6, 8, 16, 32, 64)  # bits


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    frozen = dkm.palettize(small_net(), MIXED)
    return dkm.convert(frozen, images(1), tmp_path_factory.mktemp("coreai") / "m.aimodel")


@pytest.fixture
def copy(artifact, tmp_path):
    return shutil.copytree(artifact.path, tmp_path / "m.aimodel")


def test_every_byte_is_accounted_for(artifact):
    ledger = dkm.size_breakdown(artifact)
    assert ledger.total_bytes == size_on_disk(artifact.path)
    kinds = ledger.by_kind()
    assert kinds["indices"] == (8 * 27 * 4) // 8 + 40  # stem: 3 bits as 4; head: 8
    assert kinds["lut"] == 4 * (16 + 256)
    dense = 8 * 9 + 8 + 5 + 4 * 8  # depthwise with its bias, bias of the head, BatchNorm
    assert kinds["dense"] <= 4 * dense
    assert kinds["dense"] >= 4 * 8 * 9
    names = {entry.name for entry in ledger.entries if entry.kind in ("indices", "lut")}
    assert names == {"stem.weight", "head.weight"}


def test_a_file_that_core_ai_adds_is_counted(copy):
    (copy / "main-h17.odix").write_bytes(b"12345")
    before = size_on_disk(copy)
    assert dkm.size_breakdown(copy).total_bytes == before


def test_reading_needs_none_of_apples_packages(artifact):
    code = (
        "import sys, dkm_deploy as dkm\n"
        "for name in ('coreai', 'coreai_torch'): sys.modules[name] = None\n"
        f"print(sorted(dkm.read_palettes({str(artifact.path)!r})), "
        f"dkm.size_breakdown({str(artifact.path)!r}).total_bytes)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split("]")[0] == "['head.weight', 'stem.weight'"


@pytest.mark.parametrize("name", ["main.mlirb", "main.hash", "metadata.json"])
def test_a_missing_file(copy, name):
    (copy / name).unlink()
    with pytest.raises(dkm.DkmError, match=f"{name}: missing, so this is not a whole Core AI"):
        dkm.read_palettes(copy)


def test_a_file_in_place_of_a_folder(tmp_path):
    (tmp_path / "m.aimodel").write_bytes(b"")
    with pytest.raises(dkm.DkmError, match="not a folder; a Core AI asset is a folder"):
        dkm.size_breakdown(tmp_path / "m.aimodel")


def test_a_changed_program_is_seen_by_its_digest(copy):
    program = bytearray((copy / "main.mlirb").read_bytes())
    program[len(program) // 2] ^= 1
    (copy / "main.mlirb").write_bytes(program)
    with pytest.raises(dkm.DkmError, match=r"main\.mlirb is not the program whose SHA-256"):
        dkm.read_palettes(copy)


@pytest.mark.parametrize("metadata", [b"{", b"[]", b"\xff"])
def test_metadata_that_is_no_object(copy, metadata):
    (copy / "metadata.json").write_bytes(metadata)
    with pytest.raises(
        dkm.DkmError, match=r"metadata\.json: (not JSON|it is \[\]; it must be a mapping)"
    ):
        dkm.read_palettes(copy)


def test_a_program_cut_anywhere_is_one_line(artifact, copy):
    program = (artifact.path / "main.mlirb").read_bytes()
    for length in [*range(0, 200, 7), *range(200, len(program), 211)]:
        rehashed(copy, program[:length])
        with pytest.raises(dkm.DkmError, match=r"^[^\n]*m\.aimodel: [^\n]+$"):
            dkm.read_palettes(copy)


def test_a_forged_program_is_read_or_refused_in_one_line(artifact, copy):
    program = (artifact.path / "main.mlirb").read_bytes()
    chance, refused = np.random.default_rng(0), []
    for _ in range(150):
        forged = bytearray(program)
        for _ in range(chance.integers(1, 5)):
            forged[chance.integers(len(forged))] = chance.integers(256)
        rehashed(copy, bytes(forged))
        for read in (dkm.read_palettes, dkm.size_breakdown):
            try:
                read(copy)
            except dkm.DkmError as error:
                refused.append(str(error))
    assert len(refused) > 20
    assert not any("\n" in message for message in refused)


def test_two_resources_of_one_name(tmp_path):
    torch.manual_seed(0)
    frozen = dkm.palettize(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), dkm.Recipe.uniform(2))
    path = dkm.convert(frozen, torch.randn(1, 8), tmp_path / "m.aimodel").path
    program = (path / "main.mlirb").read_bytes()
    rehashed(path, program.replace(b"1.weight.", b"0.weight."))
    with pytest.raises(dkm.DkmError, match=r"2 resources are called '0\.weight\."):
        dkm.read_palettes(path)


def test_the_codes_of_all_types_are_those_that_core_ai_writes(tmp_path):
    with quiet_imports():
        import coreai.authoring as authoring
        from coreai._compiler import ir
        from coreai._compiler.dialects import coreai
    types = {("unsigned", n): partial(ir.IntegerType.get_unsigned, n) for n in UNSIGNED}
    types |= {("signed", n): partial(ir.IntegerType.get_signed, n) for n in (8, 16, 32, 64)}
    types |= {("float", 16): ir.F16Type.get, ("float", 32): ir.F32Type.get}
    types |= {("float", 64): ir.F64Type.get}
    path = tmp_path / "types.aimodel"
    with authoring.Context(), ir.Location.unknown():
        module = authoring.Module.create()
        with module:
            graph = coreai.GraphOp(name="main", input_types=[], result_types=[], input_names=[])
            with graph.block:
                held = {}
                for kind, bits in types:
                    key = f"{kind}{bits}"
                    tensor = ir.RankedTensorType.get([8], types[kind, bits]())
                    data = np.frombuffer(key.encode().ljust(bits), np.uint8).copy()[:bits]
                    value = ir.DenseResourceElementsAttr.get_from_buffer(data, key, tensor)
                    held[key] = coreai.ConstantOp(value=value).result
                graph.set_outputs_spec_from_dict(OrderedDict(held))
        authoring.AIProgram(module).save_asset(path)
    found = {(t.element.kind, t.element.bits): t.blob.key for t in contents(path).constants}
    assert found == {(kind, bits): f"{kind}{bits}" for kind, bits in types}
