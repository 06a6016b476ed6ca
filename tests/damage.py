"""Damage to real files, the same in every run, and what may come of reading them.

Bytes are damaged blindly; protobuf messages and JSON values by field, so that what comes out still
parses and the damage gets past the parser. Every reader must then give a result or one clear line.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import dkm_deploy as dkm

SECONDS = 20
MEGABYTES = 400
NUMBERS = (0, 1, 2, 3, 7, 8, 64, 255, 256, 2**15, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -1, -8)
ODD = (*NUMBERS, None, True, 1.5, float("inf"), float("nan"), 10**30, "", "x", "../x", "a\0b")
ODD_JSON = (*ODD, [], {}, [[]], {"x": 1}, ["x"], [1, 2], "/etc/passwd", "x" * 3000, "\u2028")


def damaged(data: bytes, seed: int) -> bytes:
    """``data`` with one to four changes; never empty."""
    random = np.random.default_rng(seed)
    changed = bytearray(data)
    for _ in range(random.integers(1, 5)):
        kind = _BYTES[random.integers(len(_BYTES))]
        kind(random, changed)
        changed = changed or bytearray(1)
    return bytes(changed)


def _flip(random: np.random.Generator, data: bytearray) -> None:
    data[_place(random, data)] ^= 1 << int(random.integers(8))


def _set(random: np.random.Generator, data: bytearray) -> None:
    data[_place(random, data)] = int(random.choice([0, 1, 2, 0x7F, 0x80, 0xFF]))


def _number(random: np.random.Generator, data: bytearray) -> None:
    """A length or an offset: 4 or 8 bytes, or the varint of protobuf."""
    number, start = int(random.choice(np.array(NUMBERS, object))), _place(random, data)
    width = int(random.choice([4, 8]))
    forged = (number % (1 << 8 * width)).to_bytes(width, "little")
    if random.integers(2):
        forged = _varint(number % (1 << 64))
    data[start : start + len(forged)] = forged


def _varint(number: int) -> bytes:
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def _splice(random: np.random.Generator, data: bytearray) -> None:
    start, source = _place(random, data), _place(random, data)
    size = int(random.integers(1, 64))
    data[start : start + size] = data[source : source + size]


def _double(random: np.random.Generator, data: bytearray) -> None:
    start = _place(random, data)
    data[start:start] = data[start : start + int(random.integers(1, 64))]


def _drop(random: np.random.Generator, data: bytearray) -> None:
    start = _place(random, data)
    del data[start : start + int(random.integers(1, 64))]


def _cut(random: np.random.Generator, data: bytearray) -> None:
    del data[_place(random, data) :]


def _place(random: np.random.Generator, data: bytearray) -> int:
    """Anywhere, or near the start, where headers are."""
    return int(random.integers(len(data) if random.integers(2) else min(len(data), 256)))


_BYTES = (_flip, _flip, _set, _number, _number, _splice, _double, _drop, _cut)


def damaged_message(message: Any, seed: int) -> Any:
    """A copy of a protobuf message with one to three fields changed, doubled or dropped."""
    random = np.random.default_rng(seed)
    changed = type(message)()
    changed.CopyFrom(message)
    for _ in range(random.integers(1, 4)):
        places = list(_fields(changed))
        if not places:
            break
        part, field = places[random.integers(len(places))]
        with contextlib.suppress(ValueError, TypeError):  # what the field's type cannot hold
            _damage_field(random, part, field)
    return changed


def _fields(message: Any) -> Iterator[tuple[Any, Any]]:
    for field, value in message.ListFields():
        yield message, field
        if field.type == field.TYPE_MESSAGE:
            for part in _messages(field, value):
                yield from _fields(part)


def _messages(field: Any, value: Any) -> list[Any]:
    if _is_map(field):
        return [part for part in value.values() if hasattr(part, "ListFields")]
    return list(value) if field.is_repeated else [value]


def _is_map(field: Any) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def _damage_field(random: np.random.Generator, part: Any, field: Any) -> None:
    value = getattr(part, field.name)
    if _is_map(field):
        del value[sorted(value)[random.integers(len(value))]]
    elif field.is_repeated:
        _damage_repeated(random, field, value)
    elif field.type == field.TYPE_MESSAGE or random.integers(8) == 0:
        part.ClearField(field.name)
    else:
        setattr(part, field.name, _other(random, field, value))


def _damage_repeated(random: np.random.Generator, field: Any, value: Any) -> None:
    place, other, kind = (int(random.integers(n)) for n in (len(value), len(value), 4))
    if kind == 0:
        del value[place]
    elif kind == 1:
        value.extend([value[place]])
    elif field.type == field.TYPE_MESSAGE:
        value[place].CopyFrom(value[other])
    elif kind == 2:
        value[place] = value[other]
    else:
        value[place] = _other(random, field, value[place])


def _other(random: np.random.Generator, field: Any, value: Any) -> Any:
    """A value of a scalar field's type."""
    if isinstance(value, bytes):
        return damaged(value or b"x", int(random.integers(1 << 31)))
    if isinstance(value, str):
        if value.startswith(("{", "[")):
            return json.dumps(damaged_json(json.loads(value), int(random.integers(1 << 31))))
        return [f"{value}x", "", "../x", "x" * 3000, "a\nb"][random.integers(5)]
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return [0.0, -1.0, 1e30, float("inf"), float("nan")][random.integers(5)]
    near = [value + 1, value - 1, value * 2]
    choices = near if random.integers(2) else NUMBERS
    return choices[random.integers(len(choices))]


