"""Files that are not what was predicted of them."""

from __future__ import annotations

import numpy as np
import pytest

import dkm_deploy as dkm
from dkm_deploy.planning.fit_budget import fit_to_budget
from dkm_deploy.planning.knapsack import Choices, frontier

STATES = frontier([Choices(np.array([100.0, 200, 300, 400]), np.array([9.0, 5, 2, 0]))])


def _settled(files, budget, fixed=50.0):
    written = []

    def _weigh(position):
        written.append(position)
        return files[position]

    return fit_to_budget(STATES, fixed, budget, _weigh), written


def test_a_prediction_that_holds_is_the_only_file():
    settled, written = _settled([150, 250, 350, 450], 360)
    assert (settled.position, settled.predicted_bytes, written) == (2, 350, [2])


def test_what_a_file_is_off_tells_of_the_next():
    settled, _ = _settled([250, 350, 450, 550], 360)  # 100 more than predicted, all of them
    assert (settled.position, settled.predicted_bytes, settled.fixed_bytes) == (1, 350, 150)


def test_between_a_file_that_fits_and_one_that_does_not():
    """The third looks too large after the fourth was, and the fourth fits after the third was."""
    settled, written = _settled([150, 250, 320, 520], 460)
    assert (settled.position, settled.predicted_bytes) == (2, 320)
    assert sorted(written) == [2, 3]


def test_none_fits():
    with pytest.raises(dkm.DkmError, match="the smallest file that the candidates allow has 150"):
        _settled([150, 250, 350, 450], 140)
