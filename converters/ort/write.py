"""Write an exported program as a ``.ort`` file whose weights stay packed."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from flatbuffers.builder import BuilderSizeError

from converters.onnx.options import Options
from converters.onnx.writing.write import write as write_onnx
from converters.ort.flatbuffer_reader import Table, read
from converters.ort.flatbuffer_writer import build_file
from converters.ort.load import load
from converters.ort.required_operators import required_operators
from dkm_deploy.errors import DkmError
from dkm_deploy.runtimes.onnx_runtime.runtime import quiet_options, runtime

if TYPE_CHECKING:
    from dkm_deploy.conversion.exported import ExportedModel

OPERATORS = ".required_operators.config"
# ONNX Runtime keeps these in hash maps, whose order changes from process to process.
_SORTED_BY = {
    "opset_import": "domain",
    "metadata_props": "key",
    "initializers": "name",
    "node_args": "name",
    "op_kernel_type_str_args": "op_id",
    "kernel_type_str_args": "kernel_type_str",
}


def write(exported: ExportedModel, path: Path, *, opset: int | None = None) -> None:
    """Write ``exported`` to ``path``; the same program gives the same bytes.

    ONNX Runtime makes the file from the ONNX form of the program, with no optimisation: constant
    folding would put the dense weights into it, and most others need constant weights to work on.
    Its tables are then put in a fixed order and written anew, equal parts once, and ONNX Runtime
    has to open the result.

    The operators that a reduced build of ONNX Runtime needs for it are written beside it, always:
    to ``model.required_operators.config``, the name that ONNX Runtime's own script gives it. So
    the two appear together or not at all, and no option can separate them.

    Args:
        exported: the program and its palettes.
        path: the file to write.
        opset: version of the ONNX operators; the oldest that will do if None.

    Raises:
        DkmError: the model has no ONNX form at this opset, ONNX Runtime cannot run it, or the file
            would be larger than 2 GiB.
    """
    with TemporaryDirectory() as folder:
        source, made = Path(folder) / "model.onnx", Path(folder) / "model.ort"
        options = Options(opset, decode="packed", folds=False, external_data=False)
        try:
            write_onnx(exported, source, options)
            _convert(source, made)
        except DkmError as error:  # which may tell of a file that nobody asked for
            raise DkmError(str(error).replace(str(source), str(path))) from error
        session = read(memoryview(made.read_bytes())).root
    try:
        path.write_bytes(build_file(_sort_table(session)))
    except BuilderSizeError as error:
        raise DkmError(f"{path}: larger than 2 GiB, the most a .ort file can hold") from error
    runtime.load(path)
    document, _ = load(path)
    operators = required_operators(document.root)
    path.with_suffix(OPERATORS).write_text(operators, encoding="utf-8", newline="\n")


def _convert(source: Path, path: Path) -> None:
    """Let ONNX Runtime write what it has read from ``source``, as it is."""
    import onnxruntime

    options = quiet_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.save_model_format", "ORT")
    try:
        onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    # ONNX Runtime's errors have no common base class.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DkmError(f"ONNX Runtime cannot make a .ort file of the model: {reason}") from error


def _sort_table(table: Table) -> Table:
    """The table and all in it, with what has no order of its own sorted by name."""
    return Table(table.kind, {name: _sort_value(name, v) for name, v in table.values.items()})


def _sort_value(field: str, value: object) -> object:
    if isinstance(value, Table):
        return _sort_table(value)
    if not isinstance(value, tuple) or not value or not isinstance(value[0], Table):
        return value
    tables = [_sort_table(table) for table in value]
    if field in _SORTED_BY:
        tables.sort(key=lambda table: table[_SORTED_BY[field]])
    return tuple(tables)
