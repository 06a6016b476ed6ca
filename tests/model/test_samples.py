"""What of the inputs is a sample, and how outputs of batches and of steps become one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dkm_deploy as dkm
from dkm_deploy.model.run import join_batches, join_steps
from dkm_deploy.model.samples import check_not_empty, rows, sample_count, share_samples

X = torch.arange(12.0).reshape(6, 2)


class TestSamples:
    def test_only_what_has_samples_is_cut(self):
        state = torch.ones(6, 3)
        found = rows({"x": X, "k": {"s": state, "n": 3, "z": torch.tensor(6)}}, 1, 3)
        assert torch.equal(found["x"], X[1:3])
        assert (found["k"]["s"].shape, found["k"]["n"], found["k"]["z"]) == ((2, 3), 3, 6)
        (first,) = rows(X, 4, 6)
        assert torch.equal(first, X[4:])
        (step,) = rows(dkm.Steps([X, X + 1]), 0, 1)
        assert torch.equal(step, X[:1])
        whole = (X, torch.ones(1, 6))
        assert rows(whole, 0, 1) is whole
        arrays = (X, np.arange(3))  # an array beside tensors has no samples
        assert rows(arrays, 0, 2)[1].tolist() == [0, 1, 2]

    def test_samples_are_shared_or_not(self):
        assert share_samples((X, torch.ones(6, 1), torch.tensor(1.0), 3, np.ones(2)))
        assert not share_samples((X, torch.ones(5)))
        assert not share_samples((torch.tensor(1.0),))
        assert share_samples((np.ones(2), np.ones((2, 3))))
        assert not share_samples((np.ones(2), np.ones(3)))

    def test_the_first_tensor_with_a_dimension_is_counted(self):
        assert sample_count((torch.tensor(1.0), X, torch.ones(2, 2))) == 6
        assert sample_count((np.ones(3), X)) == 6
        assert sample_count({"a": np.array(["u", "v", "w"])}) == 3
        assert sample_count(dkm.Steps([X, X[:2], {"pos": 3}, {"a": torch.tensor(1), "b": X}])) == 15

    def test_numbers_alone_are_one_sample(self):
        assert sample_count((torch.tensor(1.0), 3)) == 1
        assert sample_count(np.array(2.0)) == 1

    def test_inputs_without_samples_are_refused(self):
        with pytest.raises(dkm.DkmError) as caught:
            sample_count((3, None))
        told = "the inputs hold no tensor; give at least one"
        assert str(caught.value) == told
        for check in (sample_count, check_not_empty):
            with pytest.raises(dkm.DkmError) as caught:
                check((X, torch.ones(0, 2)))
            told = "the input tensors have 0 samples (first dimension); give at least 1"
            assert str(caught.value) == told
        check_not_empty(X[:1])
        with pytest.raises(dkm.DkmError, match="^inputs are 3; give a tensor, tuple or dict$"):
            sample_count(3)


class TestJoining:
    def test_outputs_of_batches_become_one(self):
        parts = [{"y": np.ones((2, 3))}, {"y": np.zeros((1, 3))}]
        assert join_batches(parts)["y"].tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0]]
        single = np.array(3.0)
        assert join_batches([{"y": single}])["y"] is single

    def test_outputs_that_are_no_batches_are_told_by_name(self):
        message = "^output 'y': batches cannot be concatenated: zero-dimensional arrays cannot"
        with pytest.raises(dkm.DkmError, match=message):
            join_batches([{"y": np.array(1.0)}, {"y": np.array(2.0)}])

    def test_steps_follow_each_other_and_numbers_too(self):
        parts = [
            {"y": np.array(1.0), "z": np.ones((1, 2))},
            {"y": np.array(2.0), "z": np.ones((1, 2))},
        ]
        found = join_steps(parts)
        assert (found["y"].tolist(), found["z"].shape) == ([1, 2], (2, 2))
        other = [{"y": np.ones((1, 2))}, {"y": np.ones((1, 3))}]
        with pytest.raises(dkm.DkmError) as caught:
            join_steps(other)
        assert str(caught.value) == (
            "output 'y' has shape (1, 2) in the first step and others later; give steps whose "
            "outputs have the same shape"
        )
