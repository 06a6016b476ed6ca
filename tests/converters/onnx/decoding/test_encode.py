"""The encoding alone: what ONNX Runtime decodes and what is read back, against the palette."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from converters.onnx import target
from converters.onnx.decoding.encode import encode
from dkm_deploy.palette import Palette
from dkm_deploy.runtimes.onnx_runtime.runtime import quiet_options
from tests.converters.onnx.models import messages

SHAPES = {"linear": (6, 10), "conv": (8, 6, 3, 3), "embedding": (14, 4)}
# cluster_dim, axis, groups along the axis
LAYOUTS = {"tensor": (1, 0, 1), "grouped": (1, 0, 2), "rows": (2, 0, 1), "columns": (2, 1, 1)}
LEVELS = (
    onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
)


def palette_of(shape, bits, cluster_dim=1, axis=0, groups=(), dtype=np.float32, seed=0):
    random = np.random.default_rng(seed)
    dims = list(shape)
    dims[axis] //= cluster_dim
    groups = groups or (1,) * len(dims)
    indices = random.integers(0, 1 << bits, dims, dtype=np.uint8)
    return Palette(
        indices, random.normal(size=(*groups, 1 << bits, cluster_dim)).astype(dtype), axis
    )


def save(path: Path, palettes: dict[str, Palette], opset: int = 18) -> onnx.ModelProto:
    """A file whose outputs are the decoded weights."""
    nodes, tensors = messages(*(encode(name, palette) for name, palette in palettes.items()))
    outputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(palette.lut.dtype), palette.shape
        )
        for name, palette in palettes.items()
    ]
    graph = helper.make_graph(nodes, "g", [], outputs, initializer=tensors)
    imports = [helper.make_opsetid("", opset)]
    ir_version = helper.find_min_ir_version_for(imports)
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return model


def decoded(path: Path, level) -> dict[str, np.ndarray]:
    options = quiet_options()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {}), strict=True))


def check(path: Path, palettes: dict[str, Palette]) -> None:
    for level in LEVELS:
        weights = decoded(path, level)
        for name, palette in palettes.items():
            assert weights[name].dtype == palette.lut.dtype
            assert weights[name].shape == palette.shape
            assert weights[name].tobytes() == palette.decode().tobytes()
    assert target.read_palettes(path) == palettes


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", SHAPES)
def test_every_width_and_layout_is_exact(tmp_path, bits, layout, kind):
    cluster_dim, axis, count = LAYOUTS[layout]
    groups = tuple(count if dim == axis else 1 for dim in range(len(SHAPES[kind])))
    palette = palette_of(SHAPES[kind], bits, cluster_dim, axis, groups)
    save(tmp_path / "w.onnx", {"fc.weight": palette})
    check(tmp_path / "w.onnx", {"fc.weight": palette})


@st.composite
def palettes(draw):
    rank = draw(st.integers(1, 4))
    axis = draw(st.integers(0, rank - 1))
    cluster_dim = draw(st.integers(2, 5))
    groups = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    shape = [count * draw(st.integers(1, 4)) for count in groups]
    shape[axis] *= cluster_dim
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    bits, seed = draw(st.integers(1, 8)), draw(st.integers(0, 99))
    return palette_of(shape, bits, cluster_dim, axis, groups, dtype, seed)


@settings(max_examples=60, deadline=None)
@given(first=palettes(), second=palettes())
def test_any_rank_axis_and_grouping_is_exact(tmp_path_factory, first, second):
    path = tmp_path_factory.mktemp("any") / "w.onnx"
    save(path, {"a": first, "b.weight": second})
    check(path, {"a": first, "b.weight": second})


@pytest.mark.parametrize("opset", [13, 21, 23])
def test_other_opsets_decode_the_same(tmp_path, opset):
    palette = palette_of((6, 10), 7, 2, 1)
    save(tmp_path / "w.onnx", {"w": palette}, opset)
    check(tmp_path / "w.onnx", {"w": palette})


def test_weights_of_the_same_width_share_one_table(tmp_path):
    stored = {f"w{i}": palette_of((8, 8), 4, seed=i) for i in range(3)}
    model = save(tmp_path / "w.onnx", stored)
    made = [node.op_type for node in model.graph.node]
    assert made.count("Range") == made.count("Mod") == 1
    assert made.count("Gather") == 3 * 2  # the LUT's entries by symbol, and the symbols
    check(tmp_path / "w.onnx", stored)


def test_a_table_is_no_larger_than_pays(tmp_path):
    """Of 3 bits, four indices make a symbol of 12 bits where there are weights enough for it."""
    for size, planes in [((64, 64), [4, 2]), ((512, 512), [8, 4])]:
        model = save(tmp_path / "w.onnx", {"w": palette_of(size, 3)})
        together = sum(planes) // 3
        stored = [len(t.raw_data) for t in model.graph.initializer if t.data_type == 2]
        assert stored == [size[0] * size[1] // together * width // 8 for width in planes]
        check(tmp_path / "w.onnx", {"w": palette_of(size, 3)})


@pytest.mark.parametrize("bits", range(1, 9))
def test_indices_take_their_bits_and_the_graph_little_more(tmp_path, bits):
    palette = palette_of((64, 128), bits)
    model = save(tmp_path / "w.onnx", {"fc.weight": palette})
    stored = [t for t in model.graph.initializer if t.data_type == TensorProto.UINT8]
    assert sum(len(t.raw_data) for t in stored) == 64 * 128 * bits // 8
    ideal = 64 * 128 * bits // 8 + palette.lut.nbytes
    assert (tmp_path / "w.onnx").stat().st_size < ideal + 2048
