"""``.pt2`` files: an ordinary module with the names, the inputs and the shapes of the model."""

from __future__ import annotations

import copy
import zipfile

import pytest
import torch
from torch import nn
from torch.export import Dim

import dkm_deploy as dkm
from dkm_deploy.model.pt2_program import fixed_batch, load_program
from dkm_deploy.model.run import run_model
from dkm_deploy.nn_utils.recurrent import gates
from tests.models import MIXED, TiedNet, images, small_net

FREE = {"x": {0: Dim("batch", max=64)}}


def write(path, model, inputs, shapes=None, **named):
    torch.export.save(torch.export.export(model, inputs, named, dynamic_shapes=shapes), path)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A SmallNet for up to 64 images."""
    folder = tmp_path_factory.mktemp("program")
    return write(folder / "small.pt2", small_net(), (images(4),), FREE)


class Named(nn.Module):
    """A buffer, a constant, a parameter that nothing uses, and arguments of every kind."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 6)
        self.spare = nn.Parameter(torch.zeros(3, 3))
        self.register_buffer("shift", torch.ones(6))
        self.register_buffer("unsaved", torch.full((6,), 2.0), persistent=False)

    def forward(self, x, pair, *, scale):
        return {"y": self.inner(x) + self.shift, "z": (pair[0] - pair[1]) * scale * self.unsaved}


def test_it_is_the_model(small):
    model, program = small_net(), load_program(small)
    assert list(dict(program.model.named_parameters())) == list(dict(model.named_parameters()))
    assert program.model.state_dict().keys() == model.state_dict().keys()
    assert torch.equal(program.example["x"], images(4))
    assert not program.model.eval().training
    assert fixed_batch(program.model) is None
    for count in (1, 5):
        torch.testing.assert_close(program.model(x=images(count)), model(images(count)))


def test_palettes_stay_with_its_copies(small):
    program, recipe = load_program(small).model, MIXED
    frozen = copy.deepcopy(dkm.palettize(program, recipe))
    expected = dkm.palettize(small_net(), recipe)
    assert dkm.palettes(frozen) == dkm.palettes(expected)
    torch.testing.assert_close(frozen(images()), expected(images()))
    assert not torch.equal(frozen(images()), program(images()))


@pytest.mark.slow
def test_free_dimensions_stay_free(small, tmp_path):
    program = load_program(small)
    frozen = dkm.palettize(program.model, MIXED)
    inputs, shapes = program.export_with(None)
    dkm.convert(frozen, inputs, tmp_path / "free.onnx", dynamic_shapes=shapes)
    report = dkm.validate([tmp_path / "free.onnx"], reference=frozen, inputs={"x": images(7)})
    assert report


@pytest.mark.slow
def test_free_dimensions_in_core_ml(small, tmp_path):
    program = load_program(small)
    frozen = dkm.palettize(program.model, MIXED)
    inputs, shapes = program.export_with(None)
    dkm.convert(frozen, inputs, tmp_path / "free.mlpackage", dynamic_shapes=shapes)
    assert dkm.validate([tmp_path / "free.mlpackage"], reference=frozen, inputs={"x": images(7)})


def test_tied_weights_go_by_their_first_name(tmp_path):
    model, ids = TiedNet().eval(), torch.arange(12).reshape(2, 6)
    program = load_program(write(tmp_path / "tied.pt2", model, (ids,)))
    assert list(dict(program.model.named_parameters())) == list(dict(model.named_parameters()))
    frozen = dkm.palettize(program.model, dkm.Recipe.uniform(3))
    expected = dkm.palettize(model, dkm.Recipe.uniform(3))
    assert dkm.palettes(frozen) == dkm.palettes(expected)
    torch.testing.assert_close(frozen(ids), expected(ids))
    dkm.save(expected, tmp_path / "tied.safetensors")  # of one, for the other
    loaded = dkm.load(tmp_path / "tied.safetensors", program.model)
    torch.testing.assert_close(loaded(ids), frozen(ids))


