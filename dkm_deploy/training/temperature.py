"""A temperature at which the centroids of a weight stay apart."""

from __future__ import annotations

from torch import Tensor

from dkm_deploy.clustering.dkm.collapse import forecast, variances
from dkm_deploy.errors import DkmError
from dkm_deploy.palette_spec import PaletteSpec
from dkm_deploy.training.methods.protocol import Method

_HALVINGS = 20  # of a temperature that is too high, before giving up


def easing_factor(
    method: Method, vectors: Tensor, centroids: Tensor, spec: PaletteSpec, end: float = 1.0
) -> float:
    """Factor on the method's temperature, at most 1, with which centroids do not run together.

    Args:
        method: of training.
        vectors: ``(groups, count, dim)``.
        centroids: of k-means, ``(groups, clusters, dim)``.
        spec: of the palette.
        end: factor on the temperature where a schedule ends; one that cools is judged there.

    Raises:
        DkmError: the user set the temperature, and it is too high.
    """
    tau = method.tau(variances(vectors), spec) * min(1.0, end)

    def problem(factor: float) -> str | None:
        return forecast(vectors, centroids, lambda v, c: method.soften(v, c, factor * tau))

    found = problem(1.0)
    if found is None:
        return 1.0
    lower = (0.5**i for i in range(1, _HALVINGS) if problem(0.5**i) is None)
    factor = next(lower, 0.5**_HALVINGS)
    if method.automatic:
        return factor
    relative = (tau.mean() / variances(vectors).mean()).item()
    raise DkmError(
        f"the temperature {relative:.3g} (tau over the variance) is too high for "
        f"{spec.bits} bits: {found}; {factor * relative:.2g} is low enough"
    )
