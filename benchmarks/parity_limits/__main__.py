"""Right conversions of small models, and faults planted in them, under the limits of parity alone.

    python -m benchmarks.parity_limits right --seeds 1 2      # every kind of model, every target
    python -m benchmarks.parity_limits faults --seeds 1
    python -m benchmarks.parity_limits table

Each result is a line of ``out/parity_limits.jsonl``; what is there is not measured again.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import dkm_deploy as dkm
from benchmarks.parity_limits.faults import FAULTS
from benchmarks.parity_limits.models import KINDS, model_of

TARGETS: dict[str, tuple[str, dict[str, Any]]] = {
    "Core ML, float16": ("mlpackage", {}),
    "Core ML, float32": ("mlpackage", {"compute_precision": "float32"}),
    "ONNX": ("onnx", {}),
    "ONNX, float16 storage": ("onnx", {"storage_dtype": "float16"}),
    ".ort": ("ort", {}),
    "Core AI, float16": ("aimodel", {"compute_precision": "float16"}),
    "Core AI, float32": ("aimodel", {"compute_precision": "float32"}),
}
_BITS = (2, 4, 6, 8)


@dataclass(frozen=True)
class Result:
    """One file: what it is of, the status of its parity (or "refused") and the reason."""

    experiment: str
    name: str
    seed: int
    target: str
    status: str
    reason: str

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What tells it from the others."""
        return self.experiment, self.name, self.seed, self.target


def main() -> None:
    """Measure what is not known yet, or print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("right", "faults", "table"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--targets", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--out", type=Path, default=Path("out/parity_limits.jsonl"))
    arguments = parser.parse_args()
    known = {result.key for result in _read(arguments.out)}
    if arguments.what != "table":
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder, arguments.out.open("a") as out:
            for seed in arguments.seeds:
                for name in KINDS if arguments.what == "right" else FAULTS:
                    wanted = [
                        t for t in arguments.targets if (arguments.what, name, seed, t) not in known
                    ]
                    for result in _results(arguments.what, name, seed, wanted, Path(folder)):
                        out.write(json.dumps(asdict(result)) + "\n")
                        out.flush()
    _print(_read(arguments.out))


def _results(
    experiment: str, name: str, seed: int, targets: list[str], folder: Path
) -> Iterator[Result]:
    if not targets:
        return
    if experiment == "right":
        model, inputs = model_of(name, seed)
        frozen = dkm.palettize(model, _BITS[seed % len(_BITS)])
        written = frozen
    else:
        kind, dense, plant = FAULTS[name]
        model, inputs = model_of(kind, seed)
        rules = [dkm.Rule(f"{layer}.*", skip=True) for layer in dense]
        spec = dkm.PaletteSpec(_BITS[seed % len(_BITS)])
        frozen = dkm.palettize(model, dkm.Recipe(spec, rules))
        written = copy.deepcopy(frozen)
        plant(written)  # type: ignore[arg-type]  # a copy of a Net is one
    for target in targets:
        found = _parity(frozen, written, inputs, target, folder)
        yield Result(experiment, name, seed, target, *found)


def _parity(
    frozen: nn.Module, written: nn.Module, inputs: Tensor, target: str, folder: Path
) -> tuple[str, str]:
    """Status and reason of the check, of a file of ``written`` against ``frozen``."""
    suffix, options = TARGETS[target]
    path = folder / f"m.{suffix}"
    try:
        dkm.convert(written, inputs[:1], path, force=True, **options)
        report = dkm.validate(path, reference=frozen, inputs=inputs)
    except dkm.DkmError as error:
        return "refused", str(error)
    (check,) = (check for check in report.files[0].checks if check.name == "parity")
    return check.status, check.reason


def _read(path: Path) -> list[Result]:
    if not path.exists():
        return []
    return [Result(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def _print(results: list[Result]) -> None:
    print("| target | right files that pass | faults that fail | faults that pass |")
    print("|---|---|---|---|")
    for target in TARGETS:
        right = [r.status for r in results if (r.experiment, r.target) == ("right", target)]
        wrong = [r for r in results if (r.experiment, r.target) == ("faults", target)]
        unseen = sorted({r.name for r in wrong if r.status != "failed"})
        counts = f"{right.count('passed')} of {len(right)}"
        missed = f"{len(wrong) - sum(r.status != 'failed' for r in wrong)} of {len(wrong)}"
        print(f"| {target} | {counts} | {missed} | {'; '.join(unseen) or '-'} |")
    for result in results:
        if result.experiment == "right" and result.status != "passed":
            print(f"{result.target}: {result.name}, seed {result.seed}: {result.reason}")


if __name__ == "__main__":
    main()
