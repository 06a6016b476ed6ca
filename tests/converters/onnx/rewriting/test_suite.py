"""The suite of small models in ONNX Runtime: every width, layer and granularity."""

from itertools import product

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.converters.onnx.rewriting.suite import (
    CASES,
    GRANULARITIES,
    INPUTS,
    LAYERS,
    WIDTHS,
    Bank,
    bank,
    showing,
    single,
    values,
)

# What a palette is decoded with. None works on bits, and each is in opset 18 for all its types.
DECODING = {
    "Add",
    "Cast",
    "Concat",
    "Div",
    "Expand",
    "Gather",
    "GatherElements",
    "Mod",
    "Mul",
    "Range",
    "Reshape",
    "Slice",
    "Transpose",
}
_LEVELS = onnxruntime.GraphOptimizationLevel
FOLDING = {True: _LEVELS.ORT_ENABLE_ALL, False: _LEVELS.ORT_DISABLE_ALL}
_ROUNDING = 2e-6  # of the largest output; float32 has 24 bits, sums go in another order


def test_every_width_layer_and_granularity_is_covered():
    assert len({case.name for case in CASES}) == len(CASES)
    covered = {
        layer: {p for c in CASES if c.layer == layer for p in c.palettes}
        for layer, kind in LAYERS.items()
        if not kind.only
    }
    for layer, palettes in covered.items():
        assert {bits for _, bits in palettes} == set(WIDTHS), layer
    flat = set(GRANULARITIES) - {"vectors2_axis2"}
    assert covered["linear"] == set(product(flat, WIDTHS))
    for layer in ("linear3d", "lstm", "gru", "encoder", "embedding", "tied"):
        assert {name for name, _ in covered[layer]} == flat, layer
    for layer in ("conv1d", "conv2d", "conv3d", "transposed"):
        assert {name for name, _ in covered[layer]} == set(GRANULARITIES), layer


@pytest.mark.parametrize(
    "takes",
    [
        pytest.param(n, marks=[pytest.mark.slow] if n in ("signal", "volume") else [])
        for n in INPUTS
    ],
)
def test_onnx_runtime_runs_the_models(takes, tmp_path):
    """One test a bank, for its export is what takes the time."""
    made = bank(takes)
    made.write(tmp_path / "bank.onnx")
    model = onnx.load(tmp_path / "bank.onnx")
    onnx.checker.check_model(model, full_check=True)
    check_operators(model, made)
    for folding in (True, False):
        check_outputs(model, made, folding)
        check_weights(model, made, folding, tmp_path / "optimised.onnx")
    check_single(model, made)


def check_operators(model: onnx.ModelProto, made: Bank) -> None:
    """Standard operators only, few kinds of them in the decodes, and no dense weight stored."""
    assert {node.domain for node in model.graph.node} == {""}
    assert {node.op_type for node in decoding(model, made)} <= DECODING
    sizes = {f"{name}.lut": palette.lut.size for name, palette in made.palettes.items()}
    smallest = min(palette.size for palette in made.palettes.values())
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            size = np.prod(tensor.dims)
            assert size == sizes.get(tensor.name, size), tensor.name
            assert tensor.name in sizes or size < smallest, f"{tensor.name} is as large as a weight"


def decoding(model: onnx.ModelProto, made: Bank) -> list[onnx.NodeProto]:
    """All nodes that dense weights are made by."""
    producers = {name: node for node in model.graph.node for name in node.output}
    ends = ("", ".T", ".part.0", ".part.1", ".T.part.0", ".T.part.1")
    weights = [weight + end for weight in made.palettes for end in ends]
    found, waiting = {}, [name for name in weights if name in producers]
    while waiting:
        node = producers[waiting.pop()]
        found[node.output[0]] = node
        waiting += [name for name in node.input if name in producers and name not in found]
    assert found
    return list(found.values())


def check_outputs(model: onnx.ModelProto, made: Bank, folding: bool) -> None:
    """The numbers of PyTorch's frozen model."""
    outputs = run(model, made, FOLDING[folding])
    assert list(outputs) == [case.name for case in made.cases]
    for name, expected in made.expected.items():
        error = np.abs(outputs[name] - expected.numpy()).max() / np.abs(expected.numpy()).max()
        assert error < _ROUNDING, f"{name}, folding {folding}: relative error {error}"


def check_weights(model: onnx.ModelProto, made: Bank, folding: bool, path) -> None:
    """Every dense weight has the palette's bits, and is a constant if folding is on."""
    outputs = run(showing(model, list(made.palettes)), made, FOLDING[folding], path)
    constants = {tensor.name for tensor in onnx.load(path).graph.initializer}
    for case in made.cases:
        for name in made.weights(case):
            expected = made.palettes[name].decode()
            if name not in outputs:  # gathered row by row: the ids have each row once
                assert case.layer == "embedding", f"{name} is no value of the graph"
                rows = outputs[case.name].reshape(expected.shape)
                assert rows.tobytes() == expected[made.x.numpy().reshape(-1)].tobytes(), name
                continue
            assert outputs[name].tobytes() == expected.tobytes(), f"{name}, folding {folding}"
            assert (name in constants) == folding, name


def check_single(model: onnx.ModelProto, made: Bank) -> None:
    """A case cut out of its bank, which is what the other runtimes run, is the same model."""
    for case in made.cases[::8]:
        cut = single(model, case, made.weights(case))
        onnx.checker.check_model(cut, full_check=True)
        outputs = run(cut, made, FOLDING[True])
        assert list(outputs) == [case.name, *(w for w in made.weights(case) if w in outputs)]
        assert np.allclose(outputs[case.name], made.expected[case.name], atol=1e-5)
        assert values(cut) & set(made.palettes) <= set(made.weights(case))


def run(model: onnx.ModelProto, made: Bank, level, optimised=None) -> dict[str, np.ndarray]:
    """All outputs by name. ``optimised`` is where the graph that is run is written to."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if optimised:
        options.optimized_model_filepath = str(optimised)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": made.x.numpy()}), strict=True))
