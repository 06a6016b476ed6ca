"""The ledger: kinds and sums against what the onnx package says of the same file."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.onnx import target
from converters.onnx.decoding.encode import encode
from dkm_deploy.palette import Palette
from tests.converters.onnx.models import messages


@pytest.fixture
def path(tmp_path):
    """A palettized weight of 5 bits beside a dense weight, a shape, notes and a typed tensor."""
    random = np.random.default_rng(0)
    lut = random.normal(size=(4, 1, 32, 1)).astype(np.float32)
    palette = Palette(random.integers(0, 32, (8, 10), dtype=np.uint8), lut)
    nodes, tensors = messages(encode("w", palette))
    dense = numpy_helper.from_array(np.ones((10, 3), np.float32), "dense")
    typed = helper.make_tensor("typed", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    node = helper.make_node("Gemm", ["w", "dense", "typed"], ["y"], doc_string="a note")
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [8, 3])
    graph = helper.make_graph(
        [*nodes, node], "g", [], [output], initializer=[*tensors, dense, typed]
    )
    model = helper.make_model(graph, producer_name="tests", ir_version=8)
    helper.set_model_props(model, {"key": "value"})
    onnx.save(model, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_it_adds_up_and_names_every_weight(path):
    ledger = target.ledger(path)
    assert ledger.total_bytes == path.stat().st_size
    sizes = {(entry.kind, entry.name): entry.size_bytes for entry in ledger.entries}
    assert sizes["indices", "w"] == 80 * 5 // 8
    assert sizes["lut", "w"] == 4 * 32 * 4
    assert sizes["dense", "dense"] == 10 * 3 * 4
    assert sizes["dense", "typed"] == 3 * 4
    assert {name for kind, name in sizes if kind == "dense"} == {"dense", "typed"}
    notes = len("a note") + len("tests") + len("key") + len("value") + 4  # tags and lengths
    assert ledger.by_kind()["metadata"] == notes


def test_a_tensor_in_a_node_is_dense_too(path):
    model = onnx.load(path)
    value = numpy_helper.from_array(np.ones(100, np.float32), "constant")
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=value))
    onnx.save(model, path)
    ledger = target.ledger(path)
    assert ledger.total_bytes == path.stat().st_size
    assert sum(e.size_bytes for e in ledger.entries if e.name == "constant") == 400


def kinds_and_names(ledger):
    return {(e.kind, e.name): e.size_bytes for e in ledger.entries if e.kind in WEIGHTS}


WEIGHTS = ("indices", "lut", "dense")


@pytest.mark.parametrize("location", ["all.data", None])
def test_weights_in_other_files_are_counted(path, location, tmp_path):
    """In one data file, or in one for each tensor."""
    whole = target.ledger(path)
    folder = tmp_path / "parts"
    folder.mkdir()
    onnx.save(
        onnx.load(path),
        folder / "m.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=location is not None,
        location=location,
        size_threshold=0,
    )
    ledger = target.ledger(folder / "m.onnx")
    files = list(folder.iterdir())
    assert {folder / "m.onnx", *ledger.companions} == set(files)
    assert ledger.total_bytes == sum(file.stat().st_size for file in files)
    assert kinds_and_names(ledger) == kinds_and_names(whole)


def outside(path, *places):
    """A model with a tensor of 4 floats at each (offset, length) of ``d.bin``, which has 64."""
    tensors = []
    for number, (offset, length) in enumerate(places):
        tensor = TensorProto(name=f"t{number}", data_type=TensorProto.FLOAT, dims=[length // 4])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "d.bin"), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
    outputs = [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, t.dims) for t in tensors]
    graph = helper.make_graph([], "g", [], outputs, initializer=tensors)
    onnx.save(helper.make_model(graph, ir_version=8), path)
    (path.parent / "d.bin").write_bytes(bytes(64))


@pytest.mark.parametrize(
    ("places", "sizes", "padding"),
    [
        ([(0, 16), (16, 16)], [16, 16], 32),
        ([(8, 16), (40, 16)], [16, 16], 32),
        ([(0, 16), (0, 16)], [16, 0], 48),  # tied: the bytes are there once
        ([(0, 64), (16, 16)], [64, 0], 0),
        ([(0, 32), (16, 32)], [32, 16], 16),
    ],
)
def test_gaps_and_shared_bytes_of_a_data_file_add_up(tmp_path, places, sizes, padding):
    outside(tmp_path / "m.onnx", *places)
    ledger = target.ledger(tmp_path / "m.onnx")
    found = kinds_and_names(ledger)
    assert [found.get(("dense", f"t{number}"), 0) for number in (0, 1)] == sizes
    assert ledger.by_kind()["padding"] == padding
    assert ledger.total_bytes == 64 + (tmp_path / "m.onnx").stat().st_size
