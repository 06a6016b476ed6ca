"""What becomes of an error, by its kind; nothing is read or run."""

from __future__ import annotations

from pathlib import Path

import pytest

import dkm_deploy as dkm
from dkm_deploy.errors import MissingFileError
from dkm_deploy.validation.check import Check
from dkm_deploy.validation.report import Model
from dkm_deploy.validation.row_errors import each_row, error_line, further_row

PATHS = [Path("a/bad.onnx"), Path("a/good.onnx")]


def _make(*errors):
    """Rows of paths; the first raise an error each."""
    left = list(errors)

    def make(path):
        if left:
            raise left.pop(0)
        return Model(name=path.name)

    return make


@pytest.mark.parametrize(
    ("error", "reason"),
    [(dkm.DkmError("no  file"), "no file"), (KeyError("row"), "KeyError: 'row'")],
)
def test_a_file_that_cannot_be_read_misses_the_check(error, reason):
    bad = Model(name="bad.onnx", path=str(PATHS[0]), checks=(Check("palettes", "failed", reason),))
    assert each_row(PATHS, _make(error), "palettes") == [bad, Model(name="good.onnx")]
    assert error_line(error) == reason


def test_where_none_can_be_read_the_first_error_is_raised():
    first = MissingFileError("gone")
    with pytest.raises(MissingFileError) as caught:
        each_row(PATHS, _make(first, KeyError("row")), "palettes")
    assert caught.value is first
    error = KeyError("row")
    with pytest.raises(dkm.DkmError) as caught:
        each_row(PATHS, _make(error, first), "palettes")
    assert str(caught.value) == f"{PATHS[0]} cannot be checked: KeyError: 'row'"
    assert caught.value.__cause__ is error


def test_without_files_there_are_no_rows():
    assert each_row([], _make(), "palettes") == []
    assert each_row(PATHS, _make(), "palettes") == [Model(name=path.name) for path in PATHS]


def test_a_further_model_that_cannot_be_compared_is_a_row():
    def fail():
        raise dkm.DkmError("it does not run")

    found = further_row("small", fail)
    assert found == Model(name="small", checks=(Check("parity", "skipped", "it does not run"),))
    assert further_row("small", lambda: Model(name="other")) == Model(name="other")
