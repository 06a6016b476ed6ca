"""What a user may ask of an ONNX file, and which operators that takes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

import onnx

from dkm_deploy.errors import DkmError

OLDEST_OPSET = 18
_OLDEST_RUNTIME = (1, 17)
_STORAGE = ("float32", "float16")
_NAMES = ("short", "full")
# First ONNX Runtime that decodes ONNX's own type of a width, and the opset that brought the type.
_NARROW = {4: ((1, 23), 21), 2: ((1, 24), 25)}

Decode = Literal["load", "packed", "int8"]
"""When a runtime decodes: once, when it loads the file, in every run, or once to 8 bits."""


@dataclass(frozen=True)
class Options:
    """Options of an ONNX file.

    Attributes:
        opset: version of the ONNX operators; None is the lowest that serves. The IR version is
            the lowest that goes with it.
        decode: see :func:`converters.onnx.decoding.insert.insert`.
        runtime: the oldest ONNX Runtime that will load the file, such as "1.24"; None is 1.17 and
            other runtimes too. From 1.23 on 4-bit indices, and from 1.24 on 2-bit ones, are stored
            in ONNX's own types, which load faster.
        storage_dtype: "float16" stores the LUTs and dense weights in half the bytes where their
            values survive it; the model computes in float32 all the same.
        folds: whether the runtime decodes at load what depends on constants alone. Of a ``.ort``
            file it does not.
        external_data: whether tensors of more than 1 KiB lie in a data file. None: if the model
            would be too large for one file, which is 2 GiB.
        names: "short" gives what lies between the nodes and the indices of palettes names of a few
            letters; "full" leaves them those of the exporter and of the weights.

    Raises:
        DkmError: a value is out of range, or two contradict each other.
    """

    opset: int | None = None
    decode: Decode = "load"
    runtime: str | None = None
    storage_dtype: str = "float32"
    external_data: bool | None = None
    folds: bool = True
    names: str = "short"

    def __post_init__(self) -> None:
        newest = onnx.defs.onnx_opset_version()
        if self.opset is not None and (
            not isinstance(self.opset, int) or not OLDEST_OPSET <= self.opset <= newest
        ):
            raise DkmError(f"opset is {self.opset}; it must be {OLDEST_OPSET} to {newest}")
        if self.decode not in get_args(Decode):
            known = ", ".join(get_args(Decode))
            raise DkmError(f"decode is {self.decode!r}; it must be one of {known}")
        if self.storage_dtype not in _STORAGE:
            known = " or ".join(_STORAGE)
            raise DkmError(f"storage_dtype is {self.storage_dtype!r}; it must be {known}")
        if self.names not in _NAMES:
            known = " or ".join(_NAMES)
            raise DkmError(f"names is {self.names!r}; it must be {known}")
        if self.external_data not in (True, False, None):
            raise DkmError(f"external_data is {self.external_data!r}; it must be true or false")
        if self.runtime is not None and self._runtime < _OLDEST_RUNTIME:
            raise DkmError(f"runtime is {self.runtime}; palettes need ONNX Runtime 1.17 or newer")

    @property
    def _runtime(self) -> tuple[int, int]:
        if self.runtime is None:
            return _OLDEST_RUNTIME
        found = re.fullmatch(r"(\d+)\.(\d+)(\.\d+)?", str(self.runtime))
        if not found:
            raise DkmError(f"runtime is {self.runtime!r}; write its version as '1.24'")
        return int(found[1]), int(found[2])

    @property
    def narrow(self) -> tuple[int, ...]:
        """Widths of indices to store in ONNX's own types, if a set opset has them."""
        return tuple(
            bits
            for bits, (runtime, opset) in _NARROW.items()
            if self._runtime >= runtime and (self.opset is None or self.opset >= opset)
        )

    def opset_for(self, widths: set[int]) -> int:
        """The opset to write for palettes of these widths."""
        stored = set() if self.decode == "packed" else widths & set(self.narrow)
        needed = [_NARROW[bits][1] for bits in stored]
        return self.opset or max([OLDEST_OPSET, *needed])
