"""Lower functions of single values that coremltools computes otherwise than PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
from coremltools.converters.mil import Builder
from coremltools.converters.mil.frontend.torch.ops import _get_inputs, _get_kwinputs
from coremltools.converters.mil.mil import types

_GELU = {"none": "EXACT", "tanh": "TANH_APPROXIMATION"}


def gelu(context: Any, node: Any) -> None:
    """Lower ``gelu`` in the mode that it is asked for: coremltools has the exact one for each."""
    (x,) = _get_inputs(context, node, expected=1)
    mode = _get_kwinputs(context, node, "approximate", default=["none"])[0]
    context.add(Builder.gelu(x=x, mode=_GELU[mode], name=node.name))


def reciprocal(context: Any, node: Any) -> None:
    """Lower ``1 / x``: coremltools takes Core ML's ``inverse``, which is ``1 / (x + 1e-4)``."""
    (x,) = _get_inputs(context, node, expected=1)
    x = x if types.is_float(x.dtype) else Builder.cast(x=x, dtype="fp32")
    context.add(Builder.real_div(x=np.float32(1), y=x, name=node.name))
