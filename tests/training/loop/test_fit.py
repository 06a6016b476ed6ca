from __future__ import annotations

import copy
import io

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.nn import functional

import dkm_deploy as dkm
from dkm_deploy.training.loop.objective import distillation
from tests.training.loop.runs import (
    Killed,
    assert_same,
    batches,
    fit_quietly,
    kill_at,
    linear,
    plain,
)


class TestLearning:
    def test_the_loss_falls_and_steps_are_counted(self):
        model, losses = linear(), []
        result = fit_quietly(
            model, batches(), epochs=30, lr=0.5, after_step=lambda step, loss: losses.append(loss)
        )
        assert sum(losses[-4:]) < 0.7 * sum(losses[:4])
        assert (result.steps, result.last_loss, result.resumed_from) == (120, losses[-1], None)
        assert int(model.parametrizations.weight[0].step) == 120
        assert not model.training

    def test_it_is_the_loop_that_one_writes_by_hand(self):
        model, byhand = linear(), linear()
        fit_quietly(model, batches())
        optimizer = torch.optim.SGD(byhand.train().parameters(), lr=0.1)
        for inputs, labels in batches():
            optimizer.zero_grad()
            functional.cross_entropy(byhand(inputs), labels).backward()
            optimizer.step()
            dkm.step(byhand)
        assert_same(model.state_dict(), byhand.state_dict())

    def test_the_model_trains_again_after_a_callback_has_evaluated_it(self):
        undisturbed, evaluated = linear(), linear()
        fit_quietly(undisturbed, batches())
        fit_quietly(evaluated, batches(), after_step=lambda step, loss: evaluated.eval())
        assert_same(undisturbed.state_dict(), evaluated.state_dict())

    def test_clipping_bounds_the_step(self):
        model = linear()
        before = [p.detach().clone() for p in model.parameters()]
        fit_quietly(model, batches(1), lr=1.0, clip_norm=1e-3)
        moved = torch.cat(
            [(p - q).flatten() for p, q in zip(model.parameters(), before, strict=True)]
        )
        assert moved.norm().item() == pytest.approx(1e-3, rel=1e-3)

    def test_a_sparse_embedding_may_stay_dense(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(10, 8, sparse=True), nn.Linear(8, 4))
        dkm.prepare(model, dkm.Recipe(dkm.PaletteSpec(2), rules=[dkm.Rule("0.*", skip=True)]))
        before = model[0].weight.detach().clone()
        fit_quietly(model, [(torch.tensor([1, 1, 3]), torch.tensor([0, 1, 2]))])
        changed = (model[0].weight != before).any(1)
        assert changed.nonzero().flatten().tolist() == [1, 3]

    def test_a_loss_of_ones_own_gets_outputs_and_labels(self):
        seen = []

        def loss(outputs, labels):
            seen.append((outputs.shape, labels))
            return outputs.square().mean()

        fit_quietly(linear(), [(torch.ones(8, 16), "anything")], loss=loss)
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
            fit_quietly(model, [(wrap(x), y) for x, y in batches()])
            ends.append(model.state_dict())
        assert_same(*ends)


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
        torch.manual_seed(0)
        teacher = nn.Linear(16, 4)
        model = dkm.prepare(nn.Linear(16, 4), dkm.Recipe.uniform(4))  # enough to be like it
        data = [inputs for inputs, _ in batches()]
        before = copy.deepcopy(teacher.state_dict())
        distances = []
        fit_quietly(
            model,
            data,
            teacher=teacher.train(),
            epochs=20,
            lr=0.5,
            after_step=lambda step, loss: distances.append(loss),
        )
        assert distances[-1] < 0.2 * distances[0]
        assert_same(teacher.state_dict(), before)
        assert teacher.training  # as it was given

    def test_labels_are_mixed_in_by_weight(self):
        torch.manual_seed(2)
        teacher, (batch,) = nn.Linear(16, 4), batches(1)

        def loss(data, **options):
            return fit_quietly(linear(), data, **options).last_loss

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
        assert fit_quietly(model, [(images, labels)], class_dim=1).last_loss == expected


