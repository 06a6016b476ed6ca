"""What the callbacks share: the import of a package that may be absent, and what they log."""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

from dkm_deploy.errors import DkmError
from dkm_deploy.training.status import status


def optional_import(module: str, package: str) -> Any:
    """Import ``module``.

    Raises:
        DkmError: ``package``, which it belongs to, is not installed or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DkmError(
            f"{module} cannot be imported ({error}); the callback needs it: pip install {package}"
        ) from error


def summary(model: nn.Module) -> dict[str, float]:
    """The worst of :func:`dkm_deploy.status` over all weights, as numbers to log.

    ``dkm/soft_hard_gap`` is the largest gap; ``dkm/distinct_centroids`` the smallest share of a
    palette's centroids that lie apart, 1 if no palette has lost one; ``dkm/repaired`` all centroids
    so far that had to be sent off again.
    """
    layers = status(model).values()
    return {
        "dkm/soft_hard_gap": max(layer.soft_hard_gap for layer in layers),
        "dkm/distinct_centroids": min(layer.distinct_centroids / 2**layer.bits for layer in layers),
        "dkm/repaired": float(sum(layer.repaired for layer in layers)),
    }
