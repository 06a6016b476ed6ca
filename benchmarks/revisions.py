"""Nothing gets slower: ``python -m benchmarks.revisions REVISION``.

Single measurements of other benchmarks, in a checkout of an earlier revision and in this tree, in
turns, each in a process of its own with one thread; medians of CPU seconds. Each tree runs its own
benchmark, so that public names may differ.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import statistics
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import dkm_layer, kmeans
from benchmarks.process import cpu, in_process, versions

_HERE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Measurement:
    """A process that prints seconds.

    Attributes:
        label: what the table calls it.
        module: of the benchmark.
        arguments: that make it measure once.
        key: of the seconds, in the JSON that it prints.
    """

    label: str
    module: str
    arguments: Sequence[str]
    key: str


def _measurements() -> Iterator[Measurement]:
    for layer in dkm_layer.ROWS:
        case = json.dumps({"who": "ours", **asdict(layer)})
        yield Measurement(
            f"DKM, {layer.label}", "benchmarks.dkm_layer", ["--measure", case], "seconds"
        )
    for row in kmeans.ROWS:
        case = json.dumps(asdict(row))
        yield Measurement(
            f"k-means, {row.label}", "benchmarks.kmeans", ["--one", "ours", case], "seconds"
        )
    yield Measurement("convert, Core ML, Linear", "benchmarks.coreml", ["ours: convert"], "cpu_s")
    for name in ("ResNet-50", "DistilBERT"):
        arguments = ["--one", name, "--rounds", "3"]
        yield Measurement(f"evaluator, {name}", "benchmarks.evaluator", arguments, "fp32")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("revision", help="of git, such as HEAD~20")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", metavar="TEXT", help="rows with this in their name")
    arguments = parser.parse_args()
    print(f"{cpu()}; {versions('torch', 'coremltools', 'numpy')}\n")
    print(f"| CPU s | {arguments.revision} | here | ratio |\n|---|---|---|---|")
    with _checkout(arguments.revision) as before:
        trees = {"before": before, "here": _HERE}
        for one in (one for one in _measurements() if arguments.only in one.label):
            found: dict[str, list[float]] = {name: [] for name in trees}
            for _ in range(arguments.rounds):
                for name, tree in trees.items():
                    result = in_process(one.module, one.arguments, threads=1, root=tree)
                    found[name].append(result[one.key])
            print(_row(one.label, found), flush=True)


def _row(label: str, found: Mapping[str, Sequence[float]]) -> str:
    before, here = (statistics.median(found[name]) for name in ("before", "here"))
    return f"| {label} | {before:.3f} | {here:.3f} | {here / before:.2f} |"


@contextmanager
def _checkout(revision: str) -> Iterator[Path]:
    """A folder with the files of a revision, which goes afterwards."""
    with TemporaryDirectory() as folder:
        command = [shutil.which("git") or "git", "archive", revision]
        archive = subprocess.run(command, cwd=_HERE, stdout=subprocess.PIPE, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        yield Path(folder)


if __name__ == "__main__":
    main()
