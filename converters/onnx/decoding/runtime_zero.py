"""A zero that is computed from the size of a value, so that no runtime takes it for a constant.

A runtime decodes at load what depends on constants alone. A size costs nothing, and
``min(size, 0)`` is 0 whatever it is.
"""

from __future__ import annotations

import numpy as np
from onnx import helper, numpy_helper

from converters.onnx.decoding.encode import Encoding

SIZE = "Size"


def anchor(source: str, name: str) -> Encoding:
    """The value ``name``, int64 0, from the value ``source`` of any shape."""
    nodes = (
        helper.make_node(SIZE, [source], [f"{name}_size"]),
        helper.make_node("Min", [f"{name}_size", "dkm:none"], [name]),
    )
    return Encoding(nodes, (numpy_helper.from_array(np.array(0, np.int64), "dkm:none"),))
