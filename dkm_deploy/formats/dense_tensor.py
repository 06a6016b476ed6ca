"""A tensor of a converted file that no palette is decoded from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray


@dataclass(frozen=True)
class DenseTensor:
    """A dense tensor in a file: a weight, or a constant of the program.

    Attributes:
        name: as the file has it, without what says how it is stored; empty where it has none.
        size_bytes: of its values in the file.
        read: its values, read when asked for: a file may be larger than the memory. Raises
            DkmError if they cannot be read.
    """

    name: str
    size_bytes: int
    read: Callable[[], NDArray[Any]]


@runtime_checkable
class DenseReader(Protocol):
    """A reader that tells the dense tensors of a file too."""

    def read_dense(self, path: Path) -> Iterator[DenseTensor]:
        """The floating-point tensors of a file that are no part of a palette, one at a time.

        Names are the qualified parameter names where the file has them. Raises DkmError if it is
        damaged.
        """
        ...
