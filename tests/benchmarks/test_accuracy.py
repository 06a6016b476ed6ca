"""The records and the table of trainings; the images that are trained on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.accuracy.clock import Clock, Spent
from benchmarks.accuracy.measure import Result, Written
from benchmarks.accuracy.resnet20 import augmented
from benchmarks.accuracy.results import append, read
from benchmarks.accuracy.settings import SETTINGS
from benchmarks.accuracy.table import table
from benchmarks.resnet20 import ResNet20

RESULT = Result(
    setting="resnet20-35x",
    seed=0,
    metric="top-1, %",
    dense=91.73,
    dense_bytes=1_078_888,
    others={"soft": 90.5},
    files={".onnx": Written(90.25, 43_000, 30_000, passed=False)},
    spent=Spent(7_200.0, 7_300.0),
    machine="a processor",
    packages="torch 2",
)


def test_results_are_read_as_they_were_written_and_the_last_counts(tmp_path):
    path = tmp_path / "measured.jsonl"
    assert read(path) == []
    append(path, replace(RESULT, dense=10.0))
    append(path, RESULT)
    append(path, replace(RESULT, seed=1))
    assert read(path) == [RESULT, replace(RESULT, seed=1)]


def test_the_table_has_a_row_for_each_file():
    head, _, row = table([RESULT])
    cells = dict(zip(head.split(" | "), row.split(" | "), strict=True))
    assert cells["score"] == "90.25 (failed)"
    assert cells["times smaller"] == "35.96 by what it stores"  # 1,078,888 / 30,000
    assert cells["CPU h |"] == "2.00 |"


def test_time_is_summed_over_processes(tmp_path):
    path = tmp_path / "spent.json"
    Clock(path).note()
    path.write_text('{"cpu_s": 100.0, "wall_s": 200.0}')
    clock = Clock(path)
    clock.note()
    assert 100 < clock.spent.cpu_s < 110
    assert Clock(path).spent == clock.spent
    assert clock.spent.wall_s > 200


@pytest.mark.parametrize("name", [n for n, s in SETTINGS.items() if s.network == "resnet20"])
def test_every_palette_fits_its_weight(name):
    with torch.device("meta"):
        model = ResNet20()
    specs = SETTINGS[name].way.recipe.assign(model).specs
    assert len(specs) == 20  # all convolutions and the last layer
    assert all(spec.refuse(model.get_parameter(n).shape) is None for n, spec in specs.items())


def test_each_image_is_shifted_and_mirrored_on_its_own():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 32, 32)
    made = augmented(image.expand(64, -1, -1, -1), generator)
    padded = torch.nn.functional.pad(image, (4, 4, 4, 4))[0]
    windows = [
        side[:, down : down + 32, right : right + 32]
        for side in (padded, padded.flip(2))
        for down in range(9)
        for right in range(9)
    ]
    places = [next(n for n, w in enumerate(windows) if torch.equal(w, one)) for one in made]
    assert len(set(places)) > 30
    assert {place // 81 for place in places} == {0, 1}
