"""The content of a ``.ort`` file as an ONNX model, which is what it was made from."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush
from math import prod
from typing import TYPE_CHECKING, Any

from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
    defs,
    helper,
)

from dkm_deploy.errors import DkmError

if TYPE_CHECKING:
    from converters.ort.flatbuffer_reader import Table

# Both formats number the types of tensors and attributes alike; the newer ones of ONNX, such as
# UINT4, are not in this format.
_LAST_TYPE = TensorProto.FLOAT8E5M2FNUZ
_VALUES = {
    AttributeProto.FLOAT: "f",
    AttributeProto.INT: "i",
    AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t",
    AttributeProto.GRAPH: "g",
    AttributeProto.FLOATS: "floats",
    AttributeProto.INTS: "ints",
    AttributeProto.STRINGS: "strings",
    AttributeProto.TENSORS: "tensors",
    AttributeProto.GRAPHS: "graphs",
}
_MESSAGES = ("t", "g", "tensors", "graphs")


def to_onnx_model(session: Table) -> ModelProto:
    """The model of a file whose outermost table is ``session``.

    It has what runs: nodes, attributes, initializers, inputs and outputs. What describes inner
    values, and notes, are left out.

    Raises:
        DkmError: the file has no model, a name that is no text, a tensor whose data do not fit its
            shape or lie elsewhere, a type that the format does not have, or nodes in a circle.
    """
    model = session["model"]
    if model is None or model["graph"] is None or not model["graph"]["outputs"]:
        raise DkmError("it has no model, or one without outputs")
    proto = ModelProto(ir_version=model["ir_version"], graph=_graph(model["graph"]))
    for opset in model["opset_import"]:
        proto.opset_import.add(domain=_text(opset["domain"]), version=opset["version"])
    return proto


def _graph(graph: Table) -> GraphProto:
    types = {value["name"]: value["type"] for value in graph["node_args"]}
    if graph["sparse_initializers"]:
        raise DkmError("it has sparse tensors, which cannot be read")
    return GraphProto(
        name="graph",
        node=_in_order([_node(node) for node in graph["nodes"]]),
        initializer=[_tensor(tensor) for tensor in graph["initializers"]],
        input=[_value(name, types.get(name)) for name in graph["inputs"]],
        output=[_value(name, types.get(name)) for name in graph["outputs"]],
    )


def _in_order(nodes: list[NodeProto]) -> list[NodeProto]:
    """The nodes in an order that runs, as near as can be to the one in which they were made."""
    makers = {name: place for place, node in enumerate(nodes) for name in node.output}
    sorter = TopologicalSorter(
        {
            place: [makers[name] for name in _reads(node) if name in makers]
            for place, node in enumerate(nodes)
        }
    )
    try:
        sorter.prepare()
    except CycleError as error:
        raise DkmError("its nodes form a cycle") from error
    ready: list[int] = []
    ordered = []
    while sorter.is_active():
        for place in sorter.get_ready():
            heappush(ready, place)
        place = heappop(ready)
        ordered.append(nodes[place])
        sorter.done(place)
    return ordered


def _reads(node: NodeProto) -> set[str]:
    """Names that a node takes, those that its graphs take from outside included."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                names |= _reads(inner)
    return names


def _node(node: Table) -> NodeProto:
    domain, operator = _text(node["domain"]), _text(node["op_type"])
    # ONNX Runtime writes attributes that have their default values too.
    defaults = _defaults(operator, domain, node["since_version"])
    attributes = [_attribute(attribute) for attribute in node["attributes"]]
    return NodeProto(
        name=_text(node["name"]),
        domain=domain,
        op_type=operator,
        input=[_text(name) for name in node["inputs"]],
        output=[_text(name) for name in node["outputs"]],
        attribute=[each for each in attributes if each != defaults.get(each.name)],
    )


def _defaults(operator: str, domain: str, version: int) -> dict[str, AttributeProto]:
    """Attributes of an operator with their default values; none of one that ONNX does not have."""
    if version < 1 or not defs.has(operator, version, domain):
        return {}
    schema = defs.get_schema(operator, version, domain)
    return {name: attribute.default_value for name, attribute in schema.attributes.items()}


def _attribute(attribute: Table) -> AttributeProto:
    name, kind = _text(attribute["name"]), attribute["type"]
    if kind not in _VALUES:
        raise DkmError(f"attribute {name!r} has type {kind}, which is not supported")
    field = _VALUES[kind]
    value = attribute[field]
    if field in _MESSAGES:
        convert = _graph if kind in (AttributeProto.GRAPH, AttributeProto.GRAPHS) else _tensor
        if value is None:
            raise DkmError(f"attribute {name!r} has no value")
        value = [convert(each) for each in value] if field.endswith("s") else convert(value)
    fields: dict[str, Any] = {"name": name, "type": kind, field: value}
    return AttributeProto(**fields)


def _tensor(tensor: Table) -> TensorProto:
    name, dims, kind = _text(tensor["name"]), tensor["dims"], tensor["data_type"]
    if tensor["external_data_offset"] >= 0:
        raise DkmError(f"tensor {name!r} is in another file")
    if not TensorProto.UNDEFINED < kind <= _LAST_TYPE or any(dim < 0 for dim in dims):
        raise DkmError(
            f"tensor {name!r} of type {kind} and shape {dims} is not valid in this format"
        )
    if kind == TensorProto.STRING:
        stored, expected = len(tensor["string_data"]), prod(dims)
        content = {"string_data": tensor["string_data"]}
    else:
        stored = len(tensor["raw_data"])
        expected = prod(dims) * helper.tensor_dtype_to_np_dtype(kind).itemsize
        content = {"raw_data": bytes(tensor["raw_data"])}
    if stored != expected:
        raise DkmError(f"tensor {name!r} of shape {dims} has {stored} of {expected} bytes")
    return TensorProto(name=name, dims=dims, data_type=kind, **content)


def _value(name: bytes, kind: Table | None) -> ValueInfoProto:
    return ValueInfoProto(name=_text(name), type=_type(kind))


def _type(kind: Table | None) -> TypeProto:
    proto = TypeProto()
    value = None if kind is None else kind["value"]
    if value is None:
        return proto
    if value.kind == "SequenceType":
        proto.sequence_type.elem_type.CopyFrom(_type(value["elem_type"]))
    elif value.kind == "MapType":
        proto.map_type.key_type = value["key_type"]
        proto.map_type.value_type.CopyFrom(_type(value["value_type"]))
    else:
        proto.tensor_type.elem_type = value["elem_type"]
        if value["shape"] is not None:
            proto.tensor_type.shape.SetInParent()
            for dim in value["shape"]["dim"]:
                _dim(dim["value"], proto.tensor_type.shape.dim.add())
    return proto


def _dim(value: Table | None, into: Any) -> None:
    if value is not None and value["dim_type"] == 1:
        into.dim_value = value["dim_value"]
    elif value is not None and value["dim_type"] == 2:
        into.dim_param = _text(value["dim_param"])


def _text(name: bytes) -> str:
    text = name.decode(errors="replace")
    if "\ufffd" in text:
        raise DkmError(f"the name {name[:40]!r} is not text")
    if not text.isprintable():
        raise DkmError(f"the name {text[:40]!r} has characters that cannot be printed; rename it")
    return text
