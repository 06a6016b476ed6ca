"""What the benchmark of PyPI models feeds them, and what it calls the same answer."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from benchmarks.pypi_models.__main__ import general_reason
from benchmarks.pypi_models.case import same_top_1
from benchmarks.pypi_models.file_types import _features, _files
from benchmarks.pypi_models.ocr import _overlap, _same_text
from benchmarks.pypi_models.packages import PACKAGES, folder_of, missing

CONFIG = {"beg_size": 6, "end_size": 4, "block_size": 8, "padding_token": 256}


def test_features_are_the_first_and_last_bytes_without_the_space_around_them():
    assert _features(b"  abc", CONFIG).tolist() == [97, 98, 99, 256, 256, 256, 32, 97, 98, 99]
    long = b"0123456789 \n"
    assert _features(long, CONFIG).tolist() == [*b"012345", *b"6789"]


def test_a_few_files_of_each_kind(tmp_path):
    for number in range(10):
        (tmp_path / f"{number}.txt").write_bytes(bytes(64))
    (tmp_path / "small.md").write_bytes(b"x")
    assert [path.name for path in _files([tmp_path])] == [f"{n}.txt" for n in range(8)]


def _steps(*classes: int) -> np.ndarray:
    return np.eye(4)[None, list(classes)]


def test_text_is_the_same_however_long_its_letters_last():
    answers = _steps(1, 1, 0, 1, 2).argmax(-1)
    assert _same_text(_steps(0, 1, 0, 1, 2), answers) == 100
    assert _same_text(_steps(1, 1, 1, 1, 2), answers) == 0


def test_areas_overlap_page_by_page():
    output = np.array([[[[0.9, 0.9], [0, 0]]], [[[0, 0], [0, 0.9]]]])
    answers = np.array([[[[True, False], [False, False]]], [[[False, False], [False, True]]]])
    assert _overlap(output, answers) == pytest.approx(75)
    assert same_top_1(np.array([[0, 1.0], [1, 0]]), np.array([1, 1])) == 50


def test_reasons_are_counted_without_their_sizes():
    assert (
        general_reason("64 values: 280 bytes now, 359 as a palette")
        == "a palette would be no smaller"
    )
    assert general_reason("input 1 of Add") == "input 1 of Add"


def test_absent_packages_are_named(tmp_path):
    folder_of(tmp_path, PACKAGES[0]).mkdir()
    assert missing(tmp_path) == list(PACKAGES[1:])
    command = [sys.executable, "-m", "benchmarks.pypi_models", "--models", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--install fetches them" in done.stdout
