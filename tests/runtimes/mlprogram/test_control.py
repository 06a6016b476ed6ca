"""Control flow, lists, states, class labels, and several functions in one package."""

import numpy as np
import pytest
import torch

from dkm_deploy._support.silence import quiet
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.ml_program import functions
from dkm_deploy.formats.mlpackage.package import open_package
from dkm_deploy.runtimes.mlprogram import runtime
from dkm_deploy.runtimes.mlprogram.evaluator import MLProgramEvaluator
from tests.formats.mlpackage.packages import ct, join, mb, n, rand, save


def operations(path):
    return [o.type for o in functions(open_package(path))["main"].body.walk()]


@pytest.fixture(scope="module")
def branch(tmp_path_factory):
    """y = 2 x, z = x + 1 if the sum of x is above 0, else y = x - 3, z = x."""

    def body(x):
        above = mb.greater(x=mb.reduce_sum(x=x), y=0.0)
        return mb.cond(
            pred=above,
            _true_fn=lambda: (mb.mul(x=x, y=2.0), mb.add(x=x, y=1.0)),
            _false_fn=lambda: (mb.sub(x=x, y=3.0), mb.identity(x=x)),
            name="both",
        )

    return save(tmp_path_factory.mktemp("branch") / "m.mlpackage", body, (4,))


@pytest.mark.parametrize("sign", [1, -1])
def test_cond(branch, sign):
    assert "cond" in operations(branch)
    x = sign * np.arange(1, 5, dtype=np.float32)
    y, z = runtime.load(branch).run({"x": x}).values()
    np.testing.assert_array_equal(y, 2 * x if sign > 0 else x - 3)
    np.testing.assert_array_equal(z, x + 1 if sign > 0 else x)


def test_overflow_inside_a_branch_is_reported(branch):
    session = MLProgramEvaluator(branch, numerics="fp16")
    session.run({"x": np.full(4, 40000, np.float32)})
    assert [(o.type, o.count, o.largest) for o in session.overflows] == [
        ("reduce_sum", 1, 160000.0),
        ("mul", 4, 80000.0),
    ]


def test_while_loop(tmp_path):
    def body(x):
        def go_on(i, total):
            return mb.less(x=i, y=5)

        def step(i, total):
            return mb.add(x=i, y=1), mb.add(x=mb.mul(x=total, y=2.0), y=x)

        return mb.while_loop(_cond=go_on, _body=step, loop_vars=(0, x), name="loop")[1]

    path = save(tmp_path / "m.mlpackage", body, (3,))
    assert "while_loop" in operations(path)
    x = np.float32([1, -2, 0.5])
    np.testing.assert_array_equal(runtime.load(path).run({"x": x}).popitem()[1], 63 * x)


def test_a_loop_without_end_is_given_up(tmp_path, monkeypatch):
    from dkm_deploy.runtimes.mlprogram import control

    monkeypatch.setattr(control, "_MOST_ROUNDS", 50)

    def body(x):
        return mb.while_loop(
            _cond=lambda y: mb.greater(x=mb.reduce_sum(x=y), y=0.0),
            _body=lambda y: mb.add(x=y, y=1.0),
            loop_vars=(x,),
        )

    path = save(tmp_path / "m.mlpackage", body, (3,))
    with pytest.raises(DkmError, match=r"while_loop .* a loop has not ended after 50 rounds"):
        runtime.load(path).run({"x": np.ones(3, np.float32)})


def test_lists_that_a_loop_fills(tmp_path):
    def body(x):
        squares = mb.make_list(init_length=1, elem_shape=(3,), dtype="fp32")

        def step(i, made):
            row = mb.squeeze(x=mb.gather(x=x, indices=[0]), axes=[0])
            row = mb.mul(x=row, y=mb.cast(x=i, dtype="fp32"))
            return mb.add(x=i, y=1), mb.list_write(ls=made, index=i, value=row)

        _, made = mb.while_loop(
            _cond=lambda i, made: mb.less(x=i, y=4), _body=step, loop_vars=(0, squares)
        )
        made = mb.list_scatter(ls=made, indices=[1, 2], value=x)
        return (
            mb.list_gather(ls=made, indices=[3, 0, 1, 2], name="rows"),
            mb.list_read(ls=made, index=3, name="last"),
            mb.list_length(ls=made, name="length"),
        )

    path = save(tmp_path / "m.mlpackage", body, (2, 3))
    x = rand(2, 3)
    actual = runtime.load(path).run({"x": n(x)})
    np.testing.assert_allclose(actual["rows"], n(torch.stack([3 * x[0], 0 * x[0], x[0], x[1]])))
    np.testing.assert_allclose(actual["last"], n(3 * x[0]))
    assert actual["length"] == 4


