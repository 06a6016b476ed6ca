"""Conversion through the public names: the same for every target."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec

import pytest
import torch
from torch import nn
from torch.nn import functional

import dkm_deploy as dkm
from dkm_deploy.conversion.registry import targets
from dkm_deploy.palette import difference
from tests.converters.coreai.assets import EXTRA
from tests.models import MIXED, TiedNet, images, small_net

CORE_AI = pytest.mark.skipif(not find_spec("coreai_torch"), reason=EXTRA)
SUFFIXES = [".onnx", ".ort", ".mlpackage", pytest.param(".aimodel", marks=CORE_AI)]
COMPANION = "model.required_operators.config"


def names(suffix: str) -> list[str]:
    """The files that ``model`` with ``suffix`` comes as."""
    return sorted([f"model{suffix}"] + [COMPANION] * (suffix == ".ort"))


def test_all_targets_are_registered():
    known = {suffix for target in targets().values() for suffix in target.suffixes}
    assert known == {".onnx", ".ort", ".mlpackage", ".aimodel"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_artifact_tells_what_was_written(tmp_path, suffix):
    frozen = dkm.palettize(small_net(), MIXED)
    artifact = dkm.convert(frozen, images(1), tmp_path / "deep" / f"model{suffix}")
    assert os.fspath(artifact) == str(tmp_path / "deep" / f"model{suffix}")
    assert artifact.size_bytes == dkm.size_breakdown(artifact).total_bytes
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == names(suffix)
    stored = dkm.read_palettes(artifact)
    palettes = dkm.palettes(frozen)
    assert stored.keys() == palettes.keys()
    assert {
        name: difference(palettes[name], held) for name, held in stored.items()
    } == dict.fromkeys(palettes)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_tied_weights_are_stored_once(tmp_path, suffix):
    frozen = dkm.palettize(TiedNet(), dkm.Recipe.uniform(4))
    ids = torch.zeros(1, 4, dtype=torch.int64)
    artifact = dkm.convert(frozen, ids, tmp_path / f"model{suffix}")
    assert set(dkm.read_palettes(artifact)) == {"embed.weight", "middle.weight"}
    assert artifact.ledger.by_kind()["indices"] == (20 * 12 + 12 * 12) // 2


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_dense_model_converts_too(tmp_path, suffix):
    artifact = dkm.convert(small_net(), images(1), tmp_path / f"model{suffix}")
    assert dkm.read_palettes(artifact) == {}
    assert artifact.ledger.by_kind()["indices"] == 0


@pytest.mark.parametrize("suffix", SUFFIXES)
class TestNothingHalfWritten:
    def test_an_existing_file_is_kept_but_for_a_whole_one_with_force(self, tmp_path, suffix):
        path = tmp_path / f"model{suffix}"
        frozen = dkm.palettize(small_net(), dkm.Recipe.uniform(1))
        first = dkm.convert(dkm.palettize(small_net(), MIXED), images(1), path)
        with pytest.raises(FileExistsError, match="already exists; use --force"):
            dkm.convert(frozen, images(1), path)
        with pytest.raises(dkm.DkmError):
            dkm.convert(frozen, torch.ones(1, 9, 8, 8), path, force=True)
        assert dkm.size_breakdown(path) == first.ledger
        again = dkm.convert(frozen, images(1), path, force=True)
        assert again.ledger != first.ledger
        assert sorted(file.name for file in tmp_path.iterdir()) == names(suffix)

    def test_a_failure_leaves_nothing(self, tmp_path, suffix, monkeypatch):
        target = next(t for t in targets().values() if suffix in t.suffixes)
        monkeypatch.setattr(type(target), "read_palettes", lambda self, path: {})
        with pytest.raises(RuntimeError, match="wrote a wrong file: not in the file"):
            dkm.convert(dkm.palettize(small_net(), MIXED), images(1), tmp_path / f"model{suffix}")
        assert list(tmp_path.iterdir()) == []


class TestTheCompanion:
    def test_it_is_made_from_the_file_and_replaced_with_it(self, tmp_path):
        dkm.convert(dkm.palettize(small_net(), MIXED), images(1), tmp_path / "model.ort")
        text = (tmp_path / COMPANION).read_text()
        assert "BatchNormalization" in text
        frozen = dkm.palettize(nn.Sequential(nn.Linear(4, 4)).eval(), dkm.Recipe.uniform(2))
        dkm.convert(frozen, torch.ones(1, 4), tmp_path / "model.ort", force=True)
        assert (tmp_path / COMPANION).read_text() != text
        assert "BatchNormalization" not in (tmp_path / COMPANION).read_text()

    def test_one_that_is_there_is_kept_without_force(self, tmp_path):
        (tmp_path / COMPANION).write_text("mine")
        with pytest.raises(FileExistsError, match=f"{COMPANION}: already exists"):
            dkm.convert(dkm.palettize(small_net(), MIXED), images(1), tmp_path / "model.ort")
        assert [path.name for path in tmp_path.iterdir()] == [COMPANION]
        assert (tmp_path / COMPANION).read_text() == "mine"


class _Uncommon(nn.Module):
    """An operation that neither converter has."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return torch.linalg.eigvals(self.fc(x)).real


