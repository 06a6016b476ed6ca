"""A model's own noise: what rounding alone does to its outputs, measured on the model itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils import _pytree as pytree

from dkm_deploy.errors import DkmError
from dkm_deploy.model.inputs import Inputs, arguments
from dkm_deploy.model.pt2_program import fixed_batch
from dkm_deploy.model.run import Outputs, run_model
from dkm_deploy.model.samples import rows, sample_count, share_samples
from dkm_deploy.model.steps import Steps
from dkm_deploy.nn_utils.copies import independent_copy
from dkm_deploy.parity.mean_difference import GainAndOffset, gain_and_offset, root_mean_square
from dkm_deploy.parity.output_errors import difference
from dkm_deploy.parity.reduced_precision import Arithmetic, emulate

DRAWS = 8
_SAMPLES = 64  # that noise is measured on; the others are judged by what is typical of these
_ELEMENTS = 1 << 24  # of an output, at most, that noise is measured on
_BLOCK = 16
_UNKNOWN = 1e-2  # of a value: its noise where a draw is infinite, so that none is known
_HALF_SUMS = np.float32(4)  # times the noise


@dataclass(frozen=True)
class OutputNoise:
    """Noise of one output on the measured samples.

    Attributes:
        level: root mean square over the draws of each element, samples first.
        pooled: root mean squares over the draws of what is left of noise in the mean.
        overflown: elements that are others where numbers beyond float16 become infinite. That is
            no noise: in the draws they keep float16's digits.
    """

    level: NDArray[np.float32]
    pooled: GainAndOffset
    overflown: int = 0

    @property
    def square(self) -> NDArray[np.float64]:
        """Mean square of each element."""
        return np.square(self.level, dtype=np.float64)


@dataclass(frozen=True)
class Noise:
    """A model's own noise in one arithmetic.

    Attributes:
        arithmetic: that was emulated.
        samples: places of the samples that it was measured on.
        outputs: noise of each output by name; where not all samples were run at once, without
            those that have no sample dimension.
    """

    arithmetic: Arithmetic
    samples: NDArray[np.int64]
    outputs: Mapping[str, OutputNoise]

    def in_half_sums(self) -> Noise:
        """Where sums are float16 too, as in Core AI and on devices: 4 times the noise.

        Sums are not emulated, for no runtime tells their order; Core AI was seen to need 1.3 times
        the limits of float32 sums.
        """
        return replace(
            self, outputs={name: _scale_noise(own) for name, own in self.outputs.items()}
        )


def _scale_noise(own: OutputNoise) -> OutputNoise:
    gain = {axis: _HALF_SUMS * values for axis, values in own.pooled.gain.items()}
    offset = {axis: _HALF_SUMS * values for axis, values in own.pooled.offset.items()}
    return OutputNoise(_HALF_SUMS * own.level, GainAndOffset(gain, offset), own.overflown)


def measure_noise(
    model: nn.Module, inputs: Inputs | Steps, arithmetic: Arithmetic, draws: int = DRAWS
) -> Noise:
    """Run a model ``draws`` times in emulated arithmetic on at most 64 of its samples.

    Each block of samples is compared with a plain run of the same block, so that a model whose
    outputs depend on the samples beside them is not called noisy. Steps are one block. Of a model
    of float16 the noise is that of float16, whatever the file computes in.

    Args:
        model: in eval mode; it is not changed.
        inputs: of the model, samples along the first dimension.
        arithmetic: to emulate.
        draws: how often; see :func:`dkm_deploy.parity.reduced_precision.stochastic_round`.

    Raises:
        DkmError: the model does not run on the inputs.
    """
    if isinstance(inputs, Steps):
        inputs = _as_tensors(inputs)
    if _is_half(model):
        arithmetic = Arithmetic("float16", "float16")  # the reference's own outputs have that noise
    count = sample_count(inputs)
    model, inputs = _in_float32(model, inputs)
    size = fixed_batch(model) or min(_BLOCK, count)
    if isinstance(inputs, Steps) or not share_samples(inputs):
        size = count
    starts, parts = list(_starts(count, size)), []
    most = _SAMPLES
    for start in starts:
        block = inputs if isinstance(inputs, Steps) else rows(inputs, start, start + size)
        plain = run_model(model, block)
        parts.append([plain, *_draws(model, block, arithmetic, draws)])
        elements = max((array.size for array in plain.values()), default=1)
        most = max(1, min(_SAMPLES, _ELEMENTS * size // max(elements, 1)))
        if len(parts) * size >= most:
            break
    ends = [(start, min(start + size, count)) for start in starts[: len(parts)]]
    samples = np.concatenate([np.arange(*end) for end in ends])
    found = {}
    for name in parts[0][0]:
        runs = [[part[draw][name] for part in parts] for draw in range(draws + 2)]
        noise = _noise(runs, None if size >= count else len(samples))
        if noise is not None:
            found[name] = noise
    return Noise(arithmetic, samples, found)


def _is_half(model: nn.Module) -> bool:
    return any(t.dtype is torch.float16 for t in (*model.parameters(), *model.buffers()))


def _in_float32(model: nn.Module, inputs: Inputs | Steps) -> tuple[nn.Module, Inputs | Steps]:
    """A model of float16 and its inputs widened: what it has rounded itself shows no noise.

    They are as given where the model runs in no other dtype, for its forward casts to float16.
    """
    if not _is_half(model):
        return model, inputs
    wide = independent_copy(model).float()
    if isinstance(inputs, Steps):
        steps = Steps([_floats(step) for step in inputs])
        first: Inputs | Steps = Steps(list(steps)[:1])
        widened: Inputs | Steps = steps
    else:
        widened = _floats(inputs)
        first = rows(widened, 0, fixed_batch(model) or 1)
    try:
        run_model(wide, first)
    except DkmError:
        return model, inputs
    return wide, widened


def _floats(inputs: Inputs) -> Inputs:
    args, kwargs = pytree.tree_map_only(torch.Tensor, _float, arguments(inputs))
    return kwargs or args  # type: ignore[no-any-return]


def _float(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype is torch.float16 else tensor


def _starts(count: int, size: int) -> Iterator[int]:
    """Where blocks begin, far ones first, so that few of them are spread over all samples."""
    starts = np.arange(0, count, size)
    order = np.linspace(0, len(starts) - 1, min(len(starts), -(-_SAMPLES // size)))
    yield from (int(start) for start in starts[np.unique(order.round().astype(int))])


def _draws(
    model: nn.Module, block: Inputs | Steps, arithmetic: Arithmetic, draws: int
) -> Sequence[Outputs]:
    """Outputs of each draw, and at the end those of the first where overflows are infinite."""
    found, overflown = [], False
    for draw in range(draws):
        outputs, beyond = _draw(model, block, arithmetic, draw, overflows=False)
        found.append(outputs)
        overflown |= beyond
    last = _draw(model, block, arithmetic, 0, overflows=True)[0] if overflown else found[0]
    return [*found, last]


def _draw(
    model: nn.Module, block: Inputs | Steps, arithmetic: Arithmetic, draw: int, *, overflows: bool
) -> tuple[Outputs, bool]:
    """Outputs, and whether something was beyond float16; see ``emulate``.

    Those that depend on no input are rounded too, as in a file.
    """
    inputs = list(block) if isinstance(block, Steps) else block
    with emulate(arithmetic, draw, inputs, overflows=overflows) as rounding:
        outputs = run_model(model, block)
    each = {name: torch.from_numpy(array) for name, array in outputs.items()}
    rounded = {n: rounding.result(t) if t.is_floating_point() else t for n, t in each.items()}
    return {name: tensor.numpy() for name, tensor in rounded.items()}, rounding.overflown


def _as_tensors(steps: Steps) -> Steps:
    return Steps([kwargs or args for args, kwargs in map(arguments, steps)])


def _noise(runs: Sequence[Sequence[NDArray[Any]]], samples: int | None) -> OutputNoise | None:
    """Noise from the blocks of the plain run, which comes first, of the draws, and of the overflow.

    ``samples`` is how many the blocks must hold together: None if one block holds all there are.
    """
    runs = [[np.atleast_1d(part) for part in parts] for parts in runs]
    if samples is not None and sum(map(len, runs[0])) != samples:
        return None
    plain = np.concatenate(runs[0])
    square, draws = np.zeros(plain.shape), [np.concatenate(parts) for parts in runs[1:]]
    overflow, draws = draws[-1], draws[:-1]
    each = []
    for drawn in draws:
        finite = np.isfinite(drawn) & np.isfinite(plain)
        known = np.where(np.isfinite(plain), plain, 0)
        gap = np.where(finite, difference(drawn, plain), known * _UNKNOWN)
        square += np.square(gap, dtype=np.float64) / len(draws)
        each.append(gain_and_offset(gap, known))
    level = np.sqrt(square).astype(np.float32)
    same = (overflow == draws[0]) | (np.isnan(overflow) & np.isnan(draws[0]))
    return OutputNoise(level, root_mean_square(each), int((~same).sum()))
