"""Make the ONNX files of one model for ``benchmarks.onnx_files``, in a process of its own."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

import dkm_deploy as dkm
from benchmarks.resnet50 import ResNet50


def _mlp(width: int, layers: int) -> nn.Module:
    linears = [nn.Linear(width, width) for _ in range(layers)]
    return nn.Sequential(*(part for linear in linears for part in (linear, nn.ReLU())))


def _resnet50() -> nn.Module:
    """With BatchNorm values that differ: the exporter stores equal tensors once."""
    model = ResNet50()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                nn.init.uniform_(values, 0.5, 1.5)  # type: ignore[arg-type]  # it has all four
    return model


# Weights are random: what is measured does not depend on their values. A Linear layer is a Gemm
# in ONNX if its input has two dimensions, else a MatMul.
MODELS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "MLP, 25 M, Gemm": lambda: (_mlp(2048, 6), torch.randn(1, 2048)),
    "MLP, 25 M, MatMul": lambda: (_mlp(2048, 6), torch.randn(1, 1, 2048)),
    "ResNet-50": lambda: (_resnet50(), torch.randn(1, 3, 224, 224)),
    "small MLP": lambda: (_mlp(512, 4), torch.randn(1, 1, 512)),
}
# Those that are a palette with an option of dkm.convert.
OPTIONS: dict[str, dict[str, Any]] = {
    "4 bits, ONNX's own type": {"runtime": "1.23"},
    "4 bits, kept packed": {"decode": "packed"},
    "4 bits, 8-bit tier": {"decode": "int8"},
}


def main() -> None:
    """Make all files of a model and print what there is to say about each, as JSON by kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("kinds", nargs="+", help="the dense one comes first: peers are made of it")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model, x = MODELS[arguments.model]()
    model.eval()
    folder = arguments.folder
    print(json.dumps({kind: _build(model, x, kind, folder) for kind in arguments.kinds}))


def path_of(folder: Path, kind: str) -> Path:
    """Where the file of a kind is."""
    return folder / f"{kind}.onnx"


def _build(model: nn.Module, x: Tensor, kind: str, folder: Path) -> dict[str, Any]:
    """Bytes of the file and more, or ``refused`` and the reason."""
    path = path_of(folder, kind)
    if kind in PEERS:
        refused = PEERS[kind](path_of(folder, "dense"), path)
        return {"refused": refused} if refused else {"bytes": path.stat().st_size}
    if kind == "dense":
        return {"bytes": dkm.convert(model, x, path).size_bytes}
    frozen = dkm.palettize(model, dkm.Recipe.uniform(int(kind[0])))
    options = OPTIONS.get(kind, {})
    if options.get("decode") == "int8":
        frozen = dkm.quantize_luts(frozen)
    try:
        artifact = dkm.convert(frozen, x, path, **options)
    except dkm.DkmError as error:
        return {"refused": str(error)}
    facts: dict[str, Any] = {"bytes": artifact.size_bytes, "ideal": _ideal_bytes(model, frozen)}
    if options.get("decode", "load") == "load":
        facts |= _checked(path, dkm.palettes(frozen), x)
    return facts


def _ideal_bytes(model: nn.Module, frozen: nn.Module) -> int:
    """The least: n bits a weight, LUTs in float16, and the rest of the model in float32."""
    palettes = dkm.palettes(frozen)
    packed = sum((p.indices.size * p.bits + 7) // 8 + 2 * p.lut.size for p in palettes.values())
    tensors = [*model.named_parameters(), *model.named_buffers()]
    rest = (t.nbytes for name, t in tensors if name not in palettes and t.is_floating_point())
    return packed + sum(rest)


def _checked(path: Path, palettes: dict[str, dkm.Palette], x: Tensor) -> dict[str, bool]:
    """Whether the file is valid, and its weights have the palettes' bits in ONNX Runtime."""
    onnx.checker.check_model(str(path), full_check=True)  # raises if not
    model = onnx.load(path)
    made = {name for node in model.graph.node for name in node.output}
    # A matrix may be decoded transposed, and in parts: see converters.onnx.reading.find_decodes.
    names = {weight: _decoded_as(weight, made) for weight in palettes}
    for name in itertools.chain.from_iterable(names.values()):
        value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        model.graph.output.append(value)
    facts = {"valid": True}
    for folding, level in (("off", "ORT_DISABLE_ALL"), ("on", "ORT_ENABLE_ALL")):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        feeds = {session.get_inputs()[0].name: x.numpy()}
        facts[f"exact_{folding}"] = all(
            _same_bits(_dense(session.run(names[weight], feeds), names[weight]), palette.decode())
            for weight, palette in palettes.items()
        )
    return facts


def _decoded_as(weight: str, made: set[str]) -> list[str]:
    """The values that a weight is decoded into."""
    for name in (weight, f"{weight}.T"):
        parts = (f"{name}.part.{number}" for number in itertools.count())
        found = [name] if name in made else list(itertools.takewhile(made.__contains__, parts))
        if found:
            return found
    raise LookupError(f"{weight} is not decoded")


def _dense(parts: list[Any], names: list[str]) -> Any:
    turned = ".T" in names[0]
    whole = np.concatenate(parts, int(turned))
    return whole.T if turned else whole


def _same_bits(found: Any, expected: Any) -> bool:
    return found.shape == expected.shape and np.array_equal(
        np.ascontiguousarray(found).view(np.uint32), expected.view(np.uint32)
    )


def _dynamic_int8(dense: Path, path: Path) -> str | None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(dense, path, weight_type=QuantType.QInt8)
    return None


def _matmul_4_bits(dense: Path, path: Path) -> str | None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    model = onnx.load(dense)
    if all(node.op_type != "MatMul" for node in model.graph.node):
        return "MatMulNBits is for MatMul, which this file has none of"
    quantizer = MatMulNBitsQuantizer(model, bits=4, block_size=128, is_symmetric=True)
    quantizer.process()
    onnx.save(quantizer.model.model, path)
    return None


# Give a reason if they do not apply.
PEERS: dict[str, Callable[[Path, Path], str | None]] = {
    "peer: dynamic int8": _dynamic_int8,
    "peer: MatMulNBits, 4 bits": _matmul_4_bits,
}


if __name__ == "__main__":
    main()
