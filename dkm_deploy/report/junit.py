"""The JUnit view: a test suite for each file, a test case for each check, for CI to show.

The elements and attributes are those that Jenkins' JUnit schema has, which other readers share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from dkm_deploy.errors import printable
from dkm_deploy.report import summary
from dkm_deploy.validation.check import Status

_NAME = "dkm-deploy"
_COUNTS = ("tests", "failures", "errors", "skipped")


def junit(report: Mapping[str, Any]) -> str:
    """The checks of a report as JUnit XML.

    A failed check is a failure; a skipped one is skipped or, where the report lacks it, a failure
    too. A report that passed nothing for want of checks has a failure of its
    own, so that no report is green that did not pass.

    Args:
        report: ``Report.to_dict()``, or the same read from a report's JSON.
    """
    suites = [_suite(model, report) for model in summary.files(report)]
    if not report["passed"] and all(suite.find(".//failure") is None for suite in suites):
        suites.append(_lone("failure", summary.headline(report)))
    return _document(suites)


def junit_error(reason: str) -> str:
    """JUnit XML of a validation that could not be done: one error."""
    return _document([_lone("error", reason)])


def _suite(model: Mapping[str, Any], report: Mapping[str, Any]) -> Element:
    suite = Element("testsuite", name=printable(model["path"]))
    for check in model["checks"]:
        case = _case(suite, check["name"], model["name"])
        told = {"message": printable(check["reason"])}
        if check["status"] == Status.PASSED:
            SubElement(case, "system-out").text = told["message"]
        elif check["status"] == Status.FAILED or summary.lacks_check(report, check):
            SubElement(case, "failure", told, type=check["status"]).text = told["message"]
        else:
            SubElement(case, "skipped", told)
    return suite


def _lone(kind: str, reason: str) -> Element:
    """A suite of one case, which went wrong."""
    suite = Element("testsuite", name=_NAME)
    told = printable(reason)
    SubElement(_case(suite, "validate", _NAME), kind, message=told, type=kind).text = told
    return suite


def _case(suite: Element, name: str, file: str) -> Element:
    """A further case; a check that is made twice, such as of two sizes, is numbered."""
    before = sum(case.get("name", "").split(" ")[0] == name for case in suite)
    shown = f"{name} {before + 1}" if before else name
    return SubElement(suite, "testcase", name=shown, classname=printable(file))


def _document(suites: list[Element]) -> str:
    top = Element("testsuites", name=_NAME)
    for suite in suites:
        for key, count in _counts(suite).items():
            suite.set(key, str(count))
        top.append(suite)
    for key in _COUNTS[:3]:  # the schema has no "skipped" here
        top.set(key, str(sum(int(suite.get(key, "0")) for suite in suites)))
    indent(top)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(top, "unicode") + "\n"


def _counts(suite: Element) -> dict[str, int]:
    found = {"tests": len(suite)}
    for key, tag in zip(_COUNTS[1:], ("failure", "error", "skipped"), strict=True):
        found[key] = sum(case.find(tag) is not None for case in suite)
    return found