def test_arguments_buffers_and_what_nothing_uses(tmp_path):
    model, x = Named().eval(), torch.randn(2, 6)
    path = write(tmp_path / "named.pt2", model, (x, (x + 1, x)), scale=torch.tensor(3.0))
    program = load_program(path)
    assert program.model.state_dict().keys() == model.state_dict().keys()
    assert list(program.example) == ["x", "pair", "scale"]
    assert program.dynamic_shapes is None
    expected = model(x, (x + 1, x), scale=torch.tensor(3.0))
    torch.testing.assert_close(program.model(**program.example), expected)


@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")  # of torch.export
@pytest.mark.parametrize(("kind", "count", "size"), [(nn.LSTM, 4, 16), (nn.GRU, 3, 12)])
def test_gates_are_known(tmp_path, kind, count, size):
    path = write(tmp_path / "cells.pt2", kind(6, 8).eval(), (torch.randn(3, 2, 6),))
    program = load_program(path).model
    assert gates(program, "weight_ih_l0") == count
    straddling = dkm.Recipe.uniform(1, group_size=size)
    with pytest.raises(dkm.DkmError, match="weight_ih_l0: target coreml cannot hold it"):
        dkm.palettize(program, straddling, targets=["coreml"])


def test_what_was_fixed_at_export_stays_so(tmp_path):
    program = load_program(write(tmp_path / "fixed.pt2", small_net(), (images(4),))).model
    assert fixed_batch(program) == 4
    frozen = dkm.palettize(program, MIXED)
    with pytest.raises(dkm.DkmError, match=r"Guard failed: x.size\(\)\[0\] == 4"):
        dkm.convert(frozen, images(3), tmp_path / "net.onnx")
    assert len(run_model(frozen, {"x": images(12)})["output"]) == 12


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm2d(3), nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout())]
)
def test_training_mode_is_refused(tmp_path, layer):
    path = write(tmp_path / "trains.pt2", layer.train(), (images(4),))
    with pytest.raises(dkm.DkmError, match=r"trains\.pt2: exported in training mode"):
        load_program(path)


def test_normalisation_by_the_batch_is_no_training_mode(tmp_path):
    layer = nn.BatchNorm2d(3, track_running_stats=False).eval()
    program = load_program(write(tmp_path / "batch.pt2", layer, (images(4),)))
    torch.testing.assert_close(program.model(images(4)), layer(images(4)))


def _archive(path, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "nothing")


class TestDamaged:
    def test_cut_short(self, small, tmp_path, capfd):
        data = small.read_bytes()
        for share in (0.1, 0.5, 0.99):
            (tmp_path / "cut.pt2").write_bytes(data[: int(share * len(data))])
            with pytest.raises(dkm.DkmError, match=r"cut\.pt2: .* cut short"):
                load_program(tmp_path / "cut.pt2")
        assert capfd.readouterr() == ("", "")

    def test_other_archives(self, tmp_path, capfd):
        _archive(tmp_path / "zip.pt2", "a.txt")
        _archive(tmp_path / "compiled.pt2", "m/data/aotinductor/model/a.so")
        torch.save({"w": torch.zeros(2)}, tmp_path / "saved.pt2")
        for name, message in (
            ("zip", "holds no program that torch.export.save wrote"),
            ("saved", "holds no program that torch.export.save wrote"),
            ("compiled", "compiled by AOTInductor"),
        ):
            with pytest.raises(dkm.DkmError, match=message):
                load_program(tmp_path / f"{name}.pt2")
        assert capfd.readouterr() == ("", "")

    def test_files_that_are_no_archives(self, tmp_path):
        (tmp_path / "text.pt2").write_text("not a model at all")
        (tmp_path / "folder.pt2").mkdir()
        for name, message in (
            ("text", "not a .pt2 file"),
            ("folder", "not a .pt2 file"),
            ("none", "no such file"),
        ):
            with pytest.raises(dkm.DkmError, match=message):
                load_program(tmp_path / f"{name}.pt2")

    def test_a_part_is_missing(self, small, tmp_path):
        with zipfile.ZipFile(small) as whole, zipfile.ZipFile(tmp_path / "p.pt2", "w") as part:
            for name in whole.namelist():
                if "weights" not in name:
                    part.writestr(name, whole.read(name))
        with pytest.raises(dkm.DkmError, match=r"p\.pt2: damaged, or not of this version"):
            load_program(tmp_path / "p.pt2")
