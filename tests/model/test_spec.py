"""What names inputs in a file: the arguments of ``forward``."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import dkm_deploy as dkm
from dkm_deploy.model.spec import samples_for


class Masked(nn.Module):
    """One input is needed, one is not."""

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        return ids if mask is None else ids * mask


class Paired(nn.Module):
    """Both inputs are needed."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return left + right


class Open(nn.Module):
    """Its signature tells nothing."""

    def forward(self, **named: Tensor) -> Tensor:
        return named["any"]


@pytest.fixture
def file(tmp_path):
    """Writes a file of tensors with these names, each with its place for values."""

    def _written(*names):
        tensors = {name: torch.full((2,), float(i)) for i, name in enumerate(names)}
        save_file(tensors, tmp_path / "inputs.safetensors")
        return tmp_path / "inputs.safetensors"

    return _written


@pytest.mark.parametrize(
    ("model", "held", "named"),
    [
        (nn.Sequential(nn.Linear(2, 2)), ["input"], {"input": 0}),
        (nn.Sequential(nn.Linear(2, 2)), ["images"], {"input": 0}),
        (Masked(), ["x"], {"ids": 0}),
        (Masked(), ["ids"], {"ids": 0}),
        (Masked(), ["mask", "ids"], {"mask": 0, "ids": 1}),
        (Paired(), ["right", "left"], {"right": 0, "left": 1}),
        (Open(), ["any"], {"any": 0}),
    ],
)
def test_inputs_by_the_names_in_forward(file, model, held, named):
    inputs, labels = samples_for(file(*held), model)
    assert {name: int(tensor[0]) for name, tensor in inputs.items()} == named
    assert labels is None


def test_labels_are_no_input(file):
    inputs, labels = samples_for(file("x", "labels"), Masked())
    assert list(inputs) == ["ids"]
    assert labels.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("model", "held", "message"),
    [
        (Paired(), ["x"], "holds x, and forward() takes left, right; name the tensors as it does"),
        (Paired(), ["left"], "holds left, and forward() takes left, right"),
        (Paired(), ["left", "rihgt"], "holds left, rihgt, and forward() takes left, right"),
        (Masked(), ["mask"], "holds mask, and forward() takes ids, mask and needs ids"),
        (Masked(), ["x", "y"], "holds x, y, and forward() takes ids, mask and needs ids"),
        (Masked(), ["labels"], "it holds no inputs"),
    ],
)
def test_names_that_forward_does_not_have(file, model, held, message):
    path = file(*held)
    with pytest.raises(dkm.DkmError) as caught:
        samples_for(path, model)
    assert str(caught.value).startswith(f"{path}: {message}")
