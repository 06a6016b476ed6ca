"""Which operation of a program, in which layer, a library failed on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import fx

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def failure_place(error: BaseException, program: ExportedProgram) -> str:
    """Where a library failed, to be put behind its reason; empty if that is not known.

    Args:
        error: that a library raised while it went through ``program``, with its frames.
        program: what it was to convert.
    """
    node = failed_call(error, program)
    return "" if node is None else f" (at {_place(node)})"


def failed_call(error: BaseException, program: ExportedProgram) -> fx.Node | None:
    """The call that a library failed on, or None if that is not known.

    Arguments as those of :func:`failure_place`.
    """
    return next(_nodes(error, program), None)


def _nodes(error: BaseException, program: ExportedProgram) -> Iterator[fx.Node]:
    """What the library was at, going by its own frames; else what its message names."""
    named = {node.name: node for node in program.graph.nodes if node.op == "call_function"}
    for values in _locals(error):
        for variable, value in values.items():
            if isinstance(value, fx.Node) and value.op == "call_function":
                yield value
            elif "node" in variable:  # coremltools copies those of torch.fx under their names
                name = getattr(value, "name", None)
                if isinstance(name, str) and name in named:
                    yield named[name]
    yield from (node for node in named.values() if str(node.target) in str(error))


def _locals(error: BaseException | None) -> Iterator[dict[str, Any]]:
    """Variables of all frames, the innermost first, and then those of the error's cause."""
    while error is not None:
        frames, trace = [], error.__traceback__
        while trace is not None:
            frames.append(trace.tb_frame)
            trace = trace.tb_next
        yield from (frame.f_locals for frame in reversed(frames))
        error = error.__cause__


def _place(node: fx.Node) -> str:
    layer = layer_of(node)
    return f"{node.target} in layer {layer}" if layer else str(node.target)


def layer_of(node: Any) -> str:
    """The qualified name of the innermost module that makes a call; empty for the model itself.

    Args:
        node: of a graph, or what coremltools makes of it.
    """
    stack = node.meta.get("nn_module_stack") or {}
    return str(next((path for path, _ in reversed(stack.values()) if path), ""))
