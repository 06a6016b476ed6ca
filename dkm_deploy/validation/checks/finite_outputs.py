"""Can anything be compared with these outputs?"""

from __future__ import annotations

import numpy as np
import torch
from torch.utils import _pytree as pytree

from dkm_deploy.errors import DkmError
from dkm_deploy.model.inputs import Inputs, arguments
from dkm_deploy.model.run import Outputs
from dkm_deploy.model.steps import Steps


def check_finite(outputs: Outputs, inputs: Inputs | Steps) -> None:
    """Raise DkmError if an output of a reference is all NaN or infinite, for every input."""
    for name, array in outputs.items():
        if array.size and not np.isfinite(array).any():
            raise DkmError(
                f"the reference gives no finite value in output {name!r}, so no file can be "
                f"compared with it{_blame_inputs(inputs)}"
            )


def uncompared_text(outputs: Outputs) -> str:
    """A clause on the values of a reference that are not finite, if there are any."""
    total = sum(array.size for array in outputs.values())
    finite = sum(int(np.isfinite(array).sum()) for array in outputs.values())
    if finite == total:
        return ""
    return f"; NaN or infinite in PyTorch too, and so not compared: {total - finite:,} of {total:,}"


def _blame_inputs(inputs: Inputs | Steps) -> str:
    """The inputs that are not finite, as a clause."""
    bad = []
    for step in inputs if isinstance(inputs, Steps) else [inputs]:
        args, kwargs = arguments(step)
        named = {str(place): value for place, value in enumerate(args)} | kwargs
        bad += [name for name, value in named.items() if not _finite(value) and name not in bad]
    return f": input {', '.join(bad)} holds NaN or infinity" if bad else ""


def _finite(value: object) -> bool:
    return all(bool(t.isfinite().all()) for t in pytree.tree_leaves(value) if torch.is_tensor(t))