class TestDivergence:
    def _poisoned(self, value):
        data = batches()
        data[2][0][3, 5] = value
        return data

    def test_of_the_loss_names_the_step_and_keeps_the_checkpoint(self, tmp_path):
        model, path = linear(), tmp_path / "run.pt"
        message = r"the loss is nan in step 3; .*; .*run\.pt keeps step 2"
        with pytest.raises(dkm.DkmError, match=message):
            fit_quietly(model, self._poisoned(torch.nan), checkpoint=path, every=1)
        kept = torch.load(path, weights_only=True)["model"]
        whole = linear()
        fit_quietly(whole, batches()[:2])
        assert_same(kept, whole.state_dict())

    def test_of_the_gradient_names_the_parameter_and_spares_the_weights(self):
        model = linear()
        with pytest.raises(Killed):
            fit_quietly(model, batches(), after_step=kill_at(1))
        before = model.parametrizations.weight.original.clone()

        def loss(outputs, labels):
            return (outputs * 0).sqrt().sum()

        with pytest.raises(
            dkm.DkmError,
            match=r"^(weight|bias) and 1 more: the gradient is NaN or infinite in step 1",
        ):
            fit_quietly(model, batches(), loss=loss)
        assert torch.equal(model.parametrizations.weight.original, before)

    @pytest.mark.parametrize(
        ("part", "message"),
        [
            ("weight", r"weight: the weights hold NaN or infinity after step 1"),
            ("bias", "bias: NaN or infinity after step 1"),
        ],
    )
    def test_of_a_parameter_names_it(self, part, message):
        model = linear()
        prepared = model.parametrizations.weight.original
        chosen = prepared if part == "weight" else model.bias
        optimizer = torch.optim.SGD([chosen], lr=torch.inf)
        with pytest.raises(dkm.DkmError, match=message):
            fit_quietly(model, batches(), optimizer=optimizer)


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
            ({"teacher": linear()}, "the teacher is a prepared model"),
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
            fit_quietly(linear(), batches(), **options)

    def test_schedulers(self):
        model = linear()
        ours, others = (torch.optim.SGD(model.parameters(), lr=0.1) for _ in range(2))
        foreign = torch.optim.lr_scheduler.ConstantLR(others)
        with pytest.raises(dkm.DkmError, match="belongs to another optimizer"):
            fit_quietly(model, batches(), optimizer=ours, scheduler=foreign)
        metric = torch.optim.lr_scheduler.ReduceLROnPlateau(ours)
        with pytest.raises(dkm.DkmError, match="needs a metric"):
            fit_quietly(model, batches(), optimizer=ours, scheduler=metric)

    def test_a_teacher_of_the_same_parameters(self):
        model = nn.Sequential(nn.Linear(16, 4))
        teacher = nn.Sequential(nn.Linear(16, 4))
        teacher[0].bias = model[0].bias
        with pytest.raises(dkm.DkmError, match="shares parameters"):
            fit_quietly(dkm.prepare(model, dkm.Recipe.uniform(2)), batches(), teacher=teacher)

    def test_a_model_that_is_not_prepared(self):
        with pytest.raises(dkm.DkmError, match="call dkm.prepare"):
            fit_quietly(nn.Linear(16, 4), batches())

    def test_data(self):
        with pytest.raises(dkm.DkmError, match="no batch in epoch 2"):
            fit_quietly(linear(), iter(batches()), epochs=2)
        with pytest.raises(dkm.DkmError, match="a batch has no labels"):
            fit_quietly(linear(), [torch.ones(8, 16)])
        with pytest.raises(dkm.DkmError, match="a batch has 3 parts"):
            fit_quietly(linear(), [(torch.ones(8, 16),) * 3])

    def test_outputs_that_are_no_scores(self):
        class Record(nn.Linear):
            def forward(self, x):
                return {"scores": super().forward(x)}

        model = dkm.prepare(Record(16, 4), dkm.Recipe.uniform(2))
        with pytest.raises(dkm.DkmError, match="returns a dict, not scores"):
            fit_quietly(model, batches())


class TestProgress:
    def _shown(self, data, *, terminal, epochs=2):
        text = io.StringIO()
        console = Console(file=text, force_terminal=terminal, width=100)
        fit_quietly(linear(), data, epochs=epochs, console=console)
        return text.getvalue()

    def test_is_plain_lines_with_the_loss_in_a_log(self):
        lines = self._shown(batches(20), terminal=False).splitlines()
        assert len(lines) == 10
        assert lines[0].startswith("fit: 10%, step 4, loss ")
        assert lines[-1].startswith("fit: 100%, step 40, loss ")
        assert float(lines[-1].split()[-1]) > 0

    def test_is_a_bar_with_the_loss_on_a_terminal(self):
        shown = self._shown(batches(), terminal=True)
        assert "\x1b[" in shown
        assert "step 8, loss " in shown
        assert "100%" in shown

    def test_works_where_the_data_has_no_length(self):
        lines = self._shown(lambda epoch: iter(batches()), terminal=False).splitlines()
        assert [line.split(",")[0] for line in lines] == ["fit: 50%"]
