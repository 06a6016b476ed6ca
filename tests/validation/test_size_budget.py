"""Size budgets: patterns, growth, and what a budget file may not hold."""

from __future__ import annotations

from pathlib import Path

import pytest

import dkm_deploy as dkm
from dkm_deploy.validation.size_budget import Allowance, Budget, budget_checks
from tests.models import MIXED, images, small_net

BUDGET = """
[[files]]
match = "ios/*.mlpackage"
max_bytes = "1MB"
base_bytes = 100_000
max_growth = "1%"

[[files]]
match = "*.onnx"
max_bytes = 5_000
"""


def load(tmp_path, text):
    (tmp_path / "budget.toml").write_text(text)
    return Budget.load(tmp_path / "budget.toml")


def test_a_budget_is_read_as_it_is_written(tmp_path):
    assert load(tmp_path, BUDGET).files == (
        Allowance("ios/*.mlpackage", 10**6, 100_000, 0.01),
        Allowance("*.onnx", 5_000),
    )


@pytest.mark.parametrize(
    ("path", "size", "statuses"),
    [
        ("model.onnx", 5_000, ["passed"]),
        ("out/model.onnx", 5_001, ["failed"]),
        ("/home/me/ios/a.mlpackage", 101_000, ["passed", "passed"]),
        ("ios/a.mlpackage", 101_001, ["passed", "failed"]),
        ("ios/a.mlpackage", 1_000_001, ["failed", "failed"]),
        ("android/a.mlpackage", 1, ["skipped"]),
    ],
)
def test_the_first_pattern_that_fits_decides(tmp_path, path, size, statuses):
    found = budget_checks(Path(path), size, load(tmp_path, BUDGET))
    assert [check.status for check in found] == statuses
    assert {check.name for check in found} == {"budget"}


def test_growth_is_told(tmp_path):
    found = budget_checks(Path("ios/a.mlpackage"), 102_000, load(tmp_path, BUDGET))
    assert found[1].reason == (
        "102,000 bytes, +2.00% of the agreed 100,000, limit +1.00% for 'ios/*.mlpackage'"
    )
    assert found[0].reason == "102,000 bytes, budget 1,000,000 for 'ios/*.mlpackage'"
    (none,) = budget_checks(Path("m.ort"), 1, load(tmp_path, BUDGET))
    assert none.reason == "no pattern of the budget fits m.ort"
    assert budget_checks(Path("m.ort"), 1, None) == []


def test_a_validation_is_held_to_it(tmp_path):
    frozen = dkm.palettize(small_net(), MIXED)
    path = dkm.convert(frozen, images(1), tmp_path / "model.onnx").path
    for most, passed in ((10**6, True), (10, False)):
        budget = Budget((Allowance("*.onnx", most),))
        report = dkm.validate([path], reference=frozen, inputs=images(2), budget=budget)
        assert bool(report) is passed
        assert [c.name for c in report.files[0].checks] == [
            *("palettes", "dense", "interface", "parity", "budget")
        ]


KNOWN = "match, max_bytes, base_bytes, max_growth"
ANY = "[[files]]\nmatch = '*'\n"
BYTES = "it must be bytes above 0: 3400000, '3.4MB' or '3.2MiB'"
SHARE = "it must be a share of 0 to 1: 0.01 or '1%'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("files = 3", "files is 3; it must be a list"),
        ("", "files is missing; it must be a list"),
        ("files = []", "it needs at least one [[files]] with a match"),
        ("files = [3]", f"files[0] is 3; it must be a mapping with the keys {KNOWN}"),
        ("[[files]]\nmax_bytes = 3", "files[0].match is missing; it must be text"),
        (
            f"{ANY}max_bytes = 3\n[[files]]\nmatch = '.'\nmax_bytes = 3",
            "files[1]: match is '.'; it must be a pattern, such as '*.onnx'",
        ),
        (ANY, "files[0]: give max_bytes, or base_bytes with max_growth"),
        (f"{ANY}max_byte = 3", f"files[0]: unknown key 'max_byte'; known keys are {KNOWN}"),
        (f"most = 3\n{ANY}max_bytes = 3", "unknown key 'most'; known keys are files"),
        (f"{ANY}max_bytes = '3 apples'", f"files[0].max_bytes is '3 apples'; {BYTES}"),
        (f"{ANY}max_bytes = true", f"files[0].max_bytes is True; {BYTES}"),
        (f"{ANY}max_bytes = -3", f"files[0].max_bytes is -3; {BYTES}"),
        (f"{ANY}max_bytes = 0", f"files[0].max_bytes is 0; {BYTES}"),
        (f"{ANY}base_bytes = '0'", f"files[0].base_bytes is '0'; {BYTES}"),
        (f"{ANY}max_bytes = 3.5", f"files[0].max_bytes is 3.5; {BYTES}"),
        (f"{ANY}base_bytes = 3", "files[0]: base_bytes and max_growth go together"),
        (f"{ANY}max_growth = '1%'", "files[0]: base_bytes and max_growth go together"),
        (f"{ANY}max_growth = '-1%'", f"files[0].max_growth is '-1%'; {SHARE}"),
        (f"{ANY}max_growth = [1]", f"files[0].max_growth is [1]; {SHARE}"),
        (f"{ANY}max_growth = true", f"files[0].max_growth is True; {SHARE}"),
    ],
)
def test_what_a_budget_may_not_hold(tmp_path, text, message):
    with pytest.raises(dkm.DkmError) as caught:
        load(tmp_path, text)
    assert str(caught.value) == f"{tmp_path / 'budget.toml'}: {message}"


@pytest.mark.parametrize("text", ["[[files", "a = " + "[" * 5000, f"a = {'1' * 5000}"])
def test_a_budget_that_is_no_toml(tmp_path, text):
    with pytest.raises(dkm.DkmError, match=r"budget\.toml: not a TOML file: "):
        load(tmp_path, text)


@pytest.mark.parametrize("growth", ["0.01", "'1%'", "'0.01'"])
def test_an_allowance_of_growth_alone(tmp_path, growth):
    found = load(tmp_path, f"{ANY}base_bytes = '1KB'\nmax_growth = {growth}")
    assert found == Budget((Allowance("*", None, 1000, 0.01),))
    assert load(tmp_path, f"{ANY}base_bytes = 5\nmax_growth = 1").files[0].max_growth == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (3, "files is 3; give allowances, as dkm.Budget.load reads them, or limits=dkm.Limits("),
        ((3,), "files is 3; give a dkm.Allowance"),
    ],
)
def test_a_budget_is_made_of_allowances(files, message):
    with pytest.raises(dkm.DkmError) as caught:
        Budget(files)
    assert str(caught.value).startswith(message)
    assert Budget([Allowance("*", 3)]).files == [Allowance("*", 3)]


def test_a_missing_budget(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.toml: no such budget file$"):
        Budget.load(tmp_path / "none.toml")
