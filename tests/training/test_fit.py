from __future__ import annotations

import copy
import io
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.nn import functional

import dkm_deploy as dkm
from dkm_deploy.training.fit import fit
from dkm_deploy.training.objective import distillation
from tests.training.runs import BATCHES, DATA, EPOCHS, STEPS, plain, run

QUIET = Console(file=io.StringIO())


class Killed(Exception):  # noqa: N818
    """Stands for a kill inside one process."""


def _kill_at(last):
    def after_step(step, loss):
        if step == last:
            raise Killed

    return after_step


def _assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def _linear(seed=0):
    torch.manual_seed(seed)
    return dkm.prepare(nn.Linear(16, 4), dkm.Recipe.uniform(2))


def _batches(count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(count, 8, 16, generator=generator)
    return [(batch, batch[:, :4].argmax(1)) for batch in made]


def _fit(model, data, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=options.pop("lr", 0.1))
    return fit(model, data, **({"epochs": 1, "optimizer": optimizer, "console": QUIET} | options))


class TestLearning:
    def test_the_loss_falls_and_steps_are_counted(self):
        model, losses = _linear(), []
        result = _fit(
            model, _batches(), epochs=30, lr=0.5, after_step=lambda step, loss: losses.append(loss)
        )
        assert sum(losses[-4:]) < 0.7 * sum(losses[:4])
        assert (result.steps, result.last_loss, result.resumed_from) == (120, losses[-1], None)
        assert int(model.parametrizations.weight[0].step) == 120
        assert not model.training

    def test_it_is_the_loop_that_one_writes_by_hand(self):
        model, byhand = _linear(), _linear()
        _fit(model, _batches())
        optimizer = torch.optim.SGD(byhand.train().parameters(), lr=0.1)
        for inputs, labels in _batches():
            optimizer.zero_grad()
            functional.cross_entropy(byhand(inputs), labels).backward()
            optimizer.step()
            dkm.advance(byhand)
        _assert_same(model.state_dict(), byhand.state_dict())

    def test_the_model_trains_again_after_a_callback_has_evaluated_it(self):
        undisturbed, evaluated = _linear(), _linear()
        _fit(undisturbed, _batches())
        _fit(evaluated, _batches(), after_step=lambda step, loss: evaluated.eval())
        _assert_same(undisturbed.state_dict(), evaluated.state_dict())

    def test_clipping_bounds_the_step(self):
        model = _linear()
        before = [p.detach().clone() for p in model.parameters()]
        _fit(model, _batches(1), lr=1.0, clip_norm=1e-3)
        moved = torch.cat(
            [(p - q).flatten() for p, q in zip(model.parameters(), before, strict=True)]
        )
        assert moved.norm().item() == pytest.approx(1e-3, rel=1e-3)

    def test_a_loss_of_ones_own_gets_outputs_and_labels(self):
        seen = []

        def loss(outputs, labels):
            seen.append((outputs.shape, labels))
            return outputs.square().mean()

        _fit(_linear(), [(torch.ones(8, 16), "anything")], loss=loss)
        assert seen == [((8, 4), "anything")]

    def test_inputs_can_be_keywords_or_several(self):
        class Both(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(16, 4)

            def forward(self, left, right):
                return self.layer(left + right)

        ends = []
        for wrap in (lambda x: (x, x), lambda x: {"right": x, "left": x}):
            torch.manual_seed(0)
            model = dkm.prepare(Both(), dkm.Recipe.uniform(2))
            _fit(model, [(wrap(x), y) for x, y in _batches()])
            ends.append(model.state_dict())
        _assert_same(*ends)


class TestDistillation:
    def test_is_the_divergence_of_the_softened_distributions(self):
        torch.manual_seed(0)
        student, teacher = torch.randn(2, 5, 7, dtype=torch.float64)
        p, q = (teacher / 3).softmax(1), (student / 3).softmax(1)
        expected = 9 * (p * (p / q).log()).sum(1).mean()
        torch.testing.assert_close(distillation(student, teacher, 3.0, -1), expected)
        turned = distillation(student.T, teacher.T, 3.0, 0)
        torch.testing.assert_close(turned, expected)

    def test_without_labels_the_student_goes_to_the_teacher(self):
        teacher, model = nn.Linear(16, 4), _linear(1)
        data = [inputs for inputs, _ in _batches()]
        before = copy.deepcopy(teacher.state_dict())
        distances = []
        _fit(
            model,
            data,
            teacher=teacher.train(),
            epochs=20,
            lr=0.5,
            after_step=lambda step, loss: distances.append(loss),
        )
        assert distances[-1] < 0.2 * distances[0]
        _assert_same(teacher.state_dict(), before)
        assert not teacher.training

    def test_labels_are_mixed_in_by_weight(self):
        torch.manual_seed(2)
        teacher, (batch,) = nn.Linear(16, 4), _batches(1)

        def loss(data, **options):
            return _fit(_linear(), data, **options).last_loss

        apart = loss([batch]), loss([(batch[0],)], teacher=teacher)
        for weight in (0.25, 1.0):
            mixed = loss([batch], teacher=teacher, teacher_weight=weight)
            assert mixed == pytest.approx((1 - weight) * apart[0] + weight * apart[1])

    def test_classes_may_be_in_another_dimension(self):
        torch.manual_seed(0)
        model = dkm.prepare(nn.Conv2d(3, 4, 1), dkm.Recipe.uniform(2))
        images, labels = torch.randn(2, 3, 5, 5), torch.randint(0, 4, (2, 5, 5))
        expected = functional.cross_entropy(model.train()(images), labels).item()
        torch.manual_seed(0)
        model = dkm.prepare(nn.Conv2d(3, 4, 1), dkm.Recipe.uniform(2))
        assert _fit(model, [(images, labels)], class_dim=1).last_loss == expected


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
        run(path, after_step=_kill_at(3))
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
            run(tmp_path / "run.pt", data=data, after_step=_kill_at(last))
        model, result = run(tmp_path / "run.pt", data=data, seed=9)
        _assert_same(model.state_dict(), whole[data])
        assert result.resumed_from == last - 1  # that step was not written yet
        assert result.steps == STEPS

    def test_a_killed_process_loses_nothing(self, tmp_path, whole):
        """SIGKILL, wherever it hits, again and again until the run is through."""
        path, end = tmp_path / "run.pt", tmp_path / "end.pt"
        command = [sys.executable, "-m", "tests.training.runs", str(path), str(end), "0.1"]
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
            assert not end.exists()
        step = torch.load(path, weights_only=True)["position"]["step"]
        assert 2 <= step < STEPS
        subprocess.run([*command[:-1], "0"], check=True)
        _assert_same(torch.load(end, weights_only=True), whole["global"])

    def test_a_finished_run_is_not_run_again(self, tmp_path):
        model, first = run(tmp_path / "run.pt")
        written = (tmp_path / "run.pt").read_bytes()
        again, second = run(tmp_path / "run.pt", seed=9, after_step=_kill_at(STEPS))
        assert (second.resumed_from, second.last_loss) == (STEPS, first.last_loss)
        _assert_same(again.state_dict(), model.state_dict())
        assert (tmp_path / "run.pt").read_bytes() == written

    def test_the_end_is_kept_though_no_multiple_of_every(self, tmp_path):
        model, _ = run(tmp_path / "run.pt", every=STEPS - 1)
        state = torch.load(tmp_path / "run.pt", weights_only=True)
        assert state["position"]["step"] == STEPS
        _assert_same(state["model"], model.state_dict())

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
        model = _linear()
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(
            dkm.DkmError, match=r"run\.pt: .*model: bias is missing in it and torch"
        ):
            _fit(model, _batches(5), epochs=EPOCHS, clip_norm=5.0, checkpoint=path)
        _assert_same(model.state_dict(), before)

    def test_of_other_palettes(self, tmp_path):
        _fit(_linear(), _batches(), checkpoint=tmp_path / "run.pt")
        torch.manual_seed(0)
        other = dkm.prepare(nn.Linear(16, 4), dkm.Recipe.uniform(2), method=dkm.DKM(iterations=3))
        with pytest.raises(
            dkm.DkmError, match=r"palette of weight is .*iterations=3.* in this run"
        ):
            _fit(other, _batches(), checkpoint=tmp_path / "run.pt")

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
            return lambda epoch: _batches(count)

        with pytest.raises(Killed):
            _fit(
                _linear(), halves(4), checkpoint=tmp_path / "r.pt", every=1, after_step=_kill_at(4)
            )
        with pytest.raises(dkm.DkmError, match="2 batches in epoch 1, .* written after 3"):
            _fit(_linear(), halves(2), checkpoint=tmp_path / "r.pt", every=1)

    def test_that_cannot_be_written_is_known_before_any_work(self, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(dkm.DkmError, match="cannot make this folder"):
            _fit(
                _linear(), _batches(), checkpoint=tmp_path / "file" / "r.pt", after_step=_kill_at(1)
            )

    def test_that_could_not_be_read_back_is_known_before_any_work(self, tmp_path):
        model = _linear()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer.param_groups[0]["note"] = Console
        with pytest.raises(dkm.DkmError, match=r"r\.pt: not a whole checkpoint"):
            _fit(
                model,
                _batches(),
                optimizer=optimizer,
                checkpoint=tmp_path / "r.pt",
                after_step=_kill_at(1),
            )


class TestDivergence:
    def _poisoned(self, value):
        batches = _batches()
        batches[2][0][3, 5] = value
        return batches

    def test_of_the_loss_names_the_step_and_keeps_the_checkpoint(self, tmp_path):
        model, path = _linear(), tmp_path / "run.pt"
        message = r"the loss is nan in step 3; .*; .*run\.pt keeps step 2"
        with pytest.raises(dkm.DkmError, match=message):
            _fit(model, self._poisoned(torch.nan), checkpoint=path, every=1)
        kept = torch.load(path, weights_only=True)["model"]
        whole = _linear()
        _fit(whole, _batches()[:2])
        _assert_same(kept, whole.state_dict())

    def test_of_the_gradient_names_the_parameter_and_spares_the_weights(self):
        model = _linear()
        with pytest.raises(Killed):
            _fit(model, _batches(), after_step=_kill_at(1))
        before = model.parametrizations.weight.original.clone()

        def loss(outputs, labels):
            return (outputs * 0).sqrt().sum()

        with pytest.raises(
            dkm.DkmError,
            match=r"^(weight|bias) and 1 more: the gradient is NaN or infinite in step 1",
        ):
            _fit(model, _batches(), loss=loss)
        assert torch.equal(model.parametrizations.weight.original, before)

    @pytest.mark.parametrize(
        ("part", "message"),
        [
            ("weight", r"weight: the weights hold NaN or infinity after step 1"),
            ("bias", "bias: NaN or infinity after step 1"),
        ],
    )
    def test_of_a_parameter_names_it(self, part, message):
        model = _linear()
        prepared = model.parametrizations.weight.original
        chosen = prepared if part == "weight" else model.bias
        optimizer = torch.optim.SGD([chosen], lr=torch.inf)
        with pytest.raises(dkm.DkmError, match=message):
            _fit(model, _batches(), optimizer=optimizer)


class TestWrongUse:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"epochs": 0}, "epochs is 0"),
            ({"every": 0}, "every is 0"),
            ({"clip_norm": -1.0}, "clip_norm is -1"),
            ({"temperature": 0.0}, "temperature is 0"),
            ({"teacher_weight": 1.5}, r"teacher_weight is 1\.5"),
            ({"teacher": nn.Linear(16, 5)}, r"teacher's outputs have shape \(8, 5\), .* \(8, 4\)"),
            ({"teacher": _linear()}, "the teacher is a prepared model"),
            (
                {"loss": lambda outputs, labels: outputs},
                r"loss returned a tensor of shape \(8, 4\)",
            ),
            ({"loss": lambda outputs, labels: 3.0}, r"loss returned 3\.0"),
            (
                {"optimizer": torch.optim.SGD(plain().parameters())},
                "none of the model's parameters",
            ),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(dkm.DkmError, match=message):
            _fit(_linear(), _batches(), **options)

    def test_schedulers(self):
        model = _linear()
        ours, others = (torch.optim.SGD(model.parameters(), lr=0.1) for _ in range(2))
        foreign = torch.optim.lr_scheduler.ConstantLR(others)
        with pytest.raises(dkm.DkmError, match="belongs to another optimizer"):
            _fit(model, _batches(), optimizer=ours, scheduler=foreign)
        metric = torch.optim.lr_scheduler.ReduceLROnPlateau(ours)
        with pytest.raises(dkm.DkmError, match="needs a metric"):
            _fit(model, _batches(), optimizer=ours, scheduler=metric)

    def test_a_teacher_of_the_same_parameters(self):
        model = nn.Sequential(nn.Linear(16, 4))
        teacher = nn.Sequential(nn.Linear(16, 4))
        teacher[0].bias = model[0].bias
        with pytest.raises(dkm.DkmError, match="shares parameters"):
            _fit(dkm.prepare(model, dkm.Recipe.uniform(2)), _batches(), teacher=teacher)

    def test_a_model_that_is_not_prepared(self):
        with pytest.raises(dkm.DkmError, match="call dkm.prepare"):
            _fit(nn.Linear(16, 4), _batches())

    def test_data(self):
        with pytest.raises(dkm.DkmError, match="no batch in epoch 2"):
            _fit(_linear(), iter(_batches()), epochs=2)
        with pytest.raises(dkm.DkmError, match="a batch has no labels"):
            _fit(_linear(), [torch.ones(8, 16)])
        with pytest.raises(dkm.DkmError, match="a batch has 3 parts"):
            _fit(_linear(), [(torch.ones(8, 16),) * 3])

    def test_outputs_that_are_no_scores(self):
        class Record(nn.Linear):
            def forward(self, x):
                return {"scores": super().forward(x)}

        model = dkm.prepare(Record(16, 4), dkm.Recipe.uniform(2))
        with pytest.raises(dkm.DkmError, match="returns a dict, not scores"):
            _fit(model, _batches())


class TestProgress:
    def _shown(self, data, *, terminal, epochs=2):
        text = io.StringIO()
        console = Console(file=text, force_terminal=terminal, width=100)
        _fit(_linear(), data, epochs=epochs, console=console)
        return text.getvalue()

    def test_is_plain_lines_with_the_loss_in_a_log(self):
        lines = self._shown(_batches(20), terminal=False).splitlines()
        assert len(lines) == 10
        assert lines[0].startswith("fit: 10%, step 4, loss ")
        assert lines[-1].startswith("fit: 100%, step 40, loss ")
        assert float(lines[-1].split()[-1]) > 0

    def test_is_a_bar_with_the_loss_on_a_terminal(self):
        shown = self._shown(_batches(), terminal=True)
        assert "\x1b[" in shown
        assert "step 8, loss " in shown
        assert "100%" in shown

    def test_works_where_the_data_has_no_length(self):
        lines = self._shown(lambda epoch: iter(_batches()), terminal=False).splitlines()
        assert [line.split(",")[0] for line in lines] == ["fit: 50%"]
