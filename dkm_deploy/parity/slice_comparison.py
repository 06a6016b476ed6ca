"""Compare outputs slice by slice with what they must be, under the noise of each slice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.parity.figures import ELEMENT_ERROR, Figure, OutputJudgement
from dkm_deploy.parity.mean_difference import GainAndOffset, gain_and_offset, mean_along
from dkm_deploy.parity.output_errors import are_whole, difference
from dkm_deploy.parity.reduced_precision import Precision
from dkm_deploy.parity.rounding_noise import Noise

SLICE, ELEMENT, POOLED = 3.0, 12.0, 5.0
"""Factors of a model's own noise; right files of small models reach about half of these limits.

Of the root mean square error of a large slice, of a single element (smaller slices lie between),
and of a gain or a mean."""

CONSTANT: Mapping[Precision, float] = {"float32": 1e-4, "float16": 1e-2}
"""Limits on the relative error of a slice where no noise can be measured."""

_UNIT: Mapping[Precision, float] = {"float32": 2.0**-19, "float16": 2.0**-10}
_STRAY = 10.0  # times the constant: what a single element may be off

_ALIKE = 16  # measured samples that tell the noise of one that was not measured
_QUIET = 0.1  # of the usual size of slices: smaller ones may be small by cancellation


def is_close(actual: NDArray[Any], expected: NDArray[Any], precision: Precision) -> bool:
    """Whether no slice is further off than one rounding or so: no noise needs to be measured.

    Whole numbers are not off at all.
    """
    if are_whole(actual) or are_whole(expected):
        return bool(np.array_equal(actual, expected))
    if not (np.isfinite(actual).all() and np.isfinite(expected).all()):
        return False
    wanted = np.atleast_1d(expected).astype(np.float64)
    gap = np.atleast_1d(actual).astype(np.float64) - wanted
    unit = _UNIT[precision] ** 2
    return all(
        bool((mean_along(gap**2, axis) <= unit * mean_along(wanted**2, axis)).all())
        for axis in _axes(gap.shape)
    )


@dataclass(frozen=True)
class OutputJudge:
    """Judges outputs as :func:`judge_outputs` does; its attributes are the arguments of that."""

    expected: Mapping[str, NDArray[Any]]
    noise: Noise | None
    precision: Precision

    def __call__(self, outputs: Mapping[str, NDArray[Any]]) -> dict[str, OutputJudgement]:
        """Each output under the model's own noise, or under constants."""
        return judge_outputs(outputs, self.expected, self.noise, self.precision)


def judge_outputs(
    outputs: Mapping[str, NDArray[Any]],
    expected: Mapping[str, NDArray[Any]],
    noise: Noise | None,
    precision: Precision,
) -> dict[str, OutputJudgement]:
    """Each output under the model's own noise, or under constants where that is not known.

    Args:
        outputs: of a file, by the names and of the shapes of ``expected``.
        expected: what the noise was measured beside.
        noise: None if it is not known.
        precision: that the file computes in.
    """
    return {
        name: _judge_output(outputs[name], array, None if noise is None else noise, name, precision)
        for name, array in expected.items()
    }


def _judge_output(
    actual: NDArray[Any],
    expected: NDArray[Any],
    noise: Noise | None,
    name: str,
    precision: Precision,
) -> OutputJudgement:
    actual, expected = np.atleast_1d(actual), np.atleast_1d(expected)
    finite = np.isfinite(actual) & np.isfinite(expected)
    wanted = np.where(finite, expected, 0).astype(np.float64)
    gap = difference(np.where(finite, actual, 0), np.where(finite, expected, 0))
    whole = are_whole(actual) or are_whole(expected)
    own = noise.outputs.get(name) if noise is not None else None
    if noise is None or own is None:
        least = CONSTANT[precision]
        figures = [_differing_share(gap, least)] if whole else _against_constant(gap, wanted, least)
        source = f"a constant for {precision}, as the model's noise is not measured: {{}}"
        return OutputJudgement(_sort_figures(figures), least, source)
    source = f"the model's own {noise.arithmetic} noise, {{}}"
    square = own.square + _LEAST[noise.arithmetic.compute] ** 2
    size, level = float(mean_along(wanted**2, None)[0]), float(mean_along(square, None)[0])
    relative = SLICE * (level / size) ** 0.5 if size else 0.0
    if whole:
        figures = [_differing_share(gap, float((own.square > 0).mean()))]
    else:
        every = len(square) == len(wanted)  # or an output without a sample dimension
        samples = np.arange(len(wanted)) if every else noise.samples
        figures = _against_noise(gap, wanted, square, samples)
        least = _UNIT["float32"] if noise.arithmetic.coarsest == "float32" else 0.0
        figures += _gain_and_mean_figures(gap[samples], wanted[samples], square, own.pooled, least)
    return OutputJudgement(
        _sort_figures(figures), max(relative, _FAINT[precision]), source, own.overflown
    )


_LEAST: Mapping[Precision, float] = {"float32": 2.0**-126, "float16": 2.0**-24}  # below is zero
_FAINT: Mapping[Precision, float] = {"float32": 1e-5, "float16": 2e-3}  # errors within a model


def _sort_figures(figures: list[Figure]) -> tuple[Figure, ...]:
    return tuple(sorted(figures, key=lambda figure: -figure.ratio))


def _differing_share(gap: NDArray[np.float64], noise: float) -> Figure:
    """Of whole numbers, the share that differs: as many as rounding turns over in some draw."""
    share = float(np.count_nonzero(gap) / gap.size)
    return Figure("share of different elements", share, noise, 1.0)


