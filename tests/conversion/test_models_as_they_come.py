"""Models as people have them: odd inputs and outputs, wrappers, float64, caches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import dkm_deploy as dkm
from dkm_deploy.conversion.export import export
from tests.conversion.test_convert import CORE_AI

KINDS = ["onnx", "mlpackage", pytest.param("aimodel", marks=CORE_AI)]


class Odd(nn.Module):
    """A state without the first dimension of x, a square mask, a number, and one output twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = nn.GRU(8, 8, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor, state: Tensor, mask: Tensor, scale: Tensor, power: float = 1.0):
        y, state = self.cell(x, state)
        y = self.head((y @ y.transpose(1, 2)).masked_fill(mask, 0.0) @ y) * scale * power
        return {"last": y, "again": y, "state": state, "fine": x > 0, "none": None}


def _odd() -> tuple[object, ...]:
    torch.manual_seed(1)
    mask = torch.ones(5, 5).triu(1).bool()
    return torch.randn(3, 5, 8), torch.randn(1, 3, 8), mask, torch.tensor(3.0), 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_without_a_common_first_dimension_and_numbers_go_to_files(tmp_path, kind):
    frozen = dkm.palettize(Odd(), 4)
    artifact = dkm.convert(frozen, _odd(), tmp_path / f"model.{kind}")
    report = dkm.validate(artifact, reference=frozen, inputs=_odd(), require=["parity"])
    assert report, report.failed
    assert set(report.models[-1].errors) == {"last", "again", "state", "fine"}
    dkm.write_golden(tmp_path / "golden", reference=frozen, inputs=_odd())
    assert dkm.validate_golden(artifact, tmp_path / "golden", require=["parity"])


class Number(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x * torch.ones(1, 8))


@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_number_may_be_all_that_a_model_takes(tmp_path, kind):
    frozen, number = dkm.palettize(Number(), 2), torch.tensor(2.0)
    artifact = dkm.convert(frozen, number, tmp_path / f"model.{kind}")
    assert dkm.validate(artifact, reference=frozen, inputs=number, require=["parity"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_float64_goes_to_files(tmp_path, kind):
    torch.manual_seed(0)
    frozen = dkm.palettize(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)).double(), 4)
    inputs = torch.randn(3, 8).double()
    artifact = dkm.convert(frozen, inputs, tmp_path / f"model.{kind}")
    assert dkm.validate(artifact, reference=frozen, inputs=inputs, require=["parity"])
    assert any("float64" in note for note in artifact.notes) == (kind == "aimodel")
    assert frozen[1].weight.dtype is torch.float64


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


@pytest.mark.parametrize(
    ("wrap", "first"),
    [
        (lambda net: AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9)), "module.0.weight"),
        (nn.DataParallel, "0.weight"),
        (lambda net: torch.compile(net, backend="eager"), "0.weight"),
        (lambda net: nn.DataParallel(torch.compile(net, backend="eager")), "0.weight"),
        (lambda net: nn.Sequential(torch.compile(net, backend="eager")), "0._orig_mod.0.weight"),
    ],
)
def test_a_wrapped_model_is_exported_as_the_model(wrap, first):
    frozen = dkm.palettize(wrap(_net()), 2)
    exported = export(frozen, torch.ones(1, 8))
    assert next(iter(exported.palettes)) == first
    x = torch.randn(1, 8)
    assert torch.allclose(exported.program.module()(x), dkm.palettize(_net(), 2)(x))


class Cache:
    """What transformers' models give beside tensors, and ``torch.export`` does not know."""

    def __init__(self, keys: Tensor) -> None:
        self.keys = keys


class Cached(nn.Linear):
    def forward(self, x: Tensor) -> dict[str, object]:
        y = super().forward(x)
        return {"logits": y, "past_key_values": Cache(y), "hidden": (y + 1,)}


def test_a_cache_is_left_out_and_told():
    exported = export(dkm.palettize(Cached(8, 8), 2), torch.ones(1, 8))
    assert exported.output_names == ("logits", "hidden_0")
    assert exported.notes == ("left out, as files hold tensors alone: past_key_values (Cache)",)
