"""From an ONNX file to an ONNX file: what is read, what is written, and what is refused."""

import hashlib
import importlib
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import dkm_deploy as dkm
from tests.converters.onnx.models import (
    LEVELS,
    dense_twin,
    linear,
    model,
    run,
    save,
    tensor,
    values,
)

FOUR = dkm.Recipe.uniform(4)
X = values(3, 64, seed=9)


def palettized(tmp_path, proto):
    """The model in the written file, which is removed again."""
    source = save(tmp_path / "model.onnx", proto)
    dkm.palettize_file(source, tmp_path / "small.onnx", FOUR)
    small = onnx.load(tmp_path / "small.onnx")
    (tmp_path / "small.onnx").unlink()
    return small


def refused(tmp_path, proto, message, recipe=FOUR):
    """Palettizing is an error of one line that names the file, and leaves nothing behind."""
    source = save(tmp_path / "model.onnx", proto)
    with pytest.raises(dkm.DkmError, match=message) as raised:
        dkm.palettize_file(source, tmp_path / "small.onnx", recipe)
    assert "model.onnx" in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


class TestExternalData:
    @pytest.fixture
    def source(self, tmp_path):
        path = tmp_path / "in" / "model.onnx"
        path.parent.mkdir()
        onnx.save(linear(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
        return path

    def test_it_is_read_and_counted(self, tmp_path, source):
        before = source.stat().st_size + source.with_name("w.bin").stat().st_size
        result = dkm.palettize_file(source, tmp_path / "small.onnx", FOUR)
        small = onnx.load(tmp_path / "small.onnx", load_external_data=False)
        assert result.bytes_before == before
        assert not any(held.external_data for held in small.graph.initializer)
        wanted = dense_twin(linear(), result.palettes)
        for level in LEVELS:
            np.testing.assert_allclose(
                run(small, {"x": X}, level)[0], run(wanted, {"x": X}, level)[0], rtol=1e-5
            )

    @pytest.mark.parametrize("fault", ["missing", "short", "outside"])
    def test_what_cannot_be_read_is_named(self, tmp_path, source, fault):
        data = source.with_name("w.bin")
        if fault == "short":
            data.write_bytes(data.read_bytes()[:100])
        elif fault == "missing":
            data.unlink()
        else:
            proto = onnx.load(source, load_external_data=False)
            proto.graph.initializer[0].external_data[0].value = "../w.bin"
            data.rename(tmp_path / "w.bin")
            onnx.save(proto, source)
        with pytest.raises(dkm.DkmError, match=r"model\.onnx: .*\bw\b") as raised:
            dkm.palettize_file(source, tmp_path / "small.onnx", FOUR)
        assert "w.bin" in str(raised.value) or fault == "short"
        assert not (tmp_path / "small.onnx").exists()

    def test_what_is_too_large_for_one_file_has_its_data_beside_it(
        self, tmp_path, source, monkeypatch
    ):
        monkeypatch.setattr(sys.modules["converters.onnx.rewriting.palettize"], "LARGEST", 1000)
        result = dkm.palettize_file(source, tmp_path / "small.onnx", dkm.Recipe.uniform(8))
        data = tmp_path / "small.onnx.data"
        small = onnx.load(tmp_path / "small.onnx", load_external_data=False)
        outside = [held.name for held in small.graph.initializer if held.external_data]
        assert outside == ["w.indices"]
        assert result.bytes_after == (tmp_path / "small.onnx").stat().st_size + data.stat().st_size
        assert dkm.read_palettes(tmp_path / "small.onnx") == dict(result.palettes)
        session = onnxruntime.InferenceSession(tmp_path / "small.onnx")
        wanted = dense_twin(linear(), result.palettes)
        np.testing.assert_allclose(
            session.run(None, {"x": X})[0], run(wanted, {"x": X}, LEVELS[1])[0], rtol=1e-5
        )


class TestTheFiles:
    def test_the_same_input_gives_the_same_bytes_and_is_not_touched(self, tmp_path):
        source = save(tmp_path / "model.onnx", linear())
        before = hashlib.sha256(source.read_bytes()).hexdigest()
        for name in ("one.onnx", "two.onnx"):
            dkm.palettize_file(source, tmp_path / name, FOUR)
        assert hashlib.sha256(source.read_bytes()).hexdigest() == before
        assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()

    @pytest.mark.parametrize("kind", ["itself", "symbolic link", "hard link"])
    def test_the_input_is_no_output(self, tmp_path, kind):
        source = out = save(tmp_path / "model.onnx", linear())
        if kind != "itself":
            out = tmp_path / "link.onnx"
            out.symlink_to(source) if kind == "symbolic link" else out.hardlink_to(source)
        before = source.read_bytes()
        with pytest.raises(dkm.DkmError, match="this is the input"):
            dkm.palettize_file(source, out, FOUR, force=True)
        assert source.read_bytes() == before

    def test_an_output_that_exists_is_kept(self, tmp_path):
        source = save(tmp_path / "model.onnx", linear())
        (tmp_path / "small.onnx").write_text("mine")
        with pytest.raises(FileExistsError, match="already exists"):
            dkm.palettize_file(source, tmp_path / "small.onnx", FOUR)
        assert (tmp_path / "small.onnx").read_text() == "mine"
        dkm.palettize_file(source, tmp_path / "small.onnx", FOUR, force=True)
        assert [*dkm.read_palettes(tmp_path / "small.onnx")] == ["w"]

    @pytest.mark.parametrize("name", ["small.mlpackage", "small", "folder.onnx"])
    def test_another_kind_of_output_is_refused(self, tmp_path, name):
        source = save(tmp_path / "model.onnx", linear())
        (tmp_path / "folder.onnx").mkdir()
        with pytest.raises(dkm.DkmError, match=name):
            dkm.palettize_file(source, tmp_path / name, FOUR, force=True)

    def test_a_wrong_encoding_is_found_out_and_leaves_no_file(self, tmp_path, monkeypatch):
        source = save(tmp_path / "model.onnx", linear())
        module = importlib.import_module("converters.onnx.decoding.insert")

        def wrong(weight, palette, **options):
            other = dkm.Palette(palette.indices ^ 1, palette.lut, palette.axis)
            return right(weight, other, **options)

        right = module.encode
        monkeypatch.setattr(module, "encode", wrong)
        with pytest.raises(RuntimeError, match="w: target onnx wrote a wrong file"):
            dkm.palettize_file(source, tmp_path / "small.onnx", FOUR)
        assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda m: m.opset_import[0].__setattr__("version", 999), "opset.* 999"),
            (lambda m: m.ClearField("opset_import"), "its opset is not given"),
            (lambda m: m.__setattr__("ir_version", 999), "IR version.* 999"),
            (lambda m: m.training_info.add(), "a training graph"),
            (lambda m: m.graph.initializer[0].dims.__setitem__(0, 65), "w: its values cannot"),
        ],
    )
    def test_models_of_other_kinds(self, tmp_path, change, message):
        proto = linear()
        change(proto)
        refused(tmp_path, proto, message)

    def test_a_palettized_file(self, tmp_path):
        refused(
            tmp_path,
            palettized(tmp_path, linear()),
            r"palettized already \(w\); start from the dense model",
        )

    def test_nothing_to_palettize(self, tmp_path):
        proto = model([helper.make_node("Add", ["x", "t"], ["y"])], [tensor("t", X)])
        refused(tmp_path, proto, "there is nothing to palettize: t: input 1 of Add")

    def test_no_tensors_at_all(self, tmp_path):
        proto = model([helper.make_node("Relu", ["x"], ["y"])])
        refused(tmp_path, proto, "nothing to palettize: it has no tensor of rank 2 or more")

    @pytest.mark.parametrize("start", ["w.lut", "w.indices", "dkm:"])
    def test_a_name_that_the_decoding_needs(self, tmp_path, start):
        proto = linear()
        small = palettized(tmp_path, proto)
        made = [held.name for held in small.graph.initializer]
        name = next(name for name in made if name.startswith(start))
        proto.graph.node.append(helper.make_node("Relu", ["y"], [name]))
        refused(tmp_path, proto, f"{name}: decoding w needs a value of this name")

    def test_a_weight_named_as_a_shared_value(self, tmp_path):
        weight = [tensor("dkm:bytes", values(64, 32))]
        proto = model([helper.make_node("MatMul", ["x", "dkm:bytes"], ["y"])], weight)
        refused(tmp_path, proto, "dkm:bytes: names with dkm: are reserved for the decoding")

    @pytest.mark.parametrize(
        ("recipe", "message"),
        [
            (
                dkm.Recipe(rules=[dkm.Rule(spec=dkm.PaletteSpec(group_size=7))]),
                "w: group_size 7 does not divide its 64",
            ),
            (dkm.Recipe(rules=[dkm.Rule(spec=dkm.PaletteSpec(axis=2))]), "w: axis is 2"),
            (dkm.Recipe(rules=[dkm.Rule("v", skip=True)]), "no weight .* matches rule 'v'.* w"),
            (dkm.Recipe(), "nothing to palettize: w: the recipe has no default"),
        ],
    )
    def test_recipes_that_do_not_fit(self, tmp_path, recipe, message):
        refused(tmp_path, linear(), message, recipe)

    @pytest.mark.parametrize("data", [b"", b"not a model", b"cut"])
    def test_files_that_are_no_models(self, tmp_path, data):
        source = tmp_path / "model.onnx"
        whole = linear().SerializeToString()
        source.write_bytes(whole[: len(whole) // 2] if data == b"cut" else data)
        with pytest.raises(dkm.DkmError, match=r"model\.onnx: not an ONNX model"):
            dkm.palettize_file(source, tmp_path / "small.onnx", FOUR)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("none.onnx", "no such file"),
            ("m.aimodel", "'.aimodel' cannot be palettized; known: .mlpackage, .onnx"),
            ("m.pt2", "gives a checkpoint with suffix .safetensors"),
        ],
    )
    def test_other_kinds_of_files(self, tmp_path, name, message):
        if name == "m.aimodel":
            (tmp_path / name).mkdir()
        with pytest.raises(dkm.DkmError, match=message):
            dkm.palettize_file(tmp_path / name, tmp_path / "small.onnx", FOUR)


def test_what_onnx_raises_for_an_unknown_type_is_told(tmp_path):
    """It is not its checker's own error, but a plain ValueError."""
    proto = linear()
    odd = TensorProto(name="odd", data_type=32768, dims=[2, 2], raw_data=bytes(16))
    proto.graph.initializer.append(odd)
    proto.graph.node.append(helper.make_node("Identity", ["odd"], ["z"]))
    source = save(tmp_path / "model.onnx", proto)
    result = dkm.palettize_file(source, tmp_path / "small.onnx", FOUR)
    assert result.dense["odd"].startswith("of an unknown type")
    assert "onnx.checker refuses the input (Invalid tensor data type" in result.unchecked[0]


def test_a_node_without_its_inputs_is_refused(tmp_path):
    proto = linear()
    del proto.graph.node[0].input[1]
    refused(tmp_path, proto, r"node 'product' \(MatMul\) has 1 inputs and 1 outputs, too few for")
