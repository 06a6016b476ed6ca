"""The list of operations by target is what its command prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("coreai_torch")

from benchmarks import operations

_PAGE = Path("docs/operations.md")


def test_the_page_is_what_the_command_prints_with_the_versions_that_it_names():
    written = _PAGE.read_text("utf-8")
    if operations.installed() not in " ".join(written.split()):
        pytest.skip("docs/operations.md was written with other versions")
    # In a process of its own: other tests load what registers more.
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.operations"]
    page = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert page == written, "run python -m benchmarks.operations > docs/operations.md"


def test_overloads_are_named_where_they_differ():
    same = {"Tensor": ("lowered",) * 3, "Scalar": ("lowered", "refused", "lowered")}
    assert operations.merged(same) == (
        "lowered",
        "lowered: `Tensor`; refused: `Scalar`",
        "lowered",
    )
