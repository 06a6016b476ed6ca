"""How models and loaded files are run: on which samples at a time, by which names and types."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dkm_deploy as dkm
from dkm_deploy.model.run import outputs_of, run_model
from dkm_deploy.runtimes import NotTakenError
from dkm_deploy.runtimes.run_file import (
    check_batches,
    cut,
    fixed_batch_of_session,
    least_batch,
    named_arrays,
    run_file,
)

X = torch.arange(12.0).reshape(6, 2)


class Session:
    """A file that gives back its inputs and notes what it was run on."""

    def __init__(self, **shapes) -> None:
        self.input_shapes, self.given = shapes, []

    def run(self, inputs):
        self.given.append({name: array.shape for name, array in inputs.items()})
        return dict(inputs)

    @property
    def batch_sizes(self) -> list[int]:
        return [shapes["x"][0] for shapes in self.given]


class Batched(Session):
    """One that allows some numbers of samples at a time."""

    def __init__(self, *batches) -> None:
        super().__init__(x=(None, 2))
        self.batches = batches


class Stateful(Session):
    """One that adds up what it was given since its first state."""

    states: tuple[str, ...] = ("sum",)

    def make_state(self):
        return np.zeros((1, 2), np.float32)

    def run(self, inputs, *, state=None):
        state = self.make_state() if state is None else state
        state += inputs["x"]
        return {"y": state.copy()}


class Translated(Session):
    """One that takes pixels and gives labels beside its scores."""

    interface: Interface

    def __init__(self) -> None:
        super().__init__(x=(None, 2))
        self.interface = Interface()


class Interface:
    def to_file_inputs(self, arrays):
        return {name: array * 255 for name, array in arrays.items()}

    def to_model_outputs(self, outputs):
        return {f"made {name}": array / 5 for name, array in outputs.items()}


class TestFiles:
    def test_a_file_is_run_on_its_own_batches(self):
        for session, sizes in (
            (Session(x=(2, 2)), [2, 2, 2]),
            (Session(x=(6, 2)), [6]),
            (Session(x=(None, 2)), [6]),
            (Batched((4, 4), (2, 3)), [4, 2]),
            (Batched((3, 3)), [3, 3]),
            (Batched(), [6]),
        ):
            found = run_file(session, X)
            assert session.batch_sizes == sizes
            assert np.array_equal(found["x"], X)

    def test_no_more_samples_go_at_a_time_than_to_the_model(self):
        session = Session(x=(None, 1))
        run_file(session, torch.ones(600, 1))
        assert session.batch_sizes == [256, 256, 88]

    def test_samples_that_do_not_fill_the_last_batch_are_refused(self):
        message = "^6 samples do not split into batches of 4, the fixed batch size of the file$"
        with pytest.raises(dkm.DkmError, match=message):
            run_file(Session(x=(4, 2)), X)
        check_batches(6, 3)

    def test_inputs_that_share_no_samples_go_whole(self):
        session = Session(x=(2, 2), state=(1, 2, 2))
        run_file(session, {"x": X[:2], "state": torch.ones(1, 2, 2)})
        assert session.given == [{"x": (2, 2), "state": (1, 2, 2)}]

    def test_steps_go_on_with_the_state_of_the_one_before(self):
        steps = dkm.Steps([X[:1], X[1:2], X[2:3]])
        found = run_file(Stateful(x=(1, 2)), steps)
        assert np.array_equal(found["y"], X[:3].cumsum(0))
        forgets = Stateful(x=(1, 2))
        forgets.states = ()
        assert np.array_equal(run_file(forgets, steps)["y"], X[:3])
        assert np.array_equal(run_file(Session(x=(1, 2)), steps)["x"], X[:3])

    def test_each_batch_starts_from_the_first_state(self):
        assert np.array_equal(run_file(Stateful(x=(1, 2)), X[:3])["y"], X[:3])

    def test_what_the_file_takes_and_gives_is_translated(self):
        found = run_file(Translated(), X)
        assert list(found) == ["made x"]
        assert np.allclose(found["made x"], X * 51)

    @pytest.mark.parametrize(
        ("shapes", "fixed"),
        [({"x": (4, 2)}, 4), ({"s": (), "x": (3, 2)}, 3), ({"x": (None, 2)}, None), ({}, None)],
    )
    def test_the_first_input_with_a_dimension_tells_the_batch(self, shapes, fixed):
        assert fixed_batch_of_session(Session(**shapes)) == fixed
        assert least_batch(Session(**shapes)) == (fixed or 1)

    def test_the_least_batch_is_the_least_that_is_allowed(self):
        assert least_batch(Batched((4, 8), (2, 2))) == 2
        fixed = Batched((4, 8))
        fixed.input_shapes = {"x": (5, 2)}
        assert least_batch(fixed) == 5

    def test_scalars_go_with_each_part(self):
        parts = list(cut({"x": np.arange(5), "s": np.array(7)}, 5, 2))
        assert [part["x"].tolist() for part in parts] == [[0, 1], [2, 3], [4]]
        assert [part["s"].item() for part in parts] == [7, 7, 7]


class TestNames:
    def test_inputs_go_in_order_or_by_name(self):
        session = Session(a=(None,), b=(None,))
        one, two = torch.ones(1), torch.zeros(1)
        for inputs in ((one, two), [one, two], {"b": two, "a": one}, {"B": two, "A": one}):
            found = named_arrays(session, inputs)
            assert {name: array.item() for name, array in found.items()} == {"a": 1, "b": 0}
        assert list(named_arrays(session, (one, two))) == ["a", "b"]

    def test_names_are_found_as_exporters_spell_them(self):
        session = Session(pixel_values=(None,), mask_0=(None,))
        given = {"pixel.values": torch.ones(1), "Mask": [torch.zeros(1)]}
        assert set(named_arrays(session, given)) == {"pixel_values", "mask_0"}
        unknown = {"pixel_values": torch.ones(1), "other": torch.ones(1)}
        assert set(named_arrays(session, unknown)) == {"pixel_values", "other"}

    def test_one_input_needs_no_name(self):
        assert list(named_arrays(Session(a=(None,)), {"other": torch.ones(1)})) == ["a"]
        assert list(named_arrays(Session(a=(None,), b=()), {"c": torch.ones(1)})) == ["c"]

    def test_a_number_that_the_file_takes_is_an_array(self):
        session = Session(x=(None,), gain=(), many=())
        inputs = {"x": torch.ones(1), "gain": 2.5, "many": True}
        found = named_arrays(session, inputs)
        assert {name: array.tolist() for name, array in found.items()} == {
            "x": [1],
            "gain": 2.5,
            "many": True,
        }
        constant = named_arrays(Session(x=(None,), y=(None,)), {**inputs, "y": torch.ones(1)})
        assert set(constant) == {"x", "y"}
        words = {"x": torch.ones(1), "gain": "loud", "many": None}
        assert set(named_arrays(session, words)) == {"x"}

    def test_other_numbers_of_inputs_are_refused(self):
        with pytest.raises(dkm.DkmError, match="^2 inputs given; the file takes a, b, c$"):
            named_arrays(Session(a=(), b=(), c=()), (torch.ones(1), torch.ones(1)))

    def test_arrays_are_plain(self):
        found = named_arrays(Session(x=(None,)), torch.ones(1, requires_grad=True))
        assert type(found["x"]) is np.ndarray
        words = {"x": np.array(["a"]), "y": torch.ones(1)}
        assert named_arrays(Session(x=(None,), y=(None,)), words)["x"].tolist() == ["a"]
        assert named_arrays(Translated(), X[:1])["x"].tolist() == [[0, 255]]


class TestModels:
    def test_whole_numbers_stay_and_the_rest_is_float32(self):
        class Model(nn.Module):
            def forward(self, x: Tensor) -> dict[str, Tensor | int]:
                types = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32)
                types += (torch.int64, torch.float16, torch.float64, torch.bfloat16)
                named = {str(dtype).split(".")[1]: x.to(dtype) for dtype in types}
                return {**named, "number": 3}

        found = outputs_of(Model(), torch.ones(2, requires_grad=True))
        floats = {"float16", "float64", "bfloat16"}
        assert {name: str(array.dtype) for name, array in found.items()} == {
            name: "float32" if name in floats else name for name in found
        }
        assert len(found) == 9

    def test_a_model_that_gives_no_tensor_or_fails_is_told(self):
        class Gives(nn.Module):
            def __init__(self, value: object) -> None:
                super().__init__()
                self.value = value

            def forward(self, x: Tensor) -> object:
                if isinstance(self.value, Exception):
                    raise self.value
                return self.value

        with pytest.raises(dkm.DkmError) as caught:
            outputs_of(Gives([1]), X)
        told = "the PyTorch model gives a list without any tensor, and a file returns nothing else"
        assert str(caught.value) == told
        with pytest.raises(dkm.DkmError) as caught:
            outputs_of(Gives(KeyError("key")), X)
        assert str(caught.value) == (
            "the PyTorch model does not run on the inputs: KeyError: 'key'"
        )

    def test_inputs_are_not_written_and_outputs_are_copies(self):
        class Writes(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.add_(1)

        x = X.clone()
        found = outputs_of(Writes(), x)["output"]
        assert torch.equal(x, X)
        assert np.array_equal(found, X + 1)

    @pytest.mark.parametrize(("fixed", "sizes"), [(None, [4, 2]), (3, [3, 3])])
    def test_a_model_is_run_in_blocks_or_on_its_fixed_batch(self, fixed, sizes):
        seen = []

        class Notes(nn.Module):
            fixed_batch = fixed

            def forward(self, x: Tensor, *_: Tensor) -> Tensor:
                seen.append(len(x))
                return x

        assert np.array_equal(run_model(Notes(), X, block=4)["output"], X)
        assert [n for n in seen if n > 1] == sizes
        if fixed is None:
            seen.clear()
            run_model(Notes(), torch.ones(600, 1))
            assert [n for n in seen if n > 1] == [256, 256, 88]
            seen.clear()
            run_model(Notes(), (torch.ones(6, 1), torch.ones(1, 6)), block=4)
            assert seen[-1] == 6  # no dimension of samples to cut

    def test_a_model_that_keeps_state_is_run_one_by_one(self):
        class Sums(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("total", torch.zeros(2))

            def forward(self, x: Tensor) -> Tensor:
                self.total += x.sum(0)
                return self.total.expand(len(x), 2)

        assert np.array_equal(run_model(Sums(), X)["output"], X)
        assert np.array_equal(run_model(Sums(), X[:1])["output"], X[:1])

    def test_what_is_no_model_is_told(self):
        with pytest.raises(dkm.DkmError, match="^model is 3; give a torch.nn.Module$"):
            run_model(3, X)

    def test_a_model_of_bfloat16_runs_in_float32(self):
        model = nn.Linear(2, 2)
        wide = model.bfloat16().float()
        with torch.no_grad():
            expected = wide(X)
        assert np.array_equal(run_model(wide.bfloat16(), X)["output"], expected)


def test_what_an_image_cannot_be_given_is_told_as_it_is():
    class Refuses(Interface):
        def to_file_inputs(self, arrays):
            raise NotTakenError("no pixels")

    session = Translated()
    session.interface = Refuses()
    with pytest.raises(NotTakenError, match="^no pixels$"):
        run_file(session, X)
