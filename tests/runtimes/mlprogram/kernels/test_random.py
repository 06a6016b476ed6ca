"""Random operations: documented distribution, shape, and what a seed does."""

import numpy as np
import pytest
import torch

from dkm_deploy.errors import DkmError
from dkm_deploy.runtimes.mlprogram import runtime
from tests.formats.mlpackage.packages import mb, n, save

COUNT = 20_000
X = np.zeros(1, np.float32)
LOGITS = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]])
MAKERS = {
    "uniform": lambda **seed: mb.random_uniform(
        shape=[4, COUNT // 4], low=-1.0, high=3.0, name="y", **seed
    ),
    "normal": lambda **seed: mb.random_normal(
        shape=[4, COUNT // 4], mean=2.0, stddev=0.5, name="y", **seed
    ),
    "bernoulli": lambda **seed: mb.random_bernoulli(
        shape=[4, COUNT // 4], prob=0.3, name="y", **seed
    ),
}


def _session(folder, make):
    path = save(folder / "m.mlpackage", lambda x: (make(), mb.identity(x=x, name="same")), (1,))
    return runtime.load(path)


def _run(folder, make):
    return _session(folder, make).run({"x": X})["y"]


@pytest.mark.parametrize(
    ("kind", "mean", "deviation"),
    [
        ("uniform", 1.0, 4 / 12**0.5),
        ("normal", 2.0, 0.5),
        ("bernoulli", 0.3, (0.3 * 0.7) ** 0.5),
    ],
)
def test_shape_mean_and_deviation(tmp_path, kind, mean, deviation):
    made = _run(tmp_path, lambda: MAKERS[kind](seed=3))
    assert made.shape == (4, COUNT // 4)
    # Five standard errors of a mean; the deviation's is no larger than that.
    assert abs(made.mean() - mean) < 5 * deviation / COUNT**0.5
    assert abs(made.std() - deviation) < 5 * deviation / COUNT**0.5


def test_the_values_that_may_come(tmp_path):
    uniform = _run(tmp_path, lambda: MAKERS["uniform"](seed=0))
    assert uniform.min() >= -1 and uniform.max() <= 3  # noqa: PT018
    assert set(np.unique(_run(tmp_path, lambda: MAKERS["bernoulli"](seed=0)))) == {0, 1}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_seed_repeats_the_numbers_and_no_seed_does_not(tmp_path, kind):
    seeded = _session(tmp_path, lambda: MAKERS[kind](seed=7))
    first, second = (seeded.run({"x": X})["y"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, _run(tmp_path, lambda: MAKERS[kind](seed=8)))
    free = _session(tmp_path, lambda: MAKERS[kind]())
    first, second = (free.run({"x": X})["y"] for _ in range(2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("mode", ["logits", "probs"])
def test_categories_come_as_often_as_their_probabilities_say(tmp_path, mode):
    probabilities = LOGITS.softmax(-1)
    given = LOGITS if mode == "logits" else probabilities

    def body(x):
        return mb.random_categorical(x=x, mode=mode, size=COUNT, seed=1, name="y")

    path = save(tmp_path / "m.mlpackage", body, (2, 3))
    made = runtime.load(path).run({"x": n(given)})["y"]
    assert made.shape == (2, COUNT)
    for row, expected in zip(made, probabilities, strict=True):
        counts = np.bincount(row.astype(int), minlength=3)
        assert np.abs(counts / COUNT - n(expected)).max() < 5 * 0.5 / COUNT**0.5


def test_probabilities_that_are_none_are_an_error(tmp_path):
    path = save(
        tmp_path / "m.mlpackage", lambda x: mb.random_categorical(x=x, mode="probs"), (1, 3)
    )
    with pytest.raises(DkmError, match="operation random_categorical"):
        runtime.load(path).run({"x": np.float32([[-1, 0, 1]])})


def test_a_branch_draws_anew_in_each_run(tmp_path):
    def body(x):
        above = mb.reduce_sum(x=x, axes=[0], keep_dims=False)
        drawn = mb.cond(
            pred=mb.greater(x=above, y=-1.0),
            _true_fn=lambda: mb.random_normal(shape=[8]),
            _false_fn=lambda: mb.fill(shape=[8], value=0.0),
        )
        return mb.identity(x=drawn, name="y")

    session = runtime.load(save(tmp_path / "m.mlpackage", body, (1,)))
    first, second = (session.run({"x": X})["y"] for _ in range(2))
    assert not np.array_equal(first, second)