def damaged_json(value: Any, seed: int) -> Any:
    """A copy of a JSON value with one to three of its parts replaced, doubled or dropped."""
    random = np.random.default_rng(seed)
    changed = copy.deepcopy(value)
    for _ in range(random.integers(1, 4)):
        holders = list(_holders(changed))
        if not holders:
            break
        holder = holders[random.integers(len(holders))]
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = keys[random.integers(len(keys))]
        kind = int(random.integers(6))
        if kind == 0:
            del holder[key]
        elif kind == 1:
            holder[key] = copy.deepcopy(holder[keys[random.integers(len(keys))]])
        elif kind == 2 and isinstance(holder, dict):
            holder[str(ODD_JSON[random.integers(len(ODD_JSON))])] = holder.pop(key)
        else:
            holder[key] = copy.deepcopy(ODD_JSON[random.integers(len(ODD_JSON))])
    return changed


def _holders(value: Any) -> Iterator[Any]:
    """All lists and objects that hold something."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if parts:
        yield value
    for part in list(parts):
        yield from _holders(part)


def refusal(act: Callable[[], object]) -> str | None:
    """The one line that an act refuses with; None if it gives a result. Nothing else may come."""
    try:
        act()
    except dkm.DkmError as error:
        line = str(error)
        assert line.strip()
        assert "\n" not in line
        return line
    return None


@contextlib.contextmanager
def harmless(folder: Path) -> Iterator[None]:
    """What runs inside may neither hang, nor fill the memory, nor write, nor leave ``folder``."""
    before, peak = _contents(folder), _peak_megabytes()
    previous = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    _opened.clear()
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    outside = [path for path in _opened if _leaves(path, folder)]
    assert not outside, outside
    assert _contents(folder) == before
    assert _peak_megabytes() - peak < MEGABYTES


def _too_long(*_: object) -> None:
    raise TimeoutError(f"not done after {SECONDS} s")


def _contents(folder: Path) -> dict[str, tuple[int, str]]:
    """When each file was changed and what it holds."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in files
    }


def _peak_megabytes() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


_opened: set[str] = set()


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str):
        _opened.add(arguments[0])


sys.addaudithook(_note)


def _leaves(path: str, folder: Path) -> bool:
    """Whether a file beside ``folder`` was opened, the bait; modules may come from anywhere."""
    found = Path(path).resolve()
    return found.is_relative_to(folder.resolve().parent) and not found.is_relative_to(
        folder.resolve()
    )


def overwrite(path: Path, old: bytes, new: bytes) -> None:
    """Write ``new`` over ``old``, which a file, or the files of a folder, hold once."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    holding = [file for file in files if old in file.read_bytes()]
    assert [file.read_bytes().count(old) for file in holding] == [1]
    holding[0].write_bytes(holding[0].read_bytes().replace(old, new))
