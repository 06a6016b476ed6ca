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

from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated

from dkm_deploy._support.argument_checks import record, short
from dkm_deploy._support.byte_sizes import bytes_of, parse_share
from dkm_deploy._support.records import WrittenAs
from dkm_deploy._support.toml_file import read_toml
from dkm_deploy.errors import DkmError
from dkm_deploy.validation.check import Check, Status

_Bytes = Annotated[int, WrittenAs(bytes_of, "bytes above 0: 3400000, '3.4MB' or '3.2MiB'")]
_Share = Annotated[
    float, WrittenAs(lambda told: parse_share(str(told)), "a share of 0 to 1: 0.01 or '1%'")
]


@dataclass(frozen=True)
class Allowance:
    """What the files of one pattern may have.

    Attributes:
        match: pattern on the end of a path, part by part, as ``pathlib.PurePath.match`` takes it.
        max_bytes: most bytes; None is no limit.
        base_bytes: what a growth is measured from.
        max_growth: most bytes over ``base_bytes``, as a share of them.

    Raises:
        DkmError: the pattern is empty, or there is nothing that it limits.
    """

    match: str
    max_bytes: _Bytes | None = None
    base_bytes: _Bytes | None = None
    max_growth: _Share | None = None

    def __post_init__(self) -> None:
        if not PurePath(self.match).parts:
            raise DkmError(f"match is {self.match!r}; it must be a pattern, such as '*.onnx'")
        if (self.base_bytes is None) != (self.max_growth is None):
            raise DkmError("base_bytes and max_growth go together")
        if self.max_bytes is None and self.base_bytes is None:
            raise DkmError("give max_bytes, or base_bytes with max_growth")


@dataclass(frozen=True)
class Budget:
    """Size budget of files; the first pattern that matches a path decides.

    Attributes:
        files: allowances: a pattern and the most bytes, or the most growth over a base.

    Raises:
        DkmError: there is no allowance, or an argument has another type.

    Example:
        >>> from pathlib import Path
        >>> text = 'files = [{match = "*.onnx", max_bytes = "3.4MB"}]'
        >>> _ = Path("budget.toml").write_text(text)
        >>> dkm.Budget.load("budget.toml").files[0].max_bytes
        3400000
    """

    files: tuple[Allowance, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.files, (tuple, list)):
            raise DkmError(
                f"files is {short(self.files)}; give allowances, as dkm.Budget.load reads them, or "
                "limits=dkm.Limits(max_bytes=..) in place of a budget"
            )
        for one in self.files:
            record("files", one, Allowance)
        if not self.files:
            raise DkmError("it needs at least one [[files]] with a match")

    @classmethod
    def load(cls, path: str | Path) -> Budget:
        """Read a budget from a TOML file.

        Args:
            path: the file.

        Returns:
            The budget.

        Raises:
            DkmError: the file is missing, is not TOML, or has an unknown key or a bad value.

        Example:
            >>> from pathlib import Path
            >>> text = 'files = [{match = "*", base_bytes = 1000, max_growth = "1%"}]'
            >>> _ = Path("budget.toml").write_text(text)
            >>> dkm.Budget.load("budget.toml").files[0].max_growth
            0.01
        """
        return read_toml(path, cls, "budget")


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
