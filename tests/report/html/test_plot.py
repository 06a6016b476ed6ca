"""The plot of runs: round ticks that suit any range, whatever the sizes and the scores are."""

from __future__ import annotations

import re

import pytest

from dkm_deploy.report.html.plot import plot
from dkm_deploy.report.runs import Point, RunComparison


def comparison(*files: tuple[int, float]) -> RunComparison:
    """Of files given as (bytes, score)."""
    points = tuple(
        Point("run", "a.onnx", size, None, None, score, None, "passed", "2 bits: 1", "")
        for size, score in files
    )
    return RunComparison("accuracy", points, None, ())


def ticks(found: RunComparison, anchor: str) -> list[str]:
    """What is written along an axis: the scores end at it, bytes stand in the middle of theirs."""
    labels = re.findall(
        r'<text x="[^"]*" y="[^"]*" text-anchor="(\w+)">([^<]*)</text>', plot(found)
    )
    ends_apart = {"bytes on disk, log scale", *map(str, range(1, len(found.points) + 1))}
    return [words for where, words in labels if where == anchor and words not in ends_apart]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        # A part of them all, from the least that lies within the axis to the largest.
        ([1, 10**6], ["0.5 B", "10 B", "200 B", "5 KB", "100 KB", "2 MB"]),
        ([10**3, 10**5], ["1 KB", "5 KB", "20 KB", "100 KB"]),
        # Both ends of the axis, 1 B and 1000 GB, are round; the last is one of those left out.
        ([10, 10**11], ["1 B", "200 B", "50 KB", "10 MB", "2 GB", "500 GB"]),
        ([1_000, 2_000], ["1 KB", "2 KB"]),
        ([10**6, 2 * 10**6], ["1 MB", "2 MB"]),
        ([10**9, 2 * 10**9], ["1 GB", "2 GB"]),
        # One round size is too few: the ends of the axis are told instead.
        ([1_000], ["955 B", "1.05 KB"]),
    ],
)
def test_bytes_are_told_at_few_round_sizes(sizes: list[int], expected: list[str]) -> None:
    assert ticks(comparison(*((size, 50.0) for size in sizes)), "middle") == expected


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.0, 10.0], ["0", "5", "10"]),
        ([0.0, 30.0], ["0", "10", "20", "30"]),
        # A step that divides the axis in five, to the last digit.
        ([0.0], ["-0.04", "-0.02", "0", "0.02", "0.04"]),
    ],
)
def test_scores_are_told_in_round_steps(scores: list[float], expected: list[str]) -> None:
    assert ticks(comparison(*((1_000, score) for score in scores)), "end") == expected


def test_a_score_so_large_that_small_steps_vanish_in_it_is_drawn() -> None:
    assert len(ticks(comparison((1_000, 1e20)), "end")) >= 2
