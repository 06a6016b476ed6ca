"""A zero that is computed from the size of a value, so that no runtime takes it for a constant.

A runtime decodes at load what depends on constants alone. A size costs nothing, and
``min(size, 0)`` is 0 whatever it is.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converters.onnx.decoding.builder import Builder
from converters.onnx.decoding.encoding import Encoding, finish

SIZE = "Size"


def anchor(source: ir.Value, name: str) -> Encoding:
    """The value ``name``, int64 0, from the value ``source`` of any shape."""
    graph = Builder(name)
    size = graph.node(SIZE, source, into=f"{name}_size")
    graph.node("Min", size, graph.tensor("dkm:none", np.array(0, np.int64)), into=name)
    return finish(graph)
