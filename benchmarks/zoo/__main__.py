"""Architectures of torchvision, timm, transformers and our own: palettize, convert, validate.

    python -m benchmarks.zoo                          # all of them; goes on where it stopped
    python -m benchmarks.zoo --only 'timm/*' --targets onnx aimodel
    python -m benchmarks.zoo --retry aimodel refused   # these again
    python -m benchmarks.zoo --table

Weights are random, 4 bits each, models as they come. Each model has a process of its own. Results
are lines of ``out/zoo.jsonl``. What torch.export cannot trace is not counted, and neither are
models whose package is not installed: it is no requirement of this project.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.zoo.architecture import Architecture
from benchmarks.zoo.models import architectures, is_missing
from benchmarks.zoo.one_model import send_results
from benchmarks.zoo.results import OUTCOMES, TARGETS, Result, append, is_repeated, read
from benchmarks.zoo.table import passed_table, reasons_table

_TIMEOUT_S = 300
_FORKS = multiprocessing.get_context("forkserver")
_PACKAGES = ("torch", "coremltools", "onnx", "onnxruntime", "coreai-core", "coreai-torch")


def main() -> None:
    """Measure what is not known yet, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="*", metavar="PATTERN", help="of names, such as 'timm/*'")
    parser.add_argument("--targets", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument(
        "--retry", nargs="+", choices=[*TARGETS, *OUTCOMES], default=[], metavar="TARGET|OUTCOME"
    )
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--out", type=Path, default=Path("out/zoo.jsonl"))
    arguments = parser.parse_args()
    if not arguments.table:
        _measure(arguments.only, arguments.targets, arguments.retry, arguments.out)
    results = list(read(arguments.out).values())
    print("\n".join([*passed_table(results), "", *reasons_table(results)]))


def _measure(only: str, targets: list[str], retry: list[str], out: Path) -> None:
    known = read(out)
    _FORKS.set_forkserver_preload(["benchmarks.zoo.warm_up"])
    for one in architectures(only):
        pairs = {target: known.get((one.name, target)) for target in targets}
        wanted = [t for t, result in pairs.items() if not result or is_repeated(result, retry)]
        if not wanted:
            continue
        results = list(_results(one, wanted))
        append(out, results)
        for result in results:
            print(f"{result.model}, {result.target}: {result.outcome} {result.reason}", flush=True)


def _results(one: Architecture, targets: list[str]) -> Iterator[Result]:
    if is_missing(one.package):
        for target in targets:
            yield Result(one.name, one.family, target, "skipped", f"{one.package} is missing")
        return
    known = _versions(one.package)
    for result in completed(one, targets, *_run(one.name, targets)):
        yield replace(result, versions=known)


def completed(
    one: Architecture, targets: Iterable[str], sent: Iterable[Result], end: tuple[str, str]
) -> Iterator[Result]:
    """A result for each target: those that a process sent, and its end for the others.

    Args:
        one: the model.
        targets: that were asked for.
        sent: by the process.
        end: the outcome and reason of targets that it came to no result for.
    """
    found = {result.target: result for result in sent}
    for target in targets:
        yield found.get(target) or Result(one.name, one.family, target, *end)


def _run(name: str, targets: list[str]) -> tuple[list[Result], tuple[str, str]]:
    """What a model's process sent, and how it ended."""
    receiver, sender = _FORKS.Pipe(duplex=False)
    process = _FORKS.Process(target=send_results, args=(name, targets, sender))
    process.start()
    sender.close()
    sent, deadline = [], time.monotonic() + _TIMEOUT_S
    try:
        while receiver.poll(max(0, deadline - time.monotonic())):
            sent.append(receiver.recv())
    except EOFError:
        process.join()
        return sent, ("crashed", f"the process ended with {process.exitcode}")
    process.kill()
    process.join()
    return sent, ("timeout", f"took more than {_TIMEOUT_S} s")


def _versions(package: str | None) -> dict[str, str]:
    """Of the packages that have a part in a result."""
    found = {}
    for name in (*_PACKAGES, *([package] if package else [])):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


if __name__ == "__main__":
    main()
