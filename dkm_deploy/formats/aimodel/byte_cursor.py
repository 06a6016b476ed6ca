"""Read MLIR bytecode byte by byte: numbers, flags, names; never past the end.

The encoding is that of https://mlir.llvm.org/docs/BytecodeFormat/.
"""

from __future__ import annotations

from dataclasses import dataclass


class DamagedError(ValueError):
    """The bytes are not the bytecode they should be."""


@dataclass
class Cursor:
    """A place in ``data``, up to ``end``."""

    data: memoryview
    place: int
    end: int

    def again(self) -> Cursor:
        """Another cursor at the same place."""
        return Cursor(self.data, self.place, self.end)

    @property
    def remaining(self) -> int:
        """Bytes up to the end."""
        return self.end - self.place

    def take(self, count: int) -> memoryview:
        """The next ``count`` bytes."""
        if not 0 <= count <= self.remaining:
            raise DamagedError(
                f"byte {self.place}: {count} bytes are needed, {self.remaining} left"
            )
        self.place += count
        return self.data[self.place - count : self.place]

    def part(self, count: int) -> Cursor:
        """A cursor over the next ``count`` bytes, which this one skips."""
        start = self.place
        self.take(count)
        return Cursor(self.data, start, self.place)

    def byte(self) -> int:
        """One byte."""
        return self.take(1)[0]

    def number(self) -> int:
        """An unsigned number: zeros below the lowest set bit of the first byte count the others."""
        first = self.byte()
        if first & 1:
            return first >> 1
        if first == 0:
            return int.from_bytes(self.take(8), "little")
        more = (first & -first).bit_length() - 1
        rest = int.from_bytes(self.take(more), "little")
        return (rest << 8 | first) >> (more + 1)

    def flagged_number(self) -> tuple[int, bool]:
        """A number and the flag in its lowest bit."""
        value = self.number()
        return value >> 1, bool(value & 1)

    def numbers(self) -> list[int]:
        """A count and as many numbers; none takes less than a byte."""
        count = self.number()
        if count > self.remaining:
            raise DamagedError(f"byte {self.place}: {count} numbers in {self.remaining} bytes")
        return [self.number() for _ in range(count)]

    def text(self) -> str:
        """Bytes up to a zero."""
        stop = bytes(self.data[self.place : self.end]).find(0)
        if stop < 0:
            raise DamagedError(f"byte {self.place}: a name is cut short")
        found = bytes(self.take(stop + 1))[:-1]
        return decode_text(found)

    def align(self, to: int) -> int:
        """Skip to the next multiple of ``to`` in the file; how many bytes that were."""
        if to < 1 or to & (to - 1):
            raise DamagedError(f"byte {self.place}: alignment {to} is not a power of two")
        skipped = -self.place % to
        self.take(skipped)
        return skipped


def decode_text(text: bytes) -> str:
    """UTF-8 as a string."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DamagedError(f"a name is not UTF-8: {error}") from error
