"""Measure files in fresh processes, each in turns with the dense file beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from torch import nn

from dkm_deploy._support.paths import existing_path
from dkm_deploy.conversion.convert import convert
from dkm_deploy.errors import DkmError
from dkm_deploy.model.inputs import Inputs
from dkm_deploy.model.samples import rows
from dkm_deploy.model.steps import Steps
from dkm_deploy.runtimes import Session, TimedRuntime, runtime_for, timed_runtime
from dkm_deploy.runtimes.run_file import least_batch, named_arrays
from dkm_deploy.validation.measures import cost_worker
from dkm_deploy.validation.measures.cost import CostOptions, Costs, Figures, middle, ratios


@dataclass(frozen=True)
class Meter:
    """Measures files on the first samples of some inputs.

    Attributes:
        options: how.
        inputs: of the validation.
        original: what the dense file is made from, or that file itself; None if it is not at hand.
        folder: for files that nobody keeps.
    """

    options: CostOptions
    inputs: Inputs | Steps
    original: nn.Module | Path | None
    folder: Path

    def measure(self, path: Path) -> Costs:
        """What ``path`` costs, beside the dense file if there is one.

        Raises:
            DkmError: no runtime here can be timed with it, or a process died, hung or failed.
        """
        runtime = timed_runtime(path)
        session = runtime.load(path)
        batch = least_batch(session)
        orders, files = [self._settings(path, session, runtime, batch)], [path]
        del session  # the dense one needs the memory
        dense, beside = self._dense(path, runtime, batch)
        if dense is not None:
            orders.append(self._settings(dense, runtime.load(dense), runtime, batch))
            files.append(dense)
        found: list[list[Figures]] = [[] for _ in files]
        for round_ in range(self.options.rounds):
            # Now the one first, now the other: a drift of the machine's speed is in neither.
            for place in sorted(range(len(files)), reverse=bool(round_ % 2)):
                figures = _child(files[place], orders[place], self.options)
                found[place].append(figures)
        return Costs(
            file=middle(found[0]),
            dense=None if dense is None else middle(found[1]),
            ratios={} if dense is None else ratios(*found),
            beside=beside,
            batch=batch,
            threads=self.options.threads,
            rounds=self.options.rounds,
        )

    def _dense(self, path: Path, runtime: TimedRuntime, batch: int) -> tuple[Path | None, str]:
        """The dense file to measure beside ``path``, and what it is; or why there is none."""
        given = self.options.dense or self.original
        if isinstance(given, (str, PathLike)):
            given = Path(given)
            if runtime_for(given) is runtime:
                return given, given.name
            return None, f"{given.name} is not run by {runtime.name}"
        if given is None:
            return None, "neither a dense file nor the original model was given"
        made = self.folder / f"dense.{batch}{path.suffix}"
        if not made.exists():
            try:
                convert(given, rows(self.inputs, 0, batch), made, try_file=False)
            except DkmError as error:
                return None, f"the original cannot be converted: {error}"
        return made, f"the original, converted to {path.suffix}"

    def _settings(self, path: Path, session: Session, runtime: TimedRuntime, batch: int) -> Path:
        """The order for one file, written for its processes."""
        arrays = named_arrays(session, rows(self.inputs, 0, batch))
        place = Path(tempfile.mkdtemp(dir=self.folder))
        np.savez(place / "inputs.npz", *arrays.values())
        told = {
            "bare": str(runtime.bare),
            "path": str(path),
            "inputs": str(place / "inputs.npz"),
            "names": list(arrays),
            "threads": self.options.threads,
            "runs": self.options.runs,
            "out": str(place / "figures.json"),
        }
        (place / "settings.json").write_text(json.dumps(told), "utf-8")
        return place


@contextmanager
def meter(
    options: CostOptions | None, inputs: Inputs | Steps, original: nn.Module | Path | None
) -> Iterator[Meter | None]:
    """A meter whose temporary files go with it; None without options.

    Raises:
        DkmError: the dense file is missing.
    """
    if options is None:
        yield None
        return
    if options.dense is not None:
        existing_path(options.dense)
    with tempfile.TemporaryDirectory() as folder:
        yield Meter(options, inputs, original, Path(folder))


def _child(path: Path, place: Path, options: CostOptions) -> Figures:
    """The figures of one process. Raises DkmError with the reason if it gives none."""
    out = place / "figures.json"
    out.unlink(missing_ok=True)
    script, settings = cost_worker.__file__, str(place / "settings.json")
    command = [sys.executable, "-P", "-W", "ignore", script, settings]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    try:
        done = subprocess.run(  # noqa: S603  # this interpreter, our script, our own settings
            command,
            env=environment,
            timeout=options.timeout_s,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    except subprocess.TimeoutExpired:
        raise DkmError(f"{path.name}: its process took more than {options.timeout_s:g} s") from None
    if not out.exists():
        raise DkmError(f"{path.name}: its process {_end(done)}")
    found = json.loads(out.read_text("utf-8"))
    if "error" in found:
        raise DkmError(f"{path.name}: {found['error']}")
    figures: Figures = found
    return figures


def _end(done: subprocess.CompletedProcess[bytes]) -> str:
    """How a process ended that gave nothing, with the last line it said."""
    how = f"ended with exit code {done.returncode}"
    if done.returncode < 0:
        how = f"was ended by signal {-done.returncode}"
        how += ", probably for lack of memory" if done.returncode == -signal.SIGKILL else ""
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return f"{how}: {said[-1]}" if said else how