def _against_noise(
    gap: NDArray[np.float64],
    wanted: NDArray[np.float64],
    square: NDArray[np.float64],
    samples: NDArray[Any],
) -> list[Figure]:
    square = _fill_noise(square, wanted, samples)
    figures, floor = [], np.full(gap.shape, np.inf)
    for axis in _axes(gap.shape):
        noise, size = mean_along(square, axis), mean_along(wanted**2, axis)
        noise = np.maximum(noise, _usual(noise, size) * size)
        factor = _between(SLICE, ELEMENT, gap.size // gap.shape[axis])
        figures.append(_slice(gap, axis, noise, factor))
        floor = np.minimum(floor, _spread(noise, axis, gap.ndim))
    return [*figures, _element(gap, np.maximum(square, floor))]


def _against_constant(
    gap: NDArray[np.float64], wanted: NDArray[np.float64], relative: float
) -> list[Figure]:
    figures = []
    for axis in (None, *_axes(gap.shape)):
        size = mean_along(wanted**2, axis)
        noise = np.maximum(size, _QUIET**2 * np.median(size)) * relative**2
        figures.append(_slice(gap, axis, noise, _between(1.0, _STRAY, gap.size // len(size))))
    size = np.maximum(wanted**2, mean_along(wanted**2, None))
    return [*figures, replace(_element(gap, size * relative**2), factor=_STRAY)]


def _axes(shape: tuple[int, ...]) -> list[int]:
    """Dimensions whose slices are judged: samples, and all others that have several places."""
    return [axis for axis, length in enumerate(shape) if axis == 0 or length > 1]


def _between(large: float, single: float, count: int) -> float:
    """The factor of a slice of ``count`` elements: the mean of few is hardly steadier than one."""
    return float(large + (single - large) / count**0.5)


def _usual(part: NDArray[np.float64], whole: NDArray[np.float64]) -> float:
    """What share ``part`` is of ``whole`` in most slices."""
    some = whole > 0
    return float(np.median(part[some] / whole[some])) if some.any() else 0.0


def _fill_noise(
    square: NDArray[np.float64], wanted: NDArray[np.float64], samples: NDArray[Any]
) -> NDArray[np.float64]:
    """Noise of all samples: what was not measured has that of measured ones of like size.

    It is the mean of these, and not less for a smaller value: one that is small by cancellation has
    the noise of its terms.
    """
    if len(samples) == len(wanted):
        return square
    size = mean_along(wanted**2, 0)
    order = np.argsort(size[samples], kind="stable")
    sizes, levels = size[samples][order], square[order]
    count = min(_ALIKE, len(samples))
    starts = range(len(samples) - count + 1)
    means = np.stack([levels[start : start + count].mean(0) for start in starts])
    usual = np.array([sizes[start : start + count].mean() for start in starts])
    near = np.clip(np.searchsorted(sizes, size) - count // 2, 0, len(means) - 1)
    louder = np.divide(size, usual[near], out=np.ones_like(size), where=usual[near] > 0)
    filled = means[near] * _spread(np.maximum(louder, 1), 0, wanted.ndim)
    filled[samples] = square
    return filled


def _slice(
    gap: NDArray[np.float64], axis: int | None, noise: NDArray[np.float64], factor: float
) -> Figure:
    """The worst slice along a dimension."""
    error = mean_along(gap**2, axis)
    worst = _worst(error, noise)
    what = f"error of {_slice_name(axis, worst, gap.ndim)}"
    return Figure(what, float(error[worst] ** 0.5), float(noise[worst] ** 0.5), factor)


def _element(gap: NDArray[np.float64], square: NDArray[np.float64]) -> Figure:
    worst = np.unravel_index(_worst(gap**2, square), gap.shape)
    what = f"{ELEMENT_ERROR} ({', '.join(str(int(place)) for place in worst)})"
    return Figure(what, abs(float(gap[worst])), float(square[worst] ** 0.5), ELEMENT)


def _gain_and_mean_figures(
    gap: NDArray[np.float64],
    wanted: NDArray[np.float64],
    square: NDArray[np.float64],
    noise: GainAndOffset,
    least: float,
) -> list[Figure]:
    """What is systematic: gain and mean, of the whole output and of channels.

    The relative error ``least`` is no fault: libraries approximate exp, erf and the like, each in
    its own way, and such errors do not average out.
    """
    found, figures = gain_and_offset(gap, wanted), []
    for axis, gain in noise.gain.items():
        level, mean = mean_along(square, axis) ** 0.5, noise.offset[axis]
        faint, size = least / POOLED, mean_along(wanted**2, axis) ** 0.5
        usual = np.maximum(level * _usual(mean, level), faint * size)
        for what, error, own in (
            ("gain error", found.gain[axis], np.maximum(gain, max(np.median(gain), faint))),
            ("mean error", found.offset[axis], np.maximum(mean, usual)),
        ):
            worst = _worst(np.abs(error), own)
            name = f"{what} of {_slice_name(axis, worst, gap.ndim)}"
            figures.append(Figure(name, float(abs(error[worst])), float(own[worst]), POOLED))
    return figures


def _worst(error: NDArray[np.float64], noise: NDArray[np.float64]) -> int:
    """Where an error is largest beside its noise; any error beside none is larger than all."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return int(np.nan_to_num(error / noise, nan=0.0, posinf=np.inf).argmax())


def _spread(values: NDArray[np.float64], axis: int, dimensions: int) -> NDArray[np.float64]:
    """Values of slices along ``axis``, to be broadcast over an output."""
    return values.reshape([-1 if place == axis else 1 for place in range(dimensions)])


def _slice_name(axis: int | None, place: int, dimensions: int) -> str:
    if axis is None:
        return "the whole output"
    if axis == 0:
        return f"sample {place}"
    if dimensions == 3:
        return f"channel {place} (dimension {axis})"
    return f"channel {place}" if axis == 1 else f"place {place} of dimension {axis}"
