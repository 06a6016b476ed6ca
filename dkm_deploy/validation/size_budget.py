"""A size budget: how many bytes each file may have, kept beside the code and changed on purpose.

    [[files]]
    match = "*.onnx"          # fits the end of a path, part by part
    max_bytes = "3.4MB"

    [[files]]
    match = "ios/*.mlpackage"
    base_bytes = 3_512_004    # what was agreed on last
    max_growth = "1%"

The first entry that fits a path decides.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path, PurePath
from typing import Any

from dkm_deploy._support.argument_checks import record, short
from dkm_deploy._support.byte_sizes import parse_bytes, parse_share
from dkm_deploy._support.toml_file import read_toml
from dkm_deploy.errors import DkmError
from dkm_deploy.validation.check import Check, Status


@dataclass(frozen=True)
class Allowance:
    """What the files of one pattern may have.

    Attributes:
        match: pattern on the end of a path, part by part, as ``pathlib.PurePath.match`` takes it.
        max_bytes: most bytes; None is no limit.
        base_bytes: what a growth is measured from.
        max_growth: most bytes over ``base_bytes``, as a share of them.
    """

    match: str
    max_bytes: int | None = None
    base_bytes: int | None = None
    max_growth: float | None = None


@dataclass(frozen=True)
class Budget:
    """Allowances, the first that fits a path decides."""

    files: tuple[Allowance, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.files, (tuple, list)):
            raise DkmError(f"files is {short(self.files)}; give allowances")
        for one in self.files:
            record("files", one, Allowance)

    @classmethod
    def load(cls, path: str | Path) -> Budget:
        """Read a budget from a TOML file.

        Raises:
            DkmError: the file is missing, is not TOML, or has an unknown key or a bad value.
        """
        return read_toml(path, "budget", _budget)


def budget_checks(path: Path, size: int, budget: Budget | None) -> list[Check]:
    """Whether a file of ``size`` bytes keeps to the budget; nothing without one."""
    if budget is None:
        return []
    allowed = next((a for a in budget.files if PurePath(path).match(a.match)), None)
    if allowed is None:
        return [Check("budget", Status.SKIPPED, f"no pattern of the budget fits {path}")]
    checks = []
    if allowed.max_bytes is not None:
        reason = f"{size:,} bytes, budget {allowed.max_bytes:,} for {allowed.match!r}"
        checks.append(_check(size <= allowed.max_bytes, reason))
    if allowed.base_bytes is not None and allowed.max_growth is not None:
        growth, most = size - allowed.base_bytes, allowed.max_growth * allowed.base_bytes
        reason = f"{size:,} bytes, {growth / allowed.base_bytes:+.2%} of the agreed "
        reason += f"{allowed.base_bytes:,}, limit {allowed.max_growth:+.2%} for {allowed.match!r}"
        checks.append(_check(growth <= most, reason))
    return checks


def _check(kept: bool, reason: str) -> Check:
    return Check("budget", Status.PASSED if kept else Status.FAILED, reason)


def _budget(table: dict[str, Any]) -> Budget:
    _refuse_unknown(table, ["files"], "budget")
    entries = table.get("files")
    if not isinstance(entries, list) or not entries:
        raise DkmError("it needs at least one [[files]] with a match")
    return Budget(tuple(_allowance(entry, f"files[{i}]") for i, entry in enumerate(entries)))


def _allowance(entry: Any, where: str) -> Allowance:
    match = entry.get("match") if isinstance(entry, dict) else None
    if not isinstance(match, str) or not PurePath(match).parts:
        raise DkmError(f"{where}: it needs a match, such as match = '*.onnx'")
    _refuse_unknown(entry, [f.name for f in fields(Allowance)], where)
    try:
        found = Allowance(
            match=match,
            max_bytes=_bytes(entry, "max_bytes"),
            base_bytes=_bytes(entry, "base_bytes"),
            max_growth=_growth(entry.get("max_growth")),
        )
    except DkmError as error:
        raise DkmError(f"{where}: {error}") from error
    if (found.base_bytes is None) != (found.max_growth is None):
        raise DkmError(f"{where}: base_bytes and max_growth go together")
    if found.max_bytes is None and found.base_bytes is None:
        raise DkmError(f"{where}: give max_bytes, or base_bytes with max_growth")
    return found


def _refuse_unknown(table: dict[str, Any], known: list[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise DkmError(f"{where}: unknown key {key!r}; known keys are {', '.join(known)}")


def _bytes(entry: dict[str, Any], key: str) -> int | None:
    """Bytes from a whole number, or as people write them."""
    value = entry.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise DkmError(f"{key} is {value!r}; write it as '3.4MB', '3.2MiB' or in bytes")
    size = parse_bytes(str(value))
    if not size:
        raise DkmError(f"{key} is {value!r}; it must be above 0")
    return size


def _growth(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise DkmError(f"max_growth is {value!r}; write it as '1%' or 0.01")
    return parse_share(str(value))
