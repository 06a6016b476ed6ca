"""Docstrings of public names: plain sections, and an example that runs as it is printed."""

from __future__ import annotations

import doctest
import hashlib
import inspect
import json
import re
import shutil
from types import FunctionType

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy import errors
from tests.converters.onnx import models as onnx_models

# The library calls the methods of these; users only make them.
RECORDS_OF_METHODS = {"DKM", "EWGS", "GWK", "HardSTE", "KMeans", "SensitiveKMeans", "BinQuant"}
NO_OPENING = (
    "What|How|Whether|Which|Why|This|It|See|Calls|Checks|Computes|Converts|Copies|Counts|Decodes|"
    "Finds|Gets|Gives|Makes|Prepares|Reads|Reports|Returns|Runs|Takes|Writes"
)
SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Example):$")
ENTRY = re.compile(r"^    (\*{0,2}\w+):")


def _public():
    """Public classes and functions, and the methods of the classes, by name."""
    found = {}
    for name in dkm.__all__:
        found[name] = value = getattr(dkm, name)
        for key, member in vars(value).items() if inspect.isclass(value) else ():
            function = member.__func__ if isinstance(member, classmethod) else member
            if isinstance(function, FunctionType) and key[0] != "_":
                found[f"{name}.{key}"] = function
    return {n: v for n, v in found.items() if n.partition(".")[0] not in RECORDS_OF_METHODS - {n}}


PUBLIC = _public()


def _sections(text):
    """Lines of each section by its title; those before the first under ""."""
    found, title = {"": []}, ""
    for line in text.splitlines():
        if SECTION.match(line):
            title = line.rstrip(":")
            found[title] = []
        else:
            found[title].append(line)
    return found


def _entries(lines):
    return [match[1].lstrip("*") for match in map(ENTRY.match, lines) if match]


def _parameters(thing):
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return []
    return [n for n in inspect.signature(thing).parameters if n not in ("self", "cls")]


def _faults(thing):
    """What is wrong with the form of a docstring, one sentence each."""
    sections = _sections(inspect.getdoc(thing) or "")
    first, *_ = [*sections[""], ""]
    if not re.fullmatch(r"[A-Z].{,98}\.", first) or re.match(rf"({NO_OPENING})\b", first):
        yield f"{first!r} is no noun phrase or imperative of 100 characters with a full stop"
    told = _entries(sections.get("Args", sections.get("Attributes", [])))
    if told != _parameters(thing):
        yield f"arguments are {_parameters(thing)}, the docstring has {told}"
    raised = _entries(sections.get("Raises", []))
    if not all(issubclass(getattr(errors, name, object), dkm.DkmError) for name in raised):
        yield f"not all of {raised} are errors of this package"
    if inspect.isfunction(thing):
        if ("Returns" in sections) != (inspect.signature(thing).return_annotation != "None"):
            yield "Returns is there for what returns nothing, or is not there"
        if "." not in thing.__qualname__ and not raised:
            yield "a function of the package does not say what it raises"
    if not any(">>> " in line for line in sections.get("Example", [])):
        yield "it has no example"


@pytest.mark.parametrize("name", PUBLIC)
def test_a_docstring_has_all_its_parts(name):
    assert list(_faults(PUBLIC[name])) == []


def _wrong(path: str, force: bool = False) -> int:
    """Makes a file

    Args:
        path: of the file.

    Raises:
        KeyError: it is not there.
    """


def test_a_docstring_without_its_parts_is_noticed():
    assert [fault.split()[0] for fault in _faults(_wrong)] == [
        "'Makes",
        "arguments",
        "not",
        "Returns",
        "it",
    ]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files that the docstring of the package names."""
    folder = tmp_path_factory.mktemp("files")
    inputs, frozen = torch.ones(1, 8), dkm.palettize(nn.Linear(8, 4), 2)
    dkm.save(frozen, folder / "model.safetensors")
    dkm.convert(frozen, inputs, folder / "model.onnx")
    dkm.convert(frozen, inputs, folder / "model.mlpackage")
    dkm.write_golden(folder / "golden", reference=frozen, inputs=inputs)
    _write_device_outputs(folder / "device", folder / "golden", frozen(inputs).detach().numpy())
    product = onnx_models.helper.make_node("MatMul", ["x", "weight"], ["y"])
    dense = onnx_models.model(
        [product],
        [onnx_models.tensor("weight", onnx_models.values(64, 32))],
        inputs=[onnx_models.value("x", ["batch", 64])],
        outputs=[onnx_models.value("y", ["batch", 32])],
    )
    (folder / "dense.onnx").write_bytes(dense.SerializeToString())
    return folder


def _write_device_outputs(folder, golden, outputs):
    (folder / "raw").mkdir(parents=True)
    (folder / "raw/outputs.0.bin").write_bytes(outputs.tobytes())
    tensor = {"name": "output", "dtype": "float32", "shape": list(outputs.shape)}
    manifest = {
        "format": "dkm-deploy device outputs",
        "version": 1,
        "golden": hashlib.sha256((golden / "SHA256SUMS").read_bytes()).hexdigest(),
        "runtime": "a device",
        "outputs": [tensor | {"raw": "raw/outputs.0.bin"}],
    }
    (folder / "outputs.json").write_text(json.dumps(manifest))


def _failures(text):
    """What doctest prints about the examples in a text; empty if they give what is printed."""
    names = {"dkm": dkm, "nn": nn, "np": np, "torch": torch}
    test = doctest.DocTestParser().get_doctest(text, names, "example", None, 0)
    printed = []
    doctest.DocTestRunner(verbose=False).run(test, out=printed.append)
    return "".join(printed)


@pytest.mark.parametrize("name", PUBLIC)
def test_an_example_gives_what_is_printed(name, files, tmp_path, monkeypatch):
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    assert _failures(inspect.getdoc(PUBLIC[name])) == ""


@pytest.mark.parametrize("wrong", [">>> 1 + 1\n3", ">>> missing"])
def test_an_example_that_gives_something_else_fails(wrong):
    assert "Failed example" in _failures(wrong)
