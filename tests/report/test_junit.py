"""JUnit XML: what CI reads of a report."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from dkm_deploy.report.junit import junit, junit_error

# What Jenkins' schema allows, as far as these files go: attributes, and children.
ATTRIBUTES = {
    "testsuites": {"name", "time", "tests", "failures", "errors"},
    "testsuite": {"name", "tests", "failures", "errors", "time", "skipped"}
    | {"timestamp", "hostname", "id", "package", "file", "log", "url", "version", "group"},
    "testcase": {"name", "time", "classname", "group"},
    "failure": {"type", "message"},
    "error": {"type", "message"},
    "skipped": {"type", "message"},
    "system-out": set(),
}
CHILDREN = {
    "testsuites": {"testsuite"},
    "testsuite": {"testcase"},
    "testcase": {"failure", "error", "skipped", "system-out"},
}


def read(text):
    """The tree, once every element is known to be as the schema has it."""
    root = ET.fromstring(text.encode())  # noqa: S314  # our own text
    for element in root.iter():
        assert set(element.attrib) <= ATTRIBUTES[element.tag]
        assert {child.tag for child in element} <= CHILDREN.get(element.tag, set())
        if element.tag in ("testsuite", "testcase"):
            assert element.get("name")
        if element.tag == "testcase":
            assert len(element) == 1  # it ended in one way
    for suite in root:
        for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.get(key)) == len(suite.findall(f"testcase/{tag}"))
        assert int(suite.get("tests")) == len(suite)
        names = [(case.get("classname"), case.get("name")) for case in suite]
        assert len(set(names)) == len(names)
    for key in ("tests", "failures", "errors"):
        assert int(root.get(key)) == sum(int(suite.get(key)) for suite in root)
    return root


@pytest.mark.parametrize("fixture", ["demo", "failed", "unchecked"])
def test_every_report_is_valid(fixture, request):
    text = junit(request.getfixturevalue(fixture))
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>')
    read(text)


def test_a_suite_for_each_file_and_a_case_for_each_check(demo):
    root = read(junit(demo))
    assert [suite.get("name") for suite in root] == ["out/model.onnx", "out/model.mlpackage"]
    first = root[0]
    assert [case.get("name") for case in first] == [
        "palettes", "parity", "metric", "agreement", "size",
    ]  # fmt: skip
    assert first[1].find("system-out").text == "logits: relative error 2.22e-07, limit 1.00e-04"
    assert (root.get("failures"), root.get("errors")) == ("0", "0")


def test_failed_is_a_failure_and_skipped_is_skipped(failed):
    root = read(junit(failed))
    assert [suite.get("failures") for suite in root] == ["3", "0"]
    assert root[0][2].find("failure").get("message") == "1,238,667 bytes, limit 1,000,000"
    skipped = root[1][1].find("skipped")
    assert skipped.get("message") == "model.aimodel: no runtime here runs '.aimodel' files"


def test_what_is_required_and_did_not_run_is_a_failure(failed):
    failed["required"] = True
    root = read(junit(failed))
    assert root[1].get("skipped") == "0"
    assert root[1][1].find("failure").get("type") == "skipped"
    failed["required"] = ["palettes"]
    assert read(junit(failed))[1].get("skipped") == "1"
    failed["required"] = ["parity"]
    assert read(junit(failed))[1].get("skipped") == "0"


def test_names_from_files_are_text_only(failed):
    root = read(junit(failed))
    assert root[0][0].get("classname") == '<script>alert("1")</script>[red]\\x1b[2J &amp;.onnx'


def test_the_same_check_twice_is_numbered(demo):
    demo["models"][4]["checks"] += 2 * demo["models"][4]["checks"][-1:]
    names = [case.get("name") for case in read(junit(demo))[0]]
    assert names[-3:] == ["size", "size 2", "size 3"]


def test_nothing_checked_is_a_failure(unchecked):
    root = read(junit(unchecked))
    assert root[0][0].find("failure").get("message") == "Nothing was checked"


def test_only_checks_that_did_not_run_are_a_failure(demo):
    for model in demo["models"]:
        for check in model["checks"]:
            check["status"] = "skipped"
    root = read(junit(demo | {"passed": False}))
    assert [suite.get("failures") for suite in root] == ["0", "0", "1"]


def test_what_could_not_be_done_is_an_error():
    root = read(junit_error("bad.onnx: not a model\x00 at <all>"))
    assert (root.get("errors"), root.get("failures")) == ("1", "0")
    assert root[0][0].find("error").get("message") == "bad.onnx: not a model\\x00 at <all>"


def test_an_error_is_told_where_readers_look_for_it():
    assert junit_error("bad.onnx: not a model").splitlines()[1:] == [
        '<testsuites name="dkm-deploy" tests="1" failures="0" errors="1">',
        '  <testsuite name="dkm-deploy" tests="1" failures="0" errors="1" skipped="0">',
        '    <testcase name="validate" classname="dkm-deploy">',
        '      <error message="bad.onnx: not a model" type="error">bad.onnx: not a model</error>',
        "    </testcase>",
        "  </testsuite>",
        "</testsuites>",
    ]
