"""What a process measures of a file, by a clock and by memory that the test moves."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from dkm_deploy.validation.measures import cost_worker


class Machine:
    """A clock, and a process whose files, under ``folder``, tell its memory."""

    def __init__(self, folder):
        self.now, self.status, self.clear = 100.0, folder / "status", folder / "clear_refs"
        self.remember(40, 90)
        self.clear.write_text("")

    def remember(self, resident, peak):
        self.status.write_text(f"Name: python\nVmHWM:\t  {peak} kB\nVmRSS:\t {resident} kB\n")

    def perf_counter(self):
        return self.now


@pytest.fixture
def machine(tmp_path, monkeypatch):
    machine = Machine(tmp_path)
    monkeypatch.setattr(cost_worker, "time", machine)
    monkeypatch.setattr(cost_worker, "_STATUS", machine.status)
    monkeypatch.setattr(cost_worker, "_CLEAR", machine.clear)
    return machine


@pytest.fixture
def inputs(tmp_path):
    np.savez(tmp_path / "inputs.npz", np.arange(3), np.ones(2))
    return str(tmp_path / "inputs.npz")


def _measured(monkeypatch, machine, inputs, seconds, runs=50, names=("b", "a")):
    """Figures of a file that takes 3 s to load and then these seconds for each run."""
    taken, left = [], iter(seconds)

    def run(arrays):
        taken.append({name: array.tolist() for name, array in arrays.items()})
        machine.now += next(left)
        machine.remember(70, 120)

    def load(path, threads):
        assert (path, threads) == ("m.onnx", 3)
        assert machine.clear.read_text() == "5"
        machine.now += 3
        return run

    monkeypatch.setattr(
        cost_worker, "runpy", SimpleNamespace(run_path={"bare.py": {"load": load}}.get)
    )
    found = cost_worker.measure("bare.py", "m.onnx", inputs, list(names), 3, runs)
    assert taken == [{"b": [0, 1, 2], "a": [1.0, 1.0]}] * len(taken)
    return found, len(taken) - 1


def test_figures_of_a_file(monkeypatch, machine, inputs):
    seconds = [2.0, 0.5, 1.5, 0.25, 0.75, 1.0]
    found, runs = _measured(monkeypatch, machine, inputs, seconds)
    assert runs == 5
    assert found == {
        "load_s": 3.0,
        "first_s": 2.0,
        "median_s": 0.75,
        "p95_s": pytest.approx(1.4),
        "peak_bytes": 1024 * (120 - 40),
        "steady_bytes": 1024 * (70 - 40),
    }
    assert type(found["median_s"]) is type(found["p95_s"]) is float


@pytest.mark.parametrize(
    ("each", "most", "runs"), [(0.25, 50, 8), (0.25, 7, 7), (1.0, 50, 5), (0.5, 5, 5), (0.0, 9, 9)]
)
def test_it_runs_for_two_seconds_but_at_least_five_times(
    monkeypatch, machine, inputs, each, most, runs
):
    found, counted = _measured(monkeypatch, machine, inputs, [9.0] + 60 * [each], most)
    assert (counted, found["median_s"]) == (runs, each)


def test_names_are_those_of_all_arrays(monkeypatch, machine, inputs):
    with pytest.raises(ValueError, match="zip"):
        _measured(monkeypatch, machine, inputs, [1.0] * 60, names=("a",))


def test_where_memory_cannot_be_read_it_is_not_told(monkeypatch, machine, inputs, tmp_path):
    monkeypatch.setattr(cost_worker, "_STATUS", tmp_path / "none")
    found, _ = _measured(monkeypatch, machine, inputs, [1.0] * 60)
    assert (found["peak_bytes"], found["steady_bytes"]) == (None, None)


@pytest.mark.parametrize("at", ["start", "end"])
def test_memory_that_is_known_at_one_end_alone_is_not_told(
    monkeypatch, machine, inputs, tmp_path, at
):
    def remember(resident, peak):
        monkeypatch.setattr(cost_worker, "_STATUS", machine.status if at == "end" else absent)

    absent = tmp_path / "none"
    monkeypatch.setattr(cost_worker, "_STATUS", absent if at == "end" else machine.status)
    monkeypatch.setattr(machine, "remember", remember)
    found, _ = _measured(monkeypatch, machine, inputs, [1.0] * 60)
    assert (found["peak_bytes"], found["steady_bytes"]) == (None, None)


def test_a_peak_that_cannot_start_anew_is_taken_as_it_is(monkeypatch, machine, inputs):
    machine.clear.unlink()
    monkeypatch.setattr(cost_worker, "runpy", SimpleNamespace(run_path=lambda _: {"load": _load}))

    def _load(path, threads):
        return lambda arrays: None

    found = cost_worker.measure("bare.py", "m.onnx", inputs, ["b", "a"], 1, 5)
    assert (found["peak_bytes"], found["steady_bytes"]) == (1024 * 50, 0)
    assert not machine.clear.exists()


@pytest.mark.parametrize("there", [True, False])
def test_what_malloc_keeps_is_given_back_on_linux_alone(machine, monkeypatch, there):
    given, opened = [], []

    def open_(name):
        opened.append(name)
        return SimpleNamespace(malloc_trim=given.append)

    monkeypatch.setattr(cost_worker, "ctypes", SimpleNamespace(CDLL=open_))
    if not there:
        machine.status.unlink()
    cost_worker._trim()
    assert (given, opened) == (([0], [None]) if there else ([], []))


def test_another_libc_has_no_such_function(machine, monkeypatch):
    monkeypatch.setattr(cost_worker, "ctypes", SimpleNamespace(CDLL=lambda _: object()))
    cost_worker._trim()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def load(path, threads): return lambda arrays: None", None),
        ("def load(path, threads): raise MemoryError('out\\n  of it')", "MemoryError: out of it"),
        ("raise KeyError('é')", "KeyError: 'é'"),
    ],
)
def test_figures_or_an_error_are_written_for_the_one_who_asked(tmp_path, inputs, text, told):
    (tmp_path / "bare.py").write_text(text)
    out, settings = tmp_path / "figures.json", tmp_path / "settings.json"
    asked = {"bare": str(tmp_path / "bare.py"), "path": "m.onnx", "inputs": inputs}
    asked |= {"names": ["b", "a"], "threads": 1, "runs": 5, "out": str(out)}
    settings.write_text(json.dumps(asked))
    cost_worker.main(settings)
    found = json.loads(out.read_text("utf-8"))
    assert found == {"error": told} if told else found["load_s"] >= 0
