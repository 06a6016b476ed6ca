"""The useful part of what libraries say, in one line."""

from __future__ import annotations

import errno

import pytest
import torch
from torch import nn
from torch.export import Dim, export

from dkm_deploy.errors import DkmError, reason_of, refused_by_system


class Halved(nn.Module):
    def forward(self, x):
        return x.reshape(2, -1)


class Branching(nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x


def _reason(model, inputs, shapes=None):
    with pytest.raises(Exception) as raised:  # noqa: PT011  # torch.export has many kinds
        export(model, inputs, dynamic_shapes=shapes)
    return reason_of(raised.value)


def test_what_pytorch_suggests_is_kept():
    told = _reason(Halved(), (torch.zeros(4, 4),), {"x": {0: Dim("batch")}})
    assert told.startswith("UserError: Constraints violated (batch)!")
    assert told.endswith("Suggested fixes: _batch = Dim('_batch', min=1, max=oo), batch = 2*_batch")
    assert len(told) <= 400


def test_the_line_of_the_model_is_kept():
    told = _reason(Branching(), (torch.zeros(4),))
    assert told.startswith("GuardOnDataDependentSymNode: Could not guard on data-dependent")
    assert "return x + 1 if x.sum() > 0 else x" in told
    assert "TORCH" not in told


def test_a_long_reason_keeps_both_ends():
    told = reason_of(ValueError("a" * 500 + "\nmore\nSuggested fixes:\n  x = 1\n\nreport it"))
    assert told.startswith("ValueError: aaa")
    assert told.endswith("; Suggested fixes: x = 1")
    assert len(told) <= 400


def test_an_error_without_a_message_is_its_kind():
    assert reason_of(KeyError()) == "KeyError"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError('IoError(Os { code: 28, message: "No space left on device" })'),
        RuntimeError("The operation could not be completed. There isn\u2019t enough space."),
    ],
)
def test_a_full_disk_is_known_in_every_librarys_words(error):
    told = "No space left on device; free some, or write elsewhere"
    assert refused_by_system(error) == told
    assert refused_by_system(ValueError("another")) is None


def test_a_name_from_a_file_cannot_break_the_line():
    error = DkmError("layer 'a\nb\x1b[2J' is \u00e4 wrong")
    assert str(error) == "layer 'a b\\x1b[2J' is \u00e4 wrong"
