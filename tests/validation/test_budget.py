"""Size budgets: patterns, growth, and what a budget file may not hold."""

from __future__ import annotations

from pathlib import Path

import pytest

import dkm_deploy as dkm
from dkm_deploy.validation.budget import Allowance, Budget, budget_checks
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
        ("out/model.onnx", 5_001, ["missed"]),
        ("/home/me/ios/a.mlpackage", 101_000, ["passed", "passed"]),
        ("ios/a.mlpackage", 101_001, ["passed", "missed"]),
        ("ios/a.mlpackage", 1_000_001, ["missed", "missed"]),
        ("android/a.mlpackage", 1, ["not run"]),
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("files = 3", "needs at least one"),
        ("", "needs at least one"),
        ("files = [3]", r"files\[0\]: it needs a match"),
        ("[[files]]\nmax_bytes = 3", r"files\[0\]: it needs a match"),
        ("[[files]]\nmatch = '.'\nmax_bytes = 3", r"files\[0\]: it needs a match"),
        ("[[files]]\nmatch = '*'", "give max_bytes"),
        ("[[files]]\nmatch = '*'\nmax_byte = 3", "unknown key 'max_byte'; known keys are match,"),
        ("most = 3\n[[files]]\nmatch = '*'\nmax_bytes = 3", "unknown key 'most'"),
        ("[[files]]\nmatch = '*'\nmax_bytes = '3 apples'", "'3 apples': write it as 3.4MB"),
        ("[[files]]\nmatch = '*'\nmax_bytes = true", "max_bytes is True"),
        ("[[files]]\nmatch = '*'\nmax_bytes = -3", "write it as 3.4MB"),
        ("[[files]]\nmatch = '*'\nmax_bytes = 0", "must be above 0"),
        ("[[files]]\nmatch = '*'\nmax_bytes = 3.5", "max_bytes is 3.5"),
        ("[[files]]\nmatch = '*'\nbase_bytes = 3", "base_bytes and max_growth go together"),
        ("[[files]]\nmatch = '*'\nmax_growth = '1%'", "base_bytes and max_growth go together"),
        ("[[files]]\nmatch = '*'\nbase_bytes = 3\nmax_growth = '-1%'", "share '-1%': write it"),
        ("[[files]]\nmatch = '*'\nbase_bytes = 3\nmax_growth = [1]", r"max_growth is \[1\]"),
        ("[[files", "not a TOML file"),
        ("a = " + "[" * 5000, "not a TOML file"),
        (f"a = {'1' * 5000}", "not a TOML file"),
    ],
)
def test_what_a_budget_may_not_hold(tmp_path, text, message):
    with pytest.raises(dkm.DkmError, match=message) as caught:
        load(tmp_path, text)
    assert "budget.toml: " in str(caught.value)


def test_a_missing_budget(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.toml: no such budget file"):
        Budget.load(tmp_path / "none.toml")
