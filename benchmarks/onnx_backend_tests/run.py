"""One backend test: palettized with 8 bits, run, and compared bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

import dkm_deploy as dkm
from benchmarks.onnx_backend_tests.cases import Case
from converters.onnx.graph.tensors import array_of
from converters.onnx.reading.find_decodes import FLOATS
from converters.onnx.reading.read_palettes import palettes_of
from converters.onnx.rewriting.checker import check_rewritten
from converters.onnx.rewriting.dense_reference import write_twin
from converters.onnx.rewriting.palettize import check_model, write_with
from converters.onnx.rewriting.source import load_source
from converters.onnx.rewriting.tensor_palettes import cluster_tensor
from converters.onnx.rewriting.weights import find_weights
from dkm_deploy.runtimes.onnx_runtime.runtime import open_session

Status = Literal["same bits", "within tolerance", "dense", "not run before", "failed"]
STATUSES: tuple[Status, ...] = (
    "same bits", "within tolerance", "dense", "not run before", "failed",
)  # fmt: skip
_SPEC = dkm.PaletteSpec(bits=8)


@dataclass(frozen=True)
class Result:
    """What came of a test.

    Attributes:
        status: "same bits" and "within tolerance" are of the outputs; "dense" has no weight.
        reason: why it is not "same bits".
        lossless: whether palettes decode to the values that the test has.
    """

    status: Status
    reason: str = ""
    lossless: bool = True


def run_case(case: Case, folder: Path, *, every: bool = False) -> Result:
    """Palettize every weight, or else every tensor, smaller or not, and compare outputs.

    Where 256 values do not hold a weight, the outputs are those of the weights as decoded.
    """
    source, small, twin = (folder / f"{name}.onnx" for name in ("source", "small", "twin"))
    onnx.save(case.model, source)
    try:
        before = _outputs(source, case.feeds)
    except Exception as error:
        return Result("not run before", _line(error))
    if not _close(before, case.outputs, case):
        return Result("not run before", "ONNX Runtime gives other outputs than the test expects")
    try:
        _the_public_way(source, folder / "public.onnx")
        model = load_source(source).model
        found = find_weights(model)
        tensors = _every_tensor(model) if every else found.tensors
        if not tensors:
            return Result("dense", next(iter(found.dense.values()), "no tensor of rank 2"))
        check_model(model)
        palettes = {name: cluster_tensor(name, each, _SPEC) for name, each in tensors.items()}
        write_with(model, palettes, small)
        if palettes_of(onnx.load(small), small) != palettes:
            return Result("failed", "other palettes are read than were written")
        list(check_rewritten(model, source, small))
        write_twin(source, palettes, twin)
        wanted, got = (_outputs(path, case.feeds) for path in (twin, small))
    except Exception as error:
        return Result("failed", _line(error))
    lossless = all(map(_same, wanted, before))
    if all(map(_same, got, wanted)):
        return Result("same bits", lossless=lossless)
    if _close(got, wanted, case):
        return Result("within tolerance", "another order of sums", lossless)
    return Result("failed", "other outputs", lossless)


def _every_tensor(model: ModelProto) -> dict[str, TensorProto]:
    """Those that could be decoded, whatever uses them: finite, and no outputs of the model."""
    outputs = {value.name for value in model.graph.output}
    return {
        tensor.name: tensor
        for tensor in model.graph.initializer
        if len(tensor.dims) > 1 and tensor.data_type in FLOATS and tensor.name not in outputs
        if array_of(tensor.name, tensor).size and np.isfinite(array_of(tensor.name, tensor)).all()
    }


def _the_public_way(source: Path, out: Path) -> None:
    """It writes a file or refuses, as it does where palettes are no smaller."""
    try:
        dkm.palettize_file(source, out, _SPEC, force=True)
    except dkm.DkmError:
        out.unlink(missing_ok=True)


def _outputs(path: Path, feeds: Mapping[str, Any]) -> list[Any]:
    results: list[Any] = open_session(str(path)).run(None, dict(feeds))
    return results


def _close(got: Sequence[Any], wanted: Sequence[Any], case: Case) -> bool:
    """Whether outputs are within the tolerance of the test."""
    try:
        for one, other in zip(got, wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=case.rtol, atol=case.atol)
    except (AssertionError, TypeError, ValueError):
        return False
    return True


def _same(got: Any, wanted: Any) -> bool:
    """Whether outputs have the same bits; lists, part by part."""
    if isinstance(got, list):
        return len(got) == len(wanted) and all(map(_same, got, wanted))
    if not isinstance(got, np.ndarray) or got.dtype == object:
        return bool(np.all(got == wanted))
    return bool(got.shape == wanted.shape and got.tobytes() == wanted.tobytes())


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def operator(model: ModelProto) -> str:
    """The operators of a model, in short."""
    return ", ".join(dict.fromkeys(node.op_type for node in model.graph.node))
