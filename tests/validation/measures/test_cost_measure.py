"""Processes that measure files: in which order, with which settings, and what is said of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.validation.measures import cost_measure, cost_worker
from dkm_deploy.validation.measures.cost import FIGURES
from dkm_deploy.validation.measures.cost_measure import Meter, meter

X = torch.arange(12.0).reshape(4, 3)
OPTIONS = dkm.CostOptions(threads=3, rounds=3, runs=7, timeout_s=2.5)


# Its files take two samples of ``x`` at a time.
RUNTIME = SimpleNamespace(
    name="A runtime",
    bare=Path("bare.py"),
    load=lambda path: SimpleNamespace(input_shapes={"x": (2, 3)}),
)


@pytest.fixture
def asked(monkeypatch):
    """Files in the order in which they were measured, each with its settings."""
    found = []

    def child(path, place, options):
        assert options == OPTIONS
        told = json.loads((place / "settings.json").read_text())
        found.append((path, told))
        return dict.fromkeys(FIGURES, float(len(found)))

    monkeypatch.setattr(cost_measure, "timed_runtime", lambda path: RUNTIME)
    monkeypatch.setattr(cost_measure, "runtime_for", lambda path: RUNTIME)
    monkeypatch.setattr(cost_measure, "_child", child)
    return found


def _meter(tmp_path, original=None, options=OPTIONS, inputs=X):
    return Meter(options, inputs, original, tmp_path)


def test_two_files_are_measured_in_turns(tmp_path, asked):
    dense, path = tmp_path / "dense.onnx", tmp_path / "m.onnx"
    costs = _meter(tmp_path, dense).measure(path)
    assert [found for found, _ in asked] == [path, dense, dense, path, path, dense]
    assert (costs.file.load_s, costs.dense.load_s) == (4, 3)  # of 1, 4 and 5; of 2, 3 and 6
    assert costs.ratios["load_s"] == pytest.approx(5 / 6)
    assert (costs.beside, costs.batch, costs.threads, costs.rounds) == ("dense.onnx", 2, 3, 3)
    assert {told["path"] for found, told in asked if found == path} == {str(path)}


def test_a_process_is_told_all_that_it_needs(tmp_path, asked):
    costs = _meter(tmp_path).measure(tmp_path / "m.onnx")
    (_, told), *_ = asked
    folder = Path(told["out"]).parent
    assert folder.parent == tmp_path
    assert told == {
        "bare": "bare.py",
        "path": str(tmp_path / "m.onnx"),
        "inputs": str(folder / "inputs.npz"),
        "names": ["x"],
        "threads": 3,
        "runs": 7,
        "out": str(folder / "figures.json"),
    }
    with np.load(folder / "inputs.npz") as held:
        assert [held[key].tolist() for key in held.files] == [X[:2].tolist()]
    assert (costs.dense, costs.ratios) == (None, {})
    assert costs.beside == "neither a dense file nor the original model was given"
    assert [found for found, _ in asked] == [tmp_path / "m.onnx"] * 3


def test_the_users_file_goes_before_the_original(tmp_path, asked):
    mine = dkm.CostOptions(str(tmp_path / "mine.onnx"), threads=3, rounds=3, runs=7, timeout_s=2.5)
    found = _meter(tmp_path, tmp_path / "other.onnx", mine)._dense(Path("m.onnx"), RUNTIME, 2)
    assert found == (tmp_path / "mine.onnx", "mine.onnx")


def test_a_file_of_another_runtime_is_not_measured(tmp_path, asked):
    other = SimpleNamespace(name="Another")
    found = _meter(tmp_path, tmp_path / "d.onnx")._dense(Path("m.onnx"), other, 2)
    assert found == (None, "d.onnx is not run by Another")


def test_the_original_is_converted_once_for_each_kind_and_batch(tmp_path, monkeypatch, asked):
    model, made = nn.Linear(3, 2), []

    def convert(given, inputs, path, *, try_file):
        assert (given, try_file) == (model, False)
        made.append((path.name, inputs[0].tolist()))
        path.touch()

    monkeypatch.setattr(cost_measure, "convert", convert)
    measured = _meter(tmp_path, model)
    for path, batch in (("m.onnx", 1), ("n.onnx", 1), ("m.ort", 1), ("m.onnx", 2)):
        dense, told = measured._dense(Path(path), RUNTIME, batch)
        suffix = Path(path).suffix
        assert dense == tmp_path / f"dense.{batch}{suffix}"
        assert told == f"the original, converted to {suffix}"
    assert made == [
        ("dense.1.onnx", X[:1].tolist()),
        ("dense.1.ort", X[:1].tolist()),
        ("dense.2.onnx", X[:2].tolist()),
    ]


def test_an_original_that_cannot_be_converted_is_told(tmp_path, monkeypatch, asked):
    def convert(*_, **__):
        raise dkm.DkmError("no such layer")

    monkeypatch.setattr(cost_measure, "convert", convert)
    costs = _meter(tmp_path, nn.Linear(3, 2)).measure(tmp_path / "m.onnx")
    assert costs.beside == "the original cannot be converted: no such layer"
    assert costs.dense is None


class TestMeter:
    def test_its_folder_goes_with_it(self):
        model = nn.Linear(3, 2)
        with meter(OPTIONS, X, model) as found:
            assert found.folder.is_dir()
            assert (found.options, found.inputs, found.original) == (OPTIONS, X, model)
        assert not found.folder.exists()

    def test_there_is_none_unless_it_is_asked_for(self):
        with meter(None, X, None) as found:
            assert found is None

    def test_a_dense_file_must_be_there(self, tmp_path):
        with pytest.raises(FileNotFoundError), meter(dkm.CostOptions(tmp_path / "d.onnx"), X, None):
            pass
        (tmp_path / "d.onnx").touch()
        with meter(dkm.CostOptions(tmp_path / "d.onnx"), X, None) as found:
            assert found is not None


class TestChild:
    """One process; ``subprocess.run`` is the test's own."""

    @pytest.fixture
    def run(self, tmp_path, monkeypatch):
        def run_with(work=None, code=0, said=b""):
            def run(command, **how):
                run.command, run.how = command, how
                assert not (tmp_path / "figures.json").exists()
                if work is not None:
                    (tmp_path / "figures.json").write_text(work, "utf-8")
                return subprocess.CompletedProcess(command, code, None, said)

            monkeypatch.setattr(subprocess, "run", run)
            return run

        return run_with

    @staticmethod
    def _figures(tmp_path):
        return cost_measure._child(Path("a/m.onnx"), tmp_path, OPTIONS)

    def test_it_is_this_interpreter_with_the_threads_that_were_asked_for(
        self, tmp_path, monkeypatch, run
    ):
        monkeypatch.setenv("OMP_NUM_THREADS", "8")
        monkeypatch.setenv("KEPT", "yes")
        started = run('{"load_s": 1}')
        for _ in range(2):  # what an earlier process wrote is not read
            assert self._figures(tmp_path) == {"load_s": 1}
        script, settings = cost_worker.__file__, str(tmp_path / "settings.json")
        assert started.command == [sys.executable, "-P", "-W", "ignore", script, settings]
        environment = started.how.pop("env")
        assert (environment["OMP_NUM_THREADS"], environment["KEPT"]) == ("3", "yes")
        assert started.how == {
            "timeout": 2.5,
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.PIPE,
        }

    @pytest.mark.parametrize(
        ("how", "told"),
        [
            ({"work": '{"error": "KeyError: é"}'}, "KeyError: é"),
            ({"code": 3}, "its process ended with exit code 3"),
            ({}, "its process ended with exit code 0"),
            ({"code": -11}, "its process was ended by signal 11"),
            ({"code": -9}, "its process was ended by signal 9, probably for lack of memory"),
            (
                {"code": 1, "said": b"Traceback\n  so\nError: \xffno \n\n"},
                "its process ended with exit code 1: Error: \N{REPLACEMENT CHARACTER}no",
            ),
        ],
    )
    def test_why_it_gave_no_figures(self, tmp_path, run, how, told):
        run(**how)
        with pytest.raises(dkm.DkmError) as caught:
            self._figures(tmp_path)
        assert str(caught.value) == f"m.onnx: {told}"

    def test_one_that_hangs_is_ended(self, tmp_path, monkeypatch):
        def run(command, **_):
            raise subprocess.TimeoutExpired(command, 2.5)

        monkeypatch.setattr(subprocess, "run", run)
        with pytest.raises(dkm.DkmError) as caught:
            self._figures(tmp_path)
        assert str(caught.value) == "m.onnx: its process took more than 2.5 s"
