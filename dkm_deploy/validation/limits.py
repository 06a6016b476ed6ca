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
    """Limits on the errors of one output; None is none.

    ``max_relative_error`` and ``max_element_error`` default to those of :class:`Limits`. The first
    takes the place of the limits that come from the model's own noise.
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


@dataclass(frozen=True)
class Limits:
    """What a file must keep. None is no limit, but for the first two, which have defaults.

    Attributes:
        max_relative_error: of every output against PyTorch with the same palettes. If left out,
            samples, channels and elements of every output are judged by the model's own noise in
            the arithmetic of the file: :mod:`dkm_deploy.parity.slice_comparison`.
        max_element_error: of every element, relative to it or to the output's root mean square if
            that is larger; ten times ``max_relative_error`` if that is given alone.
        max_metric_loss: metric of the original minus that of the file, in the metric's unit.
        min_agreement: top-1 agreement with the original, 0 to 1.
        max_bytes: of the file on disk.
        max_size_ratio: bytes of the file over bytes of the original's tensors.
        max_latency_ratio: median latency over that of the dense file.
        max_load_ratio: load time over that of the dense file.
        max_peak_ratio: peak memory over that of the dense file.
        outputs: further limits of single outputs, by name.
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
                raise DkmError(f"outputs: {name!r} is no name of an output")
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
