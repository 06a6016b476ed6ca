from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import dkm_deploy as dkm
from dkm_deploy.conversion.export import export
from tests.conversion.test_convert import SUFFIXES

UNUSED = ["never.0.weight", "never.1.weight", "dropped.weight", "placed.weight", "token"]


class Idle(nn.Module):
    """One layer that forward uses, and others that it never reads or whose results it drops."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.dropped, self.placed = (nn.Linear(4, 4) for _ in range(3))
        self.never = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        self.token = nn.Parameter(torch.randn(1, 2, 4))

    def forward(self, x: Tensor) -> Tensor:
        self.dropped(x)
        dropped = torch.zeros(1, 4)
        dropped += self.placed(x)
        return self.used(x)


class InPlace(nn.Module):
    """Its output is written slice by slice, so that no operation reads what the layers give."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.zeros(1, 2, 4)
        y[:, 0] = self.first(x)
        y[:, 1:].add_(self.second(x)[:, None])
        return y


class Cached(nn.Module):
    """A table of biases that the first run in eval mode keeps, as LeViT does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.biases = nn.Parameter(torch.randn(4, 4))
        self.cache: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if "cpu" not in self.cache:
            self.cache["cpu"] = self.biases[:, torch.tensor([0, 2, 1, 3])]
        return self.layer(x) + self.cache["cpu"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_weights_that_serve_no_output_are_in_no_file_and_in_one_note(tmp_path, suffix):
    frozen = dkm.palettize(Idle(), 2)
    path = tmp_path / f"model{suffix}"
    artifact = dkm.convert(frozen, torch.ones(1, 4), path)
    (note,) = (note for note in artifact.notes if note.startswith("left out"))
    assert note.endswith("no output depends on them: token, dropped, placed, never")
    assert list(dkm.read_palettes(artifact)) == ["used.weight"]
    assert artifact.ledger.by_kind()["indices"] == 16 // 4
    report = dkm.validate(artifact, reference=frozen, inputs=torch.randn(1, 4))
    assert report, report.failed
    (palettes,) = (c for c in report.models[-1].checks if c.name == "palettes")
    assert palettes.reason.startswith("1 of 6 equal bit for bit")
    assert sorted(palettes.reason.partition("on the others: ")[2].split(", ")) == sorted(UNUSED)
    dkm.write_golden(tmp_path / "golden", reference=frozen, inputs=torch.randn(1, 4))
    assert dkm.validate_golden(artifact, tmp_path / "golden")


def test_a_weight_that_outputs_need_may_not_be_missing(tmp_path):
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    inputs = torch.ones(1, 4)
    artifact = dkm.convert(
        dkm.palettize(net, dkm.Recipe(rules=[dkm.Rule("0.*", 2)])), inputs, tmp_path / "a.onnx"
    )
    report = dkm.validate(artifact, reference=dkm.palettize(net, 2), inputs=inputs)
    assert any("palettes: 1.weight is not a palette in the file" in one for one in report.failed)


def test_what_is_written_in_place_is_used():
    exported = export(dkm.palettize(InPlace(), 2), torch.ones(1, 4))
    assert list(exported.palettes) == ["first.weight", "second.weight"]
    assert exported.notes == ()


def test_a_table_that_an_earlier_run_has_kept_is_explained():
    frozen = dkm.palettize(Cached(), 2)
    assert export(frozen, torch.ones(1, 4)).notes == ()
    frozen(torch.ones(1, 4))
    (note,) = export(frozen, torch.ones(1, 4)).notes
    assert note.startswith(
        "left out, as no output depends on them: biases; an earlier run has left"
    )
    assert "tensors in cache, which forward may read" in note


def test_dense_weights_are_listed_too():
    (note,) = export(Idle(), torch.ones(1, 4)).notes
    assert note.endswith(": token, dropped, placed, never")
