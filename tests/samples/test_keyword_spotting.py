"""The keyword spotter in its small setting."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "samples" / "keyword-spotting" / "keyword_spotting.py"


@pytest.mark.slow
def test_it_learns_loses_little_and_its_files_pass(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--small"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *rows, verdict = done.stdout.splitlines()
    assert verdict == "passed"
    found = [re.fullmatch(r"(.*): (.*) % right, (.*) bytes", row).groups() for row in rows]
    names = ["original (fp32)", "frozen (hard)", "keywords.onnx", "keywords.mlpackage"]
    assert [name for name, _, _ in found] == names
    original, *others = (float(right) for _, right, _ in found)
    assert original > 70
    assert min(others) > original - 10
    assert (tmp_path / "keyword-spotting" / "report.html").is_file()


def test_it_is_as_short_as_promised():
    assert len(SCRIPT.read_text().splitlines()) < 120
