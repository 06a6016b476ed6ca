"""What a decode that is no palette is told: one line, with the file and the weight."""

import re

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from converters.onnx import target
from converters.onnx.decoding.encode import encode
from dkm_deploy.errors import DkmError
from dkm_deploy.palette import Palette
from tests.converters.onnx.reading.test_read_palettes_forms import palette_of, saved

LUT = np.array([0.5, 2, 3, 7], np.float32).reshape(1, 1, 4, 1)
INDICES = np.zeros((4, 2), np.uint8)


def node(op: str, inputs: str, output: str, **attributes) -> NodeProto:
    return helper.make_node(op, inputs.split(), [output], **attributes)


LOOKUP = (node("Reshape", "w.lut flat", "values"), node("Gather", "values w.indices", "looked_up"))


def written(path, nodes, **arrays):
    """A file with these nodes, a LUT, indices and other arrays."""
    tensors = {"w.lut": LUT, "w.indices": INDICES, "flat": np.array([-1])} | arrays
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, None)]
    outputs = [helper.make_tensor_value_info("w", TensorProto.FLOAT, None)]
    held = [
        value if isinstance(value, TensorProto) else numpy_helper.from_array(value, name)
        for name, value in tensors.items()
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs, held)
    path.write_bytes(helper.make_model(graph, ir_version=8).SerializeToString())
    return path


def refused(path, reason):
    with pytest.raises(DkmError, match=f"^{re.escape(f'{path}: w: {reason}')}$"):
        target.read_palettes(path)


def test_the_file_that_the_others_change_is_read(tmp_path):
    path = written(tmp_path / "m.onnx", [*LOOKUP, node("Identity", "looked_up", "w")])
    read = target.read_palettes(path)["w"]
    assert np.array_equal(read.lut, LUT)
    assert np.array_equal(read.indices, INDICES)


NO_PALETTE = "the graph does not decode its LUT and indices as a palette does"
GRAPHS = {
    "other values": ([node("Add", "looked_up one", "w")], NO_PALETTE),
    "twice the values": ([node("Add", "looked_up looked_up", "w")], NO_PALETTE),
    "a shape of other rank": (
        [node("Reshape", "looked_up long", "w")],
        "a LUT of shape (1, 1, 4, 1) does not give a weight of shape (8,)",
    ),
    "an operator of no decode": (
        [node("Relu", "looked_up", "w")],
        "'w' ('Relu') cannot be run: ValueError: palettes are not decoded with this operator",
    ),
    "complex numbers": (
        [node("Add", "looked_up complex", "w")],
        "complex holds complex64, which is not a dtype of palettes",
    ),
    "texts": (
        [node("Add", "looked_up texts", "w")],
        "texts holds object, which is not a dtype of palettes",
    ),
    "row numbers without a Reshape": (
        [node("Gather", "w.indices ids", "rows"), node("Gather", "w.lut rows", "w")],
        "damaged: StopIteration",
    ),
}


@pytest.mark.parametrize("case", GRAPHS)
def test_a_graph_that_decodes_no_palette(tmp_path, case):
    nodes, reason = GRAPHS[case]
    path = written(
        tmp_path / "m.onnx",
        [*LOOKUP, *nodes],
        one=np.array(1, np.float32),
        long=np.array([8]),
        complex=np.array(1j, np.complex64),
        texts=np.array(["a"], object),
    )
    refused(path, reason)


VECTORS = {
    "of two entries": ([[0.5, 2], [3, 2]], [[0, 3], [2, 1]]),
    "turned around": ([[2, 2], [3, 3]], [[1, 0], [3, 2]]),
}


@pytest.mark.parametrize("case", VECTORS)
def test_vectors_that_the_graph_puts_together_otherwise(tmp_path, case):
    """Refused even where equal values hide it."""
    lut, places = VECTORS[case]
    path = written(
        tmp_path / "m.onnx",
        [*LOOKUP, node("Identity", "looked_up", "w")],
        **{"w.lut": np.array([[lut]], np.float32), "w.indices": np.array(places, np.uint8)},
    )
    refused(path, NO_PALETTE)


def test_what_else_a_weight_depends_on_is_taken_for_an_integer_0(tmp_path):
    nodes = [node("Add", "w.indices ids", "shifted"), node("Gather", "values shifted", "w")]
    read = target.read_palettes(written(tmp_path / "m.onnx", [LOOKUP[0], *nodes]))["w"]
    assert np.array_equal(read.indices, INDICES)


@pytest.mark.parametrize("more", [0, 1])
def test_a_lut_that_is_larger_than_any_indices_can_use(tmp_path, more):
    """A million values are never too many, nor 256 for each byte of what else there is."""
    largest = 2**20 + 256 * (INDICES.nbytes + 8)  # the shape in ``flat`` has 8 bytes
    path = tmp_path / "m.onnx"
    lut = np.zeros((1, 1, largest + more, 1), np.float16)
    written(path, [*LOOKUP, node("Identity", "looked_up", "w")], **{"w.lut": lut})
    if more:
        refused(path, f"its LUT of shape {lut.shape} is larger than its indices can use")
    else:
        with pytest.raises(DkmError, match=r"m\.onnx: w: (?!its LUT)"):
            target.read_palettes(path)


def test_a_tensor_whose_bytes_do_not_fit_its_shape(tmp_path):
    short = TensorProto(name="w.indices", data_type=TensorProto.UINT8, dims=[4, 2], raw_data=b"abc")
    path = written(
        tmp_path / "m.onnx",
        [*LOOKUP, node("Identity", "looked_up", "w")],
        **{"w.indices": short},
    )
    with pytest.raises(DkmError) as caught:
        target.read_palettes(path)
    assert str(caught.value).startswith(f"{path}: w: w.indices cannot be read: ValueError: ")


def test_a_weight_that_is_decoded_in_two_ways(tmp_path):
    palette = palette_of((8, 6))
    other = Palette(palette.indices ^ 1, palette.lut)
    turned = encode("w", other.transpose(), into="w.T", part=".turned")
    path = saved(tmp_path / "m.onnx", encode("w", palette), turned)
    refused(path, "the graph decodes it in two ways that differ")


def test_data_that_lie_elsewhere_are_read_before_they_are_looked_at(tmp_path):
    """Whatever their size: small tensors with the model, large ones with their decode."""
    palette = palette_of((512, 256), 8)
    path = saved(tmp_path / "m.onnx", encode("w", palette))
    onnx.save(
        onnx.load(path),
        tmp_path / "out.onnx",
        save_as_external_data=True,
        location="d.bin",
        size_threshold=0,
    )
    assert target.read_palettes(tmp_path / "out.onnx") == {"w": palette}
