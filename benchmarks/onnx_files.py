"""ONNX files with palettes against the dense file of the same model, in ONNX Runtime.

Run ``python -m benchmarks.onnx_files [--quick]``. The files of a model are made in a process of
their own. Each is measured in fresh ones, with one thread, in rounds: every round measures each
file once, the dense one first, and ratios are medians of the rounds' own ratios. Linux only, for
the memory.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from benchmarks.onnx_build import MODELS, OPTIONS, PEERS, path_of
from benchmarks.process import cpu, in_process, versions

_WIDTHS = [f"{bits} bit{'s' * (bits > 1)}" for bits in range(1, 9)]
_QUICK = "small MLP"


@dataclass(frozen=True)
class File:
    """One file of a model.

    Attributes:
        kind: "dense", a width, or a key of ``OPTIONS`` or ``PEERS``.
        facts: from ``benchmarks.onnx_build``.
        rounds: from ``benchmarks.onnx_session``, one a round.
    """

    kind: str
    facts: Mapping[str, Any]
    rounds: list[dict[str, float]] = field(default_factory=list)

    def median(self, what: str) -> float:
        """Of all rounds."""
        return statistics.median(found[what] for found in self.rounds)

    def ratio(self, what: str, dense: File) -> float:
        """Median of the ratios to the dense file, which was measured in the same rounds."""
        pairs = zip(self.rounds, dense.rounds, strict=True)
        return statistics.median(ours[what] / other[what] for ours, other in pairs)


@dataclass(frozen=True)
class Target:
    """A limit on a ratio to the dense file."""

    label: str
    kind: str
    what: str
    limit: float


TARGETS = [
    *(Target("latency after load", kind, "latency", 1.05) for kind in _WIDTHS),
    Target("load time", "4 bits", "load", 1.3),
    Target("peak memory of loading", "4 bits", "peak", 1.5),
    Target("steady memory", "4 bits, kept packed", "steady", 1 / 3),
]
_MOST_OVER_IDEAL = 0.01


def main() -> None:
    """Measure and print three tables for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small model")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), help="default: the large ones")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    large = [name for name in MODELS if name != _QUICK]
    names = [_QUICK] if arguments.quick else arguments.models or large
    packages = versions("torch", "onnx", "onnxruntime", "numpy")
    print(f"{cpu()}, one thread used; {packages}; batch 1, {arguments.rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            files = _measured(name, Path(folder, name), arguments.rounds)
            print(f"\n### {name}\n")
            for table in (_sizes(files), _runs(files), _verdicts(files)):
                print(*table, "", sep="\n", flush=True)


def _measured(name: str, folder: Path, rounds: int) -> dict[str, File]:
    """All files of a model by kind, measured in turns."""
    folder.mkdir()
    empty = folder / "empty.onnx"
    _write_empty(empty)
    kinds = ["dense", *_WIDTHS, *OPTIONS, *PEERS]
    facts = in_process("benchmarks.onnx_build", [name, str(folder), *kinds])
    files = {kind: File(kind, facts[kind]) for kind in kinds}
    for _ in range(rounds):
        for kind, file in files.items():
            if "refused" not in file.facts:
                where = [str(path_of(folder, kind)), str(empty)]
                file.rounds.append(in_process("benchmarks.onnx_session", where, threads=1))
    shutil.rmtree(folder)
    return files


def _write_empty(path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "empty", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def _sizes(files: Mapping[str, File]) -> Iterator[str]:
    """Bytes against n bits a weight, LUTs in float16 and the rest dense; and exactness."""
    yield f"Dense: {files['dense'].facts['bytes']:,} bytes.\n"
    yield (
        "| file | bytes | of dense | over ideal | target | met? | checker | "
        "weights bit for bit, folding off | on |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for kind in _WIDTHS:
        facts = files[kind].facts
        if "refused" in facts:
            yield f"| {kind} | not run: {facts['refused']} |" + " |" * 7
            continue
        over = facts["bytes"] / facts["ideal"] - 1
        share = facts["bytes"] / files["dense"].facts["bytes"]
        checks = [_yes(facts[key]) for key in ("valid", "exact_off", "exact_on")]
        size = f"{facts['bytes']:,} | {share:.4f} | {over:+.2%} | {_MOST_OVER_IDEAL:.0%}"
        yield f"| {kind} | {size} | {_yes(over <= _MOST_OVER_IDEAL)} | {' | '.join(checks)} |"


def _runs(files: Mapping[str, File]) -> Iterator[str]:
    """What loading and running each file took."""
    yield "| file | MB | load, ms | peak, MB | steady, MB | latency, ms |"
    yield "|---|---|---|---|---|---|"
    for kind, file in files.items():
        if "refused" in file.facts:
            yield f"| {kind} | not run: {file.facts['refused']} | | | | |"
            continue
        memory = [f"{file.median(what) / 1e6:.0f}" for what in ("peak", "steady")]
        load, latency = (1e3 * file.median(what) for what in ("load", "latency"))
        size = f"{file.facts['bytes'] / 1e6:.2f}"
        yield f"| {kind} | {size} | {load:.0f} | {' | '.join(memory)} | {latency:.2f} |"


def _verdicts(files: Mapping[str, File]) -> Iterator[str]:
    """The targets that are ratios to the dense file."""
    yield "| against the dense file | measured | target | met? |\n|---|---|---|---|"
    for target in TARGETS:
        file = files[target.kind]
        label = f"{target.kind}: {target.label}"
        if "refused" in file.facts:
            yield f"| {label} | not run: {file.facts['refused']} | {target.limit:.2f}x | - |"
            continue
        ratio = file.ratio(target.what, files["dense"])
        yield f"| {label} | {ratio:.2f}x | {target.limit:.2f}x | {_yes(ratio <= target.limit)} |"


def _yes(met: bool) -> str:
    return "yes" if met else "**no**"


if __name__ == "__main__":
    main()