class Counter(torch.nn.Module):
    """Adds its input to a state, and gives twice the sum."""

    def __init__(self):
        super().__init__()
        self.register_buffer("total", torch.zeros(2, 3))

    def forward(self, x):
        self.total.add_(x)
        return self.total * 2


@pytest.fixture(scope="module")
def counter(tmp_path_factory):
    path = tmp_path_factory.mktemp("state") / "m.mlpackage"
    with quiet():
        program = torch.export.export(Counter(), (torch.zeros(2, 3),)).run_decompositions({})
        model = ct.convert(
            program,
            minimum_deployment_target=ct.target.iOS18,
            outputs=[ct.TensorType(name="y")],
            states=[ct.StateType(ct.TensorType(shape=(2, 3), dtype=np.float16), name="total")],
            skip_model_load=True,
        )
        model.save(str(path))
    return path


def test_a_state_lasts_from_run_to_run(counter):
    assert {"read_state", "write_state"} <= set(operations(counter))
    session = runtime.load(counter)
    state, x = session.make_state(), np.float32([[1, 2, 3], [4, 5, 6]])
    assert state["total"].dtype == np.float16
    for calls in (1, 2, 3):
        np.testing.assert_array_equal(session.run({"x": x}, state=state)["y"], 2 * calls * x)
        np.testing.assert_array_equal(state["total"], calls * x)


def test_without_a_state_every_run_starts_from_zeros(counter):
    session, x = runtime.load(counter), np.ones((2, 3), np.float32)
    for _ in range(2):
        np.testing.assert_array_equal(session.run({"x": x})["y"], 2 * x)
    assert list(session.input_shapes) == ["x"]


def test_wrong_states_are_told(counter):
    session, x = runtime.load(counter), np.ones((2, 3), np.float32)
    with pytest.raises(DkmError, match="states are none; the file takes total"):
        session.run({"x": x}, state={})
    with pytest.raises(DkmError, match=r"state 'total' has shape \(3,\); the file takes \(2, 3\)"):
        session.run({"x": x}, state={"total": np.zeros(3, np.float16)})


@pytest.mark.parametrize("labels", [["cat", "dog", "eel"], [7, 8, 9]])
def test_a_classifier_gives_label_and_probabilities(tmp_path, labels):
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softmax(-1)).eval()
    path, x = tmp_path / "m.mlpackage", rand(1, 4)
    with quiet():
        program = torch.export.export(module, (x,)).run_decompositions({})
        ct.convert(
            program,
            minimum_deployment_target=ct.target.iOS16,
            compute_precision=ct.precision.FLOAT32,
            classifier_config=ct.ClassifierConfig(labels),
            skip_model_load=True,
        ).save(str(path))
    assert "classify" in operations(path)
    expected = n(module(x).detach())[0]
    outputs = runtime.load(path).run({"input": n(x)})
    assert outputs["classLabel"] == labels[int(expected.argmax())]
    np.testing.assert_allclose(outputs["classLabel_probs"], expected, rtol=1e-5)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The functions main (x + 1) and twice (2 x)."""
    folder = tmp_path_factory.mktemp("two")
    parts = {
        "main": save(folder / "a.mlpackage", lambda x: mb.add(x=x, y=1.0, name="y"), (2,)),
        "twice": save(folder / "b.mlpackage", lambda x: mb.mul(x=x, y=2.0, name="y"), (2,)),
    }
    return join(parts, folder / "two.mlpackage")


def test_a_function_is_chosen_by_name(two):
    x = {"x": np.float32([3, 4])}
    assert runtime.load(two).functions == ("main", "twice")
    np.testing.assert_array_equal(runtime.load(two).run(x)["y"], [4, 5])
    np.testing.assert_array_equal(MLProgramEvaluator(two, function="twice").run(x)["y"], [6, 8])
    with pytest.raises(DkmError, match="there is no function 'half'; there are main, twice"):
        MLProgramEvaluator(two, function="half")
