"""pytest's part: the evaluator for Core ML, a sample of the tests, a time limit, results as lines.

Loaded with ``-p`` by ``__main__``, in a process of its own.
"""

from __future__ import annotations

import faulthandler
import os

os.environ["PYMIL_TEST_TARGETS"] = "mlprogram"  # coremltools' tests read both when imported
os.environ["INCLUDE_MIL_FP32_UNIT_TESTS"] = "1"

import re
import signal
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.conformance import core_ml
from benchmarks.conformance.parts import MORE, package
from benchmarks.conformance.results import Result, append, read
from benchmarks.conformance.sample import sampled

_MOST_CHARACTERS = 600  # of a reason


class _Timeout(BaseException):
    """Not to be caught by a test."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """What ``__main__`` says."""
    group = parser.getgroup("conformance")
    group.addoption("--results", type=Path)
    group.addoption("--per-function", type=int)
    group.addoption("--seed", type=int)
    group.addoption("--numerics", default="declared")
    group.addoption("--most", type=int, help="tests in this process")
    group.addoption("--timeout-s", type=int, help="of a test")
    group.addoption("--only-open", action="store_true", help="tests that began and did not end")


def pytest_configure(config: pytest.Config) -> None:
    """Make a plugin of the options, before a test is imported."""
    core_ml.install(config.option.numerics)
    config.pluginmanager.register(_Conformance(config))


class _Conformance:
    def __init__(self, config: pytest.Config) -> None:
        self._option = config.option
        self._names: dict[str, str] = {}
        self._left = False
        self._start = 0

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Keep the sample's tests that are not known yet."""
        functions: dict[str, dict[str, pytest.Item]] = defaultdict(dict)
        for item in items:
            function = f"{_relative(item.path)}::{item.nodeid.partition('::')[2].partition('[')[0]}"
            known = functions[function]
            known[f"{function}#{len(known)}"] = item
        outcomes = {n: result.outcome for n, result in read(self._option.results).items()}
        begun = {n for n, outcome in outcomes.items() if outcome == "started"}
        kept = []
        for tests in functions.values():
            of_programs = {n: _parameters(i) for n, i in tests.items() if _is_of_programs(i)}
            chosen = set() if self._option.only_open else self._sampled(of_programs)
            new = chosen - outcomes.keys()
            kept += [(n, item) for n, item in tests.items() if n in new or n in begun]
        self._left = len(kept) > self._option.most
        kept = kept[: self._option.most]
        self._names = {item.nodeid: name for name, item in kept}
        wanted = {id(item) for _, item in kept}
        config.hook.pytest_deselected(items=[i for i in items if id(i) not in wanted])
        items[:] = [item for _, item in kept]

    def _sampled(self, tests: dict[str, str]) -> set[str]:
        return sampled(tests, self._option.per_function, self._option.seed)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Tell of files that cannot be imported."""
        if report.failed:
            reason = _line(str(report.longrepr).strip().rpartition("\n")[2])
            self._append(Result(report.nodeid, "", "uncollected", reason))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Note that a test begins, since it may take the process with it, and end it in time."""
        self._append(Result(self._names[item.nodeid], _parameters(item), "started"))
        self._start = core_ml.predictions
        limit = self._option.timeout_s
        signal.signal(signal.SIGALRM, _raise_timeout)
        signal.alarm(limit)
        faulthandler.dump_traceback_later(2 * limit, exit=True)
        try:
            return (yield)
        finally:
            signal.alarm(0)
            faulthandler.cancel_dump_traceback_later()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Write the result of a test."""
        report = yield
        if report.when == "call" or (report.when == "setup" and not report.passed):
            error = call.excinfo
            timed_out = error is not None and error.errisinstance(_Timeout)
            self._append(
                Result(
                    self._names[item.nodeid],
                    _parameters(item),
                    "timeout" if timed_out else report.outcome,
                    "" if report.passed else _reason(report, error),
                    core_ml.predictions - self._start,
                    round(report.duration, 2),
                )
            )
        return report

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Say whether tests are left."""
        session.exitstatus = MORE if self._left else 0

    def _append(self, result: Result) -> None:
        append(self._option.results, [result])


def _raise_timeout(*_: object) -> None:
    raise _Timeout


def _relative(path: Path) -> str:
    """In coremltools' package, as far as it is there."""
    return path.relative_to(package()).as_posix() if path.is_relative_to(package()) else str(path)


def _parameters(item: pytest.Item) -> str:
    """What stands between the brackets of a test's name, without places in memory."""
    return re.sub(r"0x[0-9a-f]+", "0x", item.name.partition("[")[2].removesuffix("]"))


def _is_of_programs(item: pytest.Item) -> bool:
    """Whether a test makes ML programs: neither older neural networks nor what needs ExecuTorch."""
    return not re.search("neuralnetwork|EXECUTORCH", _parameters(item))


def _reason(report: pytest.TestReport, error: pytest.ExceptionInfo[BaseException] | None) -> str:
    if error is None or report.skipped:
        where_and_why = report.longrepr
        return _line(str(where_and_why[2] if isinstance(where_and_why, tuple) else where_and_why))
    theirs = [e for e in error.traceback if Path(e.path).is_relative_to(package())]
    place = f"{_relative(Path(theirs[-1].path))}:{theirs[-1].lineno + 1}" if theirs else "pytest"
    return _line(f"{error.typename}: {error.value} (at {place})")


def _line(text: str) -> str:
    words = " ".join(text.split())
    half = _MOST_CHARACTERS // 2
    return words if len(words) <= 2 * half else f"{words[:half]} .. {words[-half:]}"
