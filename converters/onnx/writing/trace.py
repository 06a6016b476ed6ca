"""An exported program as an ONNX graph, with one ``LutToDense`` node a palettized weight."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

import torch
from onnx.defs import OpSchema
from onnxscript import opset18
from onnxscript.values import Op, Opset

from converters.onnx.writing.decompose import decompose
from converters.onnx.writing.dropped_arguments import refuse_left_out
from converters.onnx.writing.interface_names import name_interface
from converters.onnx.writing.simplify import simplify
from dkm_deploy.conversion.failed_operation import failure_place
from dkm_deploy.errors import DkmError, reason_of
from dkm_deploy.model.palettized import weight_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx_ir as ir

    from dkm_deploy.conversion.exported import ExportedModel

DOMAIN = "dkm"
_LOGGERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


def trace(exported: ExportedModel, opset: int) -> ir.Model:
    """Translate and simplify all but the palettes.

    What simplifies can neither fold nor fuse an operator that it does not know, so the
    ``LutToDense`` nodes come out as they went in. Each carries the name of its weight, for weights
    with the same values become one initializer.

    Raises:
        DkmError: the exporter has no translation for an operation of the program, or would leave
            out one of its arguments.
    """
    refuse_left_out(exported.program)
    table: dict[Callable[..., Any], Any] = {
        torch.ops.dkm.lut_to_dense.default: _translation(exported),
        torch.ops.aten.log_sigmoid.default: _log_sigmoid,
    }
    try:
        with _silence():
            program = torch.onnx.export(
                decompose(exported.program),
                dynamo=True,
                custom_translation_table=table,
                opset_version=opset,
                optimize=False,
                verbose=False,
            )
    # The exporter's errors have no public base class.
    except Exception as error:
        reason = _reason(error) + failure_place(error, exported.program)
        raise DkmError(f"the model has no ONNX form at opset {opset}: {reason}") from error
    if program is None:
        raise DkmError(f"the model has no ONNX form at opset {opset}")
    simplify(program.model)
    name_interface(program.model.graph, exported.input_names, exported.output_names)
    return program.model


def _translation(exported: ExportedModel) -> Callable[..., Any]:
    buffers = exported.program.graph_signature.inputs_to_buffers
    op = Op(Opset(DOMAIN, 1), "LutToDense", _schema())

    def translate(indices: Any, lut: Any, axis: int) -> Any:
        return op(indices, lut, axis=axis, weight=weight_name(buffers[indices.name]))

    return translate


def _log_sigmoid(x: Any) -> Any:
    """The exporter's ``log(sigmoid(x))`` is -inf below -103."""
    return opset18.Neg(opset18.Softplus(opset18.Neg(x)))


def _schema() -> OpSchema:
    """What the exporter must know to build the node; it is not registered with onnx."""
    return OpSchema(
        "LutToDense",
        DOMAIN,
        1,
        inputs=[
            OpSchema.FormalParameter("indices", "tensor(uint8)"),
            OpSchema.FormalParameter("lut", "T"),
        ],
        outputs=[OpSchema.FormalParameter("dense", "T")],
        type_constraints=[("T", ["tensor(float16)", "tensor(float)", "tensor(double)"], "")],
        attributes=[
            OpSchema.Attribute("axis", OpSchema.AttrType.INT, ""),
            OpSchema.Attribute("weight", OpSchema.AttrType.STRING, ""),
        ],
    )


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's prints, warnings and log lines from the user; errors still come out."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """One line from the innermost error: the outer ones tell how to report bugs to PyTorch."""
    while error.__cause__ is not None:
        error = error.__cause__
    return reason_of(error)
