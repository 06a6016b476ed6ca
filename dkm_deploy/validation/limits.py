"""What a file must keep, for all outputs and for single ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Annotated

from dkm_deploy._support.argument_checks import real, record, short
from dkm_deploy._support.records import WrittenAs, from_plain
from dkm_deploy.errors import DkmError

_ELEMENT = 10  # times the relative limit: a single element may stray further than all on average


@dataclass(frozen=True)
class OutputLimits:
    """Limits on the errors of one output; None is no limit.

    Attributes:
        max_relative_error: ``|error| / |expected|``, 2-norms; the default is that of
            :class:`Limits`. A number here replaces the limits from the model's own noise.
        max_element_error: as in :class:`Limits`, whose value is the default.
        max_abs_error: largest absolute error, in the unit of the output.
        max_mean_error: mean absolute error, in the unit of the output.
        max_p999_error: 99.9th percentile of the absolute errors, in the unit of the output.
        min_sqnr_db: signal to quantization noise ratio, in dB.
        min_psnr_db: peak signal to noise ratio, in dB.
        min_cosine: cosine similarity, -1 to 1.

    Raises:
        DkmError: a number is out of range.

    Example:
        >>> limits = dkm.Limits(outputs={"output": dkm.OutputLimits(min_cosine=0.999)})
        >>> limits.outputs["output"].min_cosine
        0.999
    """

    max_relative_error: float | None = None
    max_element_error: float | None = None
    max_abs_error: float | None = None
    max_mean_error: float | None = None
    max_p999_error: float | None = None
    min_sqnr_db: float | None = None
    min_psnr_db: float | None = None
    min_cosine: float | None = None

    def __post_init__(self) -> None:
        _check_numbers(self)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits that a converted file must keep; None is no limit, except for the first two.

    Attributes:
        max_relative_error: of every output, against PyTorch with the same palettes. The default
            judges samples, channels and elements of every output by the model's own noise in the
            arithmetic of the file: :mod:`dkm_deploy.parity.slice_comparison`.
        max_element_error: of every element, relative to its value or to the root mean square of the
            output, whichever is larger. The default is ten times ``max_relative_error`` if that is
            given.
        max_metric_loss: metric of the original minus that of the file, in the unit of the metric.
        min_agreement: top-1 agreement with the original, 0 to 1.
        max_bytes: bytes of the file on disk.
        max_size_ratio: bytes of the file, divided by the bytes of the original's tensors.
        max_latency_ratio: median latency, divided by that of the dense file.
        max_load_ratio: load time, divided by that of the dense file.
        max_peak_ratio: peak memory, divided by that of the dense file.
        outputs: further limits of single outputs, by name.

    Raises:
        DkmError: a number is out of range, or an argument has another type.

    Example:
        >>> dkm.Limits(max_metric_loss=0.5, max_bytes=3_400_000).max_bytes
        3400000
    """

    max_relative_error: float | None = None
    max_element_error: float | None = None
    max_metric_loss: float | None = None
    min_agreement: float | None = None
    max_bytes: Annotated[int, WrittenAs(partial(real, "max_bytes"), "a number")] | None = None
    max_size_ratio: float | None = None
    max_latency_ratio: float | None = None
    max_load_ratio: float | None = None
    max_peak_ratio: float | None = None
    outputs: Mapping[str, OutputLimits] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_numbers(self)
        if not isinstance(self.outputs, Mapping):
            raise DkmError(f"outputs is {short(self.outputs)}; give limits by output")
        for name, own in self.outputs.items():
            if not isinstance(name, str):
                raise DkmError(f"outputs: {name!r} is not the name of an output")
            record(f"outputs[{name!r}]", own, OutputLimits)


def _check_numbers(limits: OutputLimits | Limits) -> None:
    """Raise DkmError for a limit that is no number; one that nothing meets is a limit still."""
    for one in fields(limits):
        value = getattr(limits, one.name)
        if one.name != "outputs" and value is not None:
            real(one.name, value)


def limits_of(name: str, limits: Limits) -> OutputLimits:
    """The limits of one output that were asked for."""
    own = limits.outputs.get(name, OutputLimits())
    relative = _first(own.max_relative_error, limits.max_relative_error)
    element = _first(own.max_element_error, limits.max_element_error)
    if element is None and relative is not None:
        element = _ELEMENT * relative
    return replace(own, max_relative_error=relative, max_element_error=element)


def check_names(limits: Limits, outputs: Iterable[str]) -> None:
    """Raise DkmError if a limit is for an output that is not there; it would never be checked."""
    there = list(outputs)
    for name in limits.outputs:
        if name not in there:
            raise DkmError(f"limits for output {name!r}; the outputs are {', '.join(there)}")


def merge_limits(base: Limits, over: Limits) -> Limits:
    """``base`` with every limit that ``over`` sets, output by output."""
    changed = {k: v for k, v in vars(over).items() if v is not None and k != "outputs"}
    outputs = dict(base.outputs)
    for name, own in over.outputs.items():
        set_ = {k: v for k, v in vars(own).items() if v is not None}
        outputs[name] = replace(outputs.get(name, OutputLimits()), **set_)
    return replace(base, **changed, outputs=outputs)


def parse_output_limits(pairs: list[str]) -> dict[str, OutputLimits]:
    """Limits of outputs from lines such as ``logits:min_cosine=0.999``.

    Raises:
        DkmError: a line is written otherwise, or there is no such limit.
    """
    found: dict[str, dict[str, float]] = {}
    for pair in pairs:
        left, _, value = pair.rpartition("=")
        name, _, key = left.rpartition(":")
        if not name:
            raise DkmError(f"{pair!r}: write a limit of an output as NAME:LIMIT=VALUE")
        found.setdefault(name, {})[key] = _number(value, pair)
    return {name: from_plain(values, OutputLimits, name) for name, values in found.items()}


def _number(value: str, pair: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise DkmError(f"{pair!r}: {value!r} is not a number") from None


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)