class TestBadInput:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_an_operation_that_the_target_lacks(self, tmp_path, suffix, capfd):
        frozen = dkm.palettize(_Uncommon(), dkm.Recipe.uniform(2))
        with pytest.raises(dkm.DkmError, match="eig"):
            dkm.convert(frozen, torch.eye(4), tmp_path / f"model{suffix}")
        assert list(tmp_path.iterdir()) == []
        assert "".join(capfd.readouterr()) == ""

    def test_an_unknown_suffix(self, tmp_path):
        with pytest.raises(dkm.DkmError, match=r"suffix '.tflite' cannot be written; known: "):
            dkm.convert(dkm.palettize(small_net(), MIXED), images(1), tmp_path / "model.tflite")

    def test_an_unknown_option(self, tmp_path):
        with pytest.raises(dkm.DkmError, match="target onnx has no option 'opsett'; it has opset"):
            dkm.convert(
                dkm.palettize(small_net(), MIXED), images(1), tmp_path / "m.onnx", opsett=18
            )

    @pytest.mark.parametrize("read", [dkm.read_palettes, dkm.size_breakdown])
    def test_reading_what_is_not_there(self, tmp_path, read):
        with pytest.raises(FileNotFoundError, match=r"none\.onnx: no such file or folder"):
            read(tmp_path / "none.onnx")

    @pytest.mark.parametrize("read", [dkm.read_palettes, dkm.size_breakdown])
    def test_reading_an_unknown_kind(self, tmp_path, read):
        (tmp_path / "notes.txt").write_text("x")
        with pytest.raises(
            dkm.DkmError, match=r"'.txt' cannot be read; known: .aimodel, .mlpackage, .onnx, "
        ):
            read(tmp_path / "notes.txt")

    @pytest.mark.parametrize("read", [dkm.read_palettes, dkm.size_breakdown])
    @pytest.mark.parametrize(
        "name", ["m.onnx", "m.ort", "m.mlpackage", "m.aimodel", "m.safetensors"]
    )
    def test_reading_another_kind_under_the_suffix(self, tmp_path, read, name):
        (tmp_path / name).write_text("this is not a model")
        with pytest.raises(dkm.DkmError, match=name):
            read(tmp_path / name)


class Resized(nn.Module):
    """What coremltools converts to another resize without a word."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return functional.interpolate(self.stem(x), size=(3, 3), mode="bilinear", antialias=True)


def test_a_file_that_computes_something_else_is_refused(tmp_path):
    frozen = dkm.palettize(Resized().eval(), dkm.Recipe.uniform(4))
    path, x = tmp_path / "m.mlpackage", torch.rand(1, 3, 12, 12)
    with pytest.raises(dkm.DkmError, match="the outputs of the file are not those of the model"):
        dkm.convert(frozen, x, path)
    assert not path.exists()
    assert dkm.convert(frozen, x, path, try_file=False).path.exists()


def test_a_file_that_overflows_or_cannot_be_tried_has_a_note(tmp_path):
    class Loud(nn.Linear):
        def forward(self, x):
            return super().forward(x).exp() * 3e4 * 3e4

    class Random(nn.Linear):
        def forward(self, x):
            return super().forward(x) + torch.rand(1)

    x = torch.ones(1, 8)
    loud, random = (dkm.palettize(m(8, 4).eval(), dkm.Recipe.uniform(4)) for m in (Loud, Random))
    half = {"compute_precision": "float16"}
    [note] = dkm.convert(loud, x, tmp_path / "m.mlpackage", **half).notes
    assert "output 'output' is wrong: values overflow in float16" in note
    [note] = dkm.convert(random, x, tmp_path / "m.onnx").notes
    assert note.startswith("not tried: the model gives other outputs")


class _Odd(nn.Module):
    """Gives a buffer as it is, and an output whose name clears the screen."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("known", torch.arange(4.0))
        self.name = name

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": self.fc(x), self.name: self.known}


def test_a_name_that_cannot_be_shown_is_refused_with_the_path_that_was_given(tmp_path):
    with pytest.raises(dkm.DkmError) as caught:
        dkm.convert(dkm.palettize(_Odd("\x1b[2J"), 4), torch.ones(2, 4), tmp_path / "model.ort")

    told = f"{tmp_path / 'model.ort'}: the name '\\x1b[2J' has characters that cannot be printed"
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_libraries_log_while_a_file_is_written_is_held_back(tmp_path, suffix, caplog, capfd):
    dkm.convert(dkm.palettize(_Odd("known"), 4), torch.ones(2, 4), tmp_path / f"model{suffix}")

    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_example_inputs_without_a_sample_are_refused(tmp_path, suffix):
    frozen = dkm.palettize(small_net(), MIXED)

    with pytest.raises(dkm.DkmError, match="the input tensors have 0 samples"):
        dkm.convert(frozen, images(1)[:0], tmp_path / f"model{suffix}")

    assert not list(tmp_path.iterdir())
