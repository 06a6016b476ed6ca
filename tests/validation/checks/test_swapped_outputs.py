"""Outputs that hold each other's values are told, and nothing else is called swapped."""

from __future__ import annotations

import numpy as np

from dkm_deploy.validation.checks.swapped_outputs import find_swapped_outputs

LEFT, RIGHT = np.array([1.0, 2.0]), np.array([-3.0, 4.0])
REFERENCE = {"left": LEFT, "right": RIGHT}
WANTED = {"left": 0.1, "right": 0.01}


def _told(left, right, reference=REFERENCE):
    return find_swapped_outputs(
        {"left": np.array(left), "right": np.array(right)}, reference, WANTED
    )


def test_values_of_another_output_are_told():
    assert _told(RIGHT, LEFT) == (
        "outputs are swapped: 'left' has the values of 'right', 'right' has the values of 'left'"
    )
    assert _told(RIGHT, -LEFT) == "outputs are swapped: 'left' has the values of 'right'"


def test_right_values_are_not_swapped():
    assert _told(LEFT, RIGHT) is None
    assert _told(LEFT, LEFT) is None  # of an output that is right where it is
    assert find_swapped_outputs({"left": RIGHT}, REFERENCE, WANTED) is None
    assert _told(LEFT, LEFT, {"left": LEFT, "right": LEFT}) is None


def test_each_output_has_its_own_limit():
    assert "'right' has the values of 'left'" in _told(RIGHT * 2, LEFT * 1.09)
    assert "'left' has" not in _told(RIGHT * 1.09, LEFT * 1.09)
    assert _told(RIGHT * 1.02, LEFT * 1.2) is None
    exact = {"left": 0.0, "right": 0.0}
    assert find_swapped_outputs({"left": RIGHT, "right": LEFT}, REFERENCE, exact) is not None


def test_what_cannot_be_compared_is_not_swapped():
    nothing = np.full(2, np.nan)
    assert _told(RIGHT[:1], LEFT[:1]) is None
    assert _told([np.inf, 4.0], nothing) is None
    assert _told([-3.0, np.nan], [1.0, np.nan]) is None
    assert _told(nothing, RIGHT * 2, {"left": LEFT, "right": nothing}) is None
    empty = np.empty(0)
    assert _told(empty, empty, {"left": empty, "right": empty}) is None
