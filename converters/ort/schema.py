"""The tables of ONNX Runtime's format, file identifier ``ORTM``, as data.

They are those of onnxruntime/core/flatbuffers/schema/ort.fbs (MIT licence), in its order, for a
field's place in its table is its slot. ``-`` is a slot that is no longer used; a name before ``|``
is the tag that says which table a union holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

IDENTIFIER = b"ORTM"
ROOT = "InferenceSession"

_TABLES = """
InferenceSession: ort_version string, model Model, -, kernel_type_str_resolver KernelTypeStrResolver
Model: ir_version q, opset_import [OperatorSetId], producer_name string, producer_version string,
    domain string, model_version q, doc_string string, graph Graph, graph_doc_string string,
    metadata_props [StringStringEntry]
OperatorSetId: domain string, version q
StringStringEntry: key string, value string
Graph: initializers [Tensor], node_args [ValueInfo], nodes [Node], max_node_index I,
    node_edges [NodeEdge], inputs [string], outputs [string], sparse_initializers [SparseTensor],
    runtime_optimizations RuntimeOptimizations
Node: name string, doc_string string, domain string, since_version i, index I, op_type string,
    type i, execution_provider_type string, inputs [string], outputs [string],
    attributes [Attribute], input_arg_counts [i], implicit_inputs [string]
NodeEdge: node_index I, input_edges [Iii], output_edges [Iii]
Attribute: name string, doc_string string, type i, f f, i q, s string, t Tensor, g Graph,
    floats [f], ints [q], strings [string], tensors [Tensor], graphs [Graph]
Tensor: name string, doc_string string, dims [q], data_type i, raw_data [B], string_data [string],
    external_data_offset q=-1
SparseTensor: values Tensor, indices Tensor, dims [q]
ValueInfo: name string, doc_string string, type TypeInfo
TypeInfo: denotation string, value_type|value TensorTypeAndShape/SequenceType/MapType
TensorTypeAndShape: elem_type i, shape Shape
SequenceType: elem_type TypeInfo
MapType: key_type i, value_type TypeInfo
Shape: dim [Dimension]
Dimension: value DimensionValue, denotation string
DimensionValue: dim_type b, dim_value q, dim_param string
KernelTypeStrResolver: op_kernel_type_str_args [OpIdKernelTypeStrArgsEntry]
OpIdKernelTypeStrArgsEntry: op_id string, kernel_type_str_args [KernelTypeStrArgsEntry]
KernelTypeStrArgsEntry: kernel_type_str string, args [ArgTypeAndIndex]
ArgTypeAndIndex: arg_type b, index I
RuntimeOptimizations: records [RuntimeOptimizationRecordContainerEntry]
RuntimeOptimizationRecordContainerEntry: optimizer_name string,
    runtime_optimization_records [RuntimeOptimizationRecord]
RuntimeOptimizationRecord: action_id string, nodes_to_optimize_indices NodesToOptimizeIndices, -,
    produced_op_ids [string]
NodesToOptimizeIndices: node_indices [I], num_inputs I, num_outputs I, has_variadic_input B,
    has_variadic_output B, num_variadic_inputs I, num_variadic_outputs I
"""

Kind = Literal["unused", "number", "string", "table", "union"]


@dataclass(frozen=True)
class Field:
    """One field of a table; all but numbers are stored as an offset of 4 bytes.

    Attributes:
        name: as in the schema.
        kind: what it holds, or what its elements are.
        many: whether it is a vector.
        format: of a number, as ``struct`` spells it; several letters are a struct's members.
        tables: what a table, or a union by its tag from 1 on, can be.
        default: of a number that is not stored.
    """

    name: str
    kind: Kind
    many: bool = False
    format: str = ""
    tables: tuple[str, ...] = ()
    default: int = 0


def _fields(text: str) -> list[Field]:
    if text == "-":
        return [Field("", "unused")]
    name, _, kind = text.partition(" ")
    many = kind.startswith("[")
    kind, _, default = kind.strip("[]").partition("=")
    if "|" in name:
        tag, _, name = name.partition("|")
        value = Field(name, "union", tables=tuple(kind.split("/")))
        return [Field(tag, "number", format="B"), value]
    if kind == "string":
        return [Field(name, "string", many)]
    if kind in ("b", "B", "i", "I", "q", "f", "Iii"):
        return [Field(name, "number", many, kind, default=int(default or 0))]
    return [Field(name, "table", many, tables=(kind,))]


def _schema(text: str) -> dict[str, tuple[Field, ...]]:
    tables = {}
    for line in text.strip().replace("\n    ", " ").splitlines():
        kind, _, fields = line.partition(": ")
        tables[kind] = tuple(f for field in fields.split(", ") for f in _fields(field))
    return tables


SCHEMA = _schema(_TABLES)
