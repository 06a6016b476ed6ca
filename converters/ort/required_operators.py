"""Which operators a file needs, as the configuration of a reduced build of ONNX Runtime.

ONNX Runtime's own script writes the same lines, but follows any offset of a damaged file, changes
``sys.path`` and notes a path of the machine; so the lines are made here from the checked tables.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from onnx import AttributeProto

if TYPE_CHECKING:
    from collections.abc import Iterator

    from converters.ort.flatbuffer_reader import Table


def required_operators(session: Table) -> str:
    """Text for ``build.sh --include_ops_by_config``: lines ``domain;version;operator,..``.

    Args:
        session: the outermost table of a file whose model has been read.
    """
    needed: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
    for node in _nodes(session["model"]["graph"]):
        domain = node["domain"].decode() or "ai.onnx"
        needed[domain, node["since_version"]].add(node["op_type"].decode())
    lines = [
        f"{domain};{version};{','.join(sorted(names))}"
        for (domain, version), names in sorted(needed.items())
    ]
    return "\n".join(["# Operators of one model, for --include_ops_by_config", *lines, ""])


def _nodes(graph: Table) -> Iterator[Table]:
    """All nodes, those of inner graphs included."""
    for node in graph["nodes"]:
        yield node
        for attribute in node["attributes"]:
            if attribute["type"] == AttributeProto.GRAPH:
                yield from _nodes(attribute["g"])
            elif attribute["type"] == AttributeProto.GRAPHS:
                for inner in attribute["graphs"]:
                    yield from _nodes(inner)
