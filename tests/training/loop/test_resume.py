"""A run that is killed goes on bit for bit; a checkpoint of anything else is refused."""

from __future__ import annotations

import copy
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from rich.console import Console
from torch import nn

import dkm_deploy as dkm
from tests.training.loop.runs import (
    BATCHES,
    DATA,
    EPOCHS,
    STEPS,
    Killed,
    assert_same,
    batches,
    fit_quietly,
    kill_at,
    linear,
    plain,
    run,
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Layers this small only wait for a second one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole():
    """Final states of runs that nothing interrupted, without a checkpoint."""
    return {data: run(data=data)[0].state_dict() for data in DATA}


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """The bytes of a checkpoint of two steps."""
    path = tmp_path_factory.mktemp("half") / "run.pt"
    with pytest.raises(Killed):
        run(path, after_step=kill_at(3))
    return path.read_bytes()


class TestResuming:
    @pytest.mark.parametrize(
        ("data", "last"),
        [
            *(("global", last) for last in (1, BATCHES, BATCHES + 1, BATCHES + 3, STEPS)),
            *(("generator", last) for last in (BATCHES + 1, BATCHES + 3)),
            ("function", BATCHES + 3),
        ],
    )
    def test_at_any_step_gives_the_same_bits(self, tmp_path, whole, data, last):
        with pytest.raises(Killed):
            run(tmp_path / "run.pt", data=data, after_step=kill_at(last))
        model, result = run(tmp_path / "run.pt", data=data, seed=9)
        assert_same(model.state_dict(), whole[data])
        assert result.resumed_from == last - 1  # that step was not written yet
        assert result.steps == STEPS

    def test_a_killed_process_loses_nothing(self, tmp_path, whole):
        """SIGKILL, wherever it hits, again and again until the run is through."""
        path, lag = tmp_path / "run.pt", "0.1"
        command = [sys.executable, "-m", "tests.training.loop.runs", str(path), lag]
        wait = random.Random(0)  # noqa: S311
        for _ in range(2):
            before = path.stat().st_mtime_ns if path.exists() else None
            process = subprocess.Popen(command)
            while not path.exists() or path.stat().st_mtime_ns == before:
                assert process.poll() is None
                time.sleep(0.01)
            time.sleep(wait.uniform(0, 0.2))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        step = torch.load(path, weights_only=True)["position"]["step"]
        assert 2 <= step < STEPS
        model, result = run(path, every=2, seed=9)
        assert result.resumed_from == step
        assert_same(model.state_dict(), whole["global"])

    def test_a_finished_run_is_skipped_again(self, tmp_path):
        model, first = run(tmp_path / "run.pt")
        written = (tmp_path / "run.pt").read_bytes()
        again, second = run(tmp_path / "run.pt", seed=9, after_step=kill_at(STEPS))
        assert (second.resumed_from, second.last_loss) == (STEPS, first.last_loss)
        assert_same(again.state_dict(), model.state_dict())
        assert (tmp_path / "run.pt").read_bytes() == written

    def test_the_end_is_kept_though_no_multiple_of_every(self, tmp_path):
        model, _ = run(tmp_path / "run.pt", every=STEPS - 1)
        state = torch.load(tmp_path / "run.pt", weights_only=True)
        assert state["position"]["step"] == STEPS
        assert_same(state["model"], model.state_dict())

    def test_nothing_but_the_checkpoint_is_left(self, tmp_path):
        run(tmp_path / "new" / "run.pt")
        assert [p.name for p in tmp_path.rglob("*")] == ["new", "run.pt"]


class TestForeignCheckpoints:
    @pytest.fixture
    def path(self, tmp_path, half):
        (tmp_path / "run.pt").write_bytes(half)
        return tmp_path / "run.pt"

    def _refused(self, path, message, **options):
        before = path.read_bytes()
        with pytest.raises(dkm.DkmError, match=rf"run\.pt: {message}"):
            run(path, **options)
        assert path.read_bytes() == before

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"epochs": EPOCHS + 1}, "epochs is 3 in it and 4 in this run"),
            ({"rate": 0.02}, r"optimizer param_groups 0 lr is 0\.01 in it and 0\.02 in this run"),
            ({"clip_norm": None}, r"clip_norm is 5\.0 in it and None"),
            ({"temperature": 2.0}, r"temperature is 4\.0 in it and 2\.0"),
            ({"teacher": None}, "teacher is [0-9a-f]{8} in it and None"),
            ({"teacher": plain(6)}, "teacher is [0-9a-f]{8} in it and [0-9a-f]{8}"),
            ({"data": "function"}, "batches in an epoch is 5 in it and None"),
        ],
    )
    def test_of_another_run(self, path, options, message):
        self._refused(path, f"a checkpoint of another run: {message}", **options)

    def test_of_another_model_leaves_this_one_alone(self, path):
        model = linear()
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(
            dkm.DkmError, match=r"run\.pt: .*model: bias is missing in it and torch"
        ):
            fit_quietly(model, batches(5), epochs=EPOCHS, clip_norm=5.0, checkpoint=path)
        assert_same(model.state_dict(), before)

    def test_of_other_palettes(self, tmp_path):
        fit_quietly(linear(), batches(), checkpoint=tmp_path / "run.pt")
        torch.manual_seed(0)
        other = dkm.prepare(nn.Linear(16, 4), dkm.Recipe.uniform(2), method=dkm.DKM(iterations=3))
        with pytest.raises(
            dkm.DkmError, match=r"palette of weight is .*iterations=3.* in this run"
        ):
            fit_quietly(other, batches(), checkpoint=tmp_path / "run.pt")

    @pytest.mark.parametrize("keep", [0, 10, 5000, -1])
    def test_truncated(self, path, keep):
        path.write_bytes(path.read_bytes()[:keep])
        self._refused(path, "not a whole checkpoint")

    def test_with_a_byte_changed(self, path):
        data = bytearray(path.read_bytes())
        weight = torch.load(path, weights_only=True)["model"]["5.parametrizations.weight.original"]
        data[data.index(weight.numpy().tobytes()) + 7] ^= 1
        path.write_bytes(data)
        self._refused(path, "not a whole checkpoint")

    def test_of_another_kind(self, path):
        torch.save(plain().state_dict(), path)
        self._refused(path, r"not a checkpoint of dkm\.fit")

    def test_that_would_run_code(self, path):
        torch.save(plain(), path)
        self._refused(path, "not a whole checkpoint")

    def test_after_which_the_data_ran_out(self, tmp_path):
        def halves(count):
            return lambda epoch: batches(count)

        with pytest.raises(Killed):
            fit_quietly(
                linear(), halves(4), checkpoint=tmp_path / "r.pt", every=1, after_step=kill_at(4)
            )
        with pytest.raises(dkm.DkmError, match="2 batches in epoch 1, .* written after 3"):
            fit_quietly(linear(), halves(2), checkpoint=tmp_path / "r.pt", every=1)

    def test_that_cannot_be_written_is_known_before_any_work(self, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(dkm.DkmError, match="cannot make this folder"):
            fit_quietly(
                linear(), batches(), checkpoint=tmp_path / "file" / "r.pt", after_step=kill_at(1)
            )

    def test_that_could_not_be_read_back_is_known_before_any_work(self, tmp_path):
        model = linear()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer.param_groups[0]["note"] = Console
        with pytest.raises(dkm.DkmError, match=r"r\.pt: not a whole checkpoint"):
            fit_quietly(
                model,
                batches(),
                optimizer=optimizer,
                checkpoint=tmp_path / "r.pt",
                after_step=kill_at(1),
            )


def test_a_disk_that_is_full_is_told_as_such(tmp_path):
    resource = pytest.importorskip("resource")
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, most[1]))
    try:
        with pytest.raises(dkm.DkmError, match="cannot be written: File too large$"):
            fit_quietly(linear(), batches(), checkpoint=tmp_path / "run.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert not list(tmp_path.iterdir())
