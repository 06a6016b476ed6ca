"""How the time to put palettes into an ONNX graph grows: ``python -m benchmarks.onnx_insert``.

Models of 250 to 2,000 products with weights of 64 x 64, as they are or behind a Transpose, get the
decodings of ready palettes of 4 bits and are written: no clustering, but all that is done to the
graph. The peer is ONNX Runtime's own quantizer on the same model; it also rounds the weights.
CPU seconds of this process, the least of some rounds; rounds take all in turns.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from benchmarks.process import cpu, versions
from converters.onnx.rewriting.palettize import write_with
from dkm_deploy.palette import Palette

_COUNTS = (250, 500, 1000, 2000)
_SIDE = 64
_TARGET_S = 2.0


def chain(count: int, *, transposed: bool) -> ModelProto:
    """Products one behind the other, each with a weight of its own."""
    random = np.random.default_rng(0)
    nodes, tensors = [], []
    for i in range(count):
        weight = f"w{i}"
        values = random.normal(size=(_SIDE, _SIDE)).astype(np.float32)
        tensors.append(numpy_helper.from_array(values, weight))
        if transposed:
            nodes.append(helper.make_node("Transpose", [weight], [f"t{i}"], perm=[1, 0]))
            weight = f"t{i}"
        nodes.append(helper.make_node("MatMul", [f"x{i}", weight], [f"x{i + 1}"], name=f"p{i}"))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", _SIDE])
        for name in ("x0", f"x{count}")
    ]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def palettes_of(count: int) -> dict[str, Palette]:
    """Palettes of 4 bits for the weights of a chain, each with another LUT."""
    random = np.random.default_rng(1)
    return {
        f"w{i}": Palette(
            random.integers(0, 16, (_SIDE, _SIDE), dtype=np.uint8),
            random.normal(size=(1, 1, 16, 1)).astype(np.float32),
        )
        for i in range(count)
    }


def ours(count: int, out: Path, *, transposed: bool) -> float:
    """CPU seconds to put the palettes into a chain and write it."""
    model, palettes = chain(count, transposed=transposed), palettes_of(count)
    start = time.process_time()
    write_with(model, palettes, out)
    return time.process_time() - start


def peer(count: int) -> float:
    """CPU seconds of ONNX Runtime's quantizer for a chain."""
    quantizer = MatMulNBitsQuantizer(
        chain(count, transposed=False), bits=4, block_size=32, is_symmetric=True
    )
    start = time.process_time()
    quantizer.process()
    return time.process_time() - start


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print(f"{cpu()}; {versions('onnx', 'onnx-ir', 'onnxruntime')}\n")
    print("| products | CPU s | behind a Transpose, CPU s | ms a product | peer CPU s | met? |")
    print("|---|---|---|---|---|---|")
    with TemporaryDirectory() as folder:
        out = Path(folder) / "out.onnx"
        for count in _COUNTS:
            best: list[float] = []
            for _ in range(rounds):
                times = [
                    ours(count, out, transposed=False),
                    ours(count, out, transposed=True),
                    peer(count),
                ]
                best = [min(pair) for pair in itertools.zip_longest(best or times, times)]
            plain, turned, other = best
            met = "-" if count < _COUNTS[-1] else "yes" if max(plain, turned) < _TARGET_S else "no"
            each = 1e3 * max(plain, turned) / count
            print(
                f"| {count:,} | {plain:.2f} | {turned:.2f} | {each:.2f} | {other:.2f} | {met} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
