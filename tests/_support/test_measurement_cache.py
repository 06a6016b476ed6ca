from __future__ import annotations

import pytest
import torch
from torch import nn

from dkm_deploy._support.measurement_cache import Cache, digest, model_digest, tensor_digest
from dkm_deploy.errors import DkmError


def test_values_outlive_the_process(tmp_path):
    Cache(tmp_path / "new").put("a", {"x": 1.5})
    assert Cache(tmp_path / "new").take("a", dict[str, float]) == {"x": 1.5}


def test_a_line_cut_short_is_measured_again(tmp_path):
    cache = Cache(tmp_path)
    cache.put("a", 1)
    cache.put("b", 2)
    file = tmp_path / "measured.jsonl"
    file.write_text(file.read_text()[:-5])
    resumed = Cache(tmp_path)
    assert resumed.take("a", int) == 1
    assert resumed.take("b", int) is None
    resumed.put("b", 3)
    assert Cache(tmp_path).take("b", int) == 3


def test_digests_tell_content_apart():
    one, other = torch.zeros(3), torch.tensor([0.0, 0, 1e-30])
    assert tensor_digest({"x": one}) == tensor_digest([torch.zeros(3)])
    assert len({tensor_digest(t) for t in (one, other, one.double(), one[None], one[0])}) == 5
    torch.manual_seed(0)
    linear = nn.Linear(2, 2)
    before = model_digest(linear)
    assert before == model_digest(linear)
    with torch.no_grad():
        linear.weight[0, 0] += 1
    assert before != model_digest(linear)


def test_functions_go_by_their_names():
    assert digest([digest]) == digest([digest])
    assert digest([digest]) != digest([tensor_digest])


def test_an_address_is_no_content():
    one, other = (object.__repr__(nn.Identity()) for _ in range(2))
    assert digest([_Named(one)]) == digest([_Named(other)])


class _Named:
    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return self.name


def test_what_is_damaged_is_measured_again(tmp_path):
    Cache(tmp_path).put("a", 1)
    with (tmp_path / "measured.jsonl").open("ab") as file:
        file.write(b'\xff\xfe\n[1]\n{"key": [], "value": 1}\n{"key": "b", "value": "much"}\n')
    cache = Cache(tmp_path)
    assert (cache.take("a", int), cache.take("b", float), cache.take("c", int)) == (1, None, None)


def test_a_cache_that_cannot_be_written_ends_nothing(tmp_path):
    (tmp_path / "measured.jsonl").mkdir()
    cache = Cache(tmp_path)
    with pytest.warns(UserWarning, match="nothing more is kept: Is a directory"):
        cache.put("a", 1)
    cache.put("b", 2)
    assert (cache.take("a", int), cache.take("b", int)) == (1, 2)


@pytest.mark.parametrize("name", ["file", "file/below", "n" * 300])
def test_what_cannot_be_a_folder_is_no_cache(tmp_path, name):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DkmError, match="cannot be used as a cache"):
        Cache(tmp_path / name)
