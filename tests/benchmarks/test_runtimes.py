"""The runners of the ONNX suite notice what is wrong: planted faults, without any runtime."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.runtimes import __main__ as command
from benchmarks.runtimes.__main__ import Row, results
from benchmarks.runtimes.runtimes import Outcome, PythonRuntime

RUNNERS = Path(__file__).parents[2] / "benchmarks" / "runtimes" / "runners"
EXPECTED = np.array([1, 2, 3, 4], np.float32)

# Each stands in for a runtime that gives these values for any model.
PYTHON = """
import sys, numpy as np
sys.path.insert(0, {runners!r})
from suite import run_suite
def run(path, folding, x):
    assert x.dtype == "int64" and x.shape == (2, 1)
    return {{"y": np.array({values}, np.float32).reshape({shape})}}
run_suite("1.0", ["on"], run)
"""
NODE = """
import {{ readFile }} from "node:fs/promises";
import {{ runSuite }} from {runners};
const session = {{
  run: async ({{ x }}) => ({{ y: {{ dims: {shape}, data: Float32Array.from({values}) }} }}),
  release: async () => null,
}};
class Tensor {{}}
const ort = {{ InferenceSession: {{ create: async () => session }}, Tensor }};
const read = async (name) => {{
  const file = await readFile(`${{process.argv[2]}}/${{name}}`);
  return file.buffer.slice(file.byteOffset, file.byteOffset + file.byteLength);
}};
await runSuite(ort, "1.0", read, (line) => console.log(JSON.stringify(line)));
"""
FAULTS = [
    # tolerance, shape and values that the runtime gives, what must be said
    (0, [4], "1, 2, 3, 4", None),
    (0, [4], "1, 2, 3.0000002, 4", "y[2] is "),
    (0.01, [4], "1, 2, 3.0000002, 4", None),
    (0.01, [4], "1.1, 2, 3, 4.1", "; 2 of 4 differ"),
    (0.01, [4], "1, NaN, 3, 4", "y[1] is "),
    (0, [2, 2], "1, 2, 3, 4", "y has shape "),
]


@pytest.fixture
def suite(tmp_path):
    """A suite of one model, whose tolerance is still to be set."""
    x = np.array([[5], [6]], np.int64)
    (tmp_path / "tensors.bin").write_bytes(x.tobytes() + EXPECTED.tobytes())
    (tmp_path / "m.onnx").write_bytes(b"")

    def write(tolerance: float) -> Path:
        y = {"name": "y", "tolerance": tolerance, "dtype": "float32", "shape": [4], "offset": 16}
        source = {"dtype": "int64", "shape": [2, 1], "offset": 0}
        manifest = {"models": [{"name": "m", "input": source, "outputs": [y]}]}
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        return tmp_path

    return write


def error(runner: list[str]) -> str | None:
    """What the last line of a runner says of the model."""
    done = subprocess.run(runner, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])["error"]


def check(found: str | None, message: str | None) -> None:
    assert (found is None) == (message is None), found
    assert message is None or message in found


@pytest.mark.parametrize(("tolerance", "shape", "values", "message"), FAULTS)
def test_the_python_runner_compares(suite, tolerance, shape, values, message):
    folder = suite(tolerance)
    values = f"[{values.replace('NaN', 'np.nan')}]"
    script = PYTHON.format(runners=str(RUNNERS), values=values, shape=shape)
    (folder / "run.py").write_text(script)
    check(error([sys.executable, str(folder / "run.py"), str(folder)]), message)


@pytest.mark.skipif(not shutil.which("node"), reason="node is not on PATH")
@pytest.mark.parametrize(("tolerance", "shape", "values", "message"), FAULTS)
def test_the_node_runner_compares(suite, tolerance, shape, values, message):
    folder = suite(tolerance)
    runners = json.dumps((RUNNERS / "suite.mjs").as_uri())
    script = NODE.format(runners=runners, values=f"[{values}]", shape=shape)
    (folder / "run.mjs").write_text(script)
    check(error(["node", str(folder / "run.mjs"), str(folder)]), message)


def lines(*found: dict) -> tuple[str, ...]:
    return tuple(json.dumps(line) for line in found)


def test_a_model_without_result_has_not_passed():
    first = {"version": "1.0", "foldings": ["on"]}
    passed = {"model": "a", "folding": "on", "error": None}
    runtime = PythonRuntime("R", "run.py")
    row = results(runtime, Outcome(lines(first, passed), "exit code -11: "), ["a", "b"])
    assert str(row) == "| R 1.0 | always folds | 1/2 |"
    assert row.failures() == ["R 1.0: b, folding on: no result: exit code -11: "]
    assert results(runtime, Outcome((), "exit code 1: "), ["a"]).not_run == "exit code 1: "


def test_a_missing_runtime_is_skipped(tmp_path):
    runtime = PythonRuntime("R", "run.py", ("package==1.0",))
    assert runtime.missing(tmp_path) == "package==1.0 is not installed"
    assert str(Row("R", "x")) == "| R | not run: x | |"


def test_the_command_prints_the_table_and_keeps_it(tmp_path, monkeypatch, capsys):
    wrong = {"model": "b", "folding": "on", "error": "y[0] is 1, expected 2"}
    found = lines({"version": "1.0", "foldings": ["on"]}, wrong)
    runtime = PythonRuntime("R", "run.py")
    monkeypatch.setattr(PythonRuntime, "run", lambda self, out: Outcome(found, None))
    missing = PythonRuntime("S", "run.py", ("package==1.0",))
    monkeypatch.setattr(command, "runtimes", lambda: [runtime, missing])
    monkeypatch.setattr(command, "write_suite", lambda folder, options: ["b"])
    monkeypatch.setattr(sys, "argv", ["runtimes", "--out", str(tmp_path), "--option", "opset=21"])
    assert command.main() == 1
    printed, kept = capsys.readouterr().out, (tmp_path / "results.md").read_text()
    for line in (
        "converted with {'opset': 21}",
        "| R 1.0 | always folds | 0/1 |",
        "| S | not run: package==1.0 is not installed | |",
        "- R 1.0: b, folding on: y[0] is 1, expected 2",
    ):
        assert line in printed
        assert line in kept
