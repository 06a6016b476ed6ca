"""A model's own noise as plain arrays, for a file that goes where the model does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.errors import DkmError
from dkm_deploy.parity.mean_difference import Figures, GainAndOffset, axes
from dkm_deploy.parity.reduced_precision import Arithmetic
from dkm_deploy.parity.rounding_noise import Noise, OutputNoise

Arrays = dict[str, NDArray[Any]]

_WHOLE = "whole"


def to_arrays(noise: Noise) -> Arrays:
    """The arrays of a noise by name: ``samples``, and of each output its levels and figures."""
    found: Arrays = {"samples": noise.samples}
    for name, own in noise.outputs.items():
        found[f"{name}.level"] = own.level
        found[f"{name}.overflown"] = np.array([own.overflown])
        for key, figures in (("gain", own.pooled.gain), ("offset", own.pooled.offset)):
            for axis, values in figures.items():
                found[f"{name}.{key}.{_WHOLE if axis is None else axis}"] = values
    return found


def from_arrays(
    arrays: Mapping[str, NDArray[Any]], arithmetic: Arithmetic, outputs: Mapping[str, NDArray[Any]]
) -> Noise:
    """A noise from its arrays.

    Args:
        arrays: from :func:`to_arrays`.
        arithmetic: that was emulated.
        outputs: that it belongs to, by name.

    Raises:
        DkmError: an array is missing, or is not what fits these outputs.
    """
    samples = arrays["samples"]
    if samples.ndim != 1 or samples.dtype.kind != "i" or (np.diff(samples) <= 0).any():
        raise DkmError("noise: 'samples' are not indices in ascending order")
    found = {}
    for name, array in outputs.items():
        if f"{name}.level" in arrays:
            array, key = np.atleast_1d(array), f"{name}.level"
            if len(arrays[key]) == len(array):
                level = _check_array(arrays, key, array.shape)
            else:
                level = _check_array(arrays, key, (len(samples), *array.shape[1:]))
                if not samples.size or not 0 <= samples.min() <= samples.max() < len(array):
                    raise DkmError(f"noise of output {name!r} names samples that do not exist")
            pooled = GainAndOffset(
                *(_figures(arrays, f"{name}.{k}", level) for k in ("gain", "offset"))
            )
            overflown = _check_array(arrays, f"{name}.overflown", (1,), "i")
            found[name] = OutputNoise(level, pooled, int(overflown[0]))
    return Noise(arithmetic, samples, found)


def _figures(arrays: Mapping[str, NDArray[Any]], name: str, level: NDArray[Any]) -> Figures:
    shapes = {axis: 1 if axis is None else level.shape[axis] for axis in axes(level.shape)}
    return {
        axis: _check_array(arrays, f"{name}.{_WHOLE if axis is None else axis}", (length,))
        for axis, length in shapes.items()
    }


def _check_array(
    arrays: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...], kind: str = "f"
) -> NDArray[Any]:
    found = arrays.get(name)
    if found is None or found.shape != shape or found.dtype.kind != kind:
        raise DkmError(f"noise: {name!r} is missing or not of shape {shape}")
    if not (np.isfinite(found) & (found >= 0)).all():
        raise DkmError(f"noise: {name!r} is negative, NaN or infinite somewhere")
    return found
