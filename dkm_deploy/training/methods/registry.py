"""Ways to train a palette. A method turns a weight into what the forward pass uses."""

from __future__ import annotations

from dkm_deploy._support.argument_checks import check_implements
from dkm_deploy.errors import DkmError
from dkm_deploy.training.methods.dkm import DKM
from dkm_deploy.training.methods.ewgs import EWGS
from dkm_deploy.training.methods.gwk import GWK
from dkm_deploy.training.methods.hard_ste import HardSTE
from dkm_deploy.training.methods.protocol import AnyMethod

METHODS: dict[str, AnyMethod] = {
    "dkm": DKM(),
    "ste": HardSTE(),
    "ewgs": EWGS(),
    "gwk": GWK(),
}


def training_method(method: str | AnyMethod) -> AnyMethod:
    """A method by its name, or itself."""
    if not isinstance(method, str):
        return check_implements("method", method, "automatic", METHODS)
    if method not in METHODS:
        raise DkmError(
            f"unknown training method {method!r}; known methods are {', '.join(METHODS)}"
        )
    return METHODS[method]
