"""Tensors in data files: where they lie, what is read when, and what a forged place is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto

from converters.onnx.graph.load import Region, fill, load, outside
from dkm_deploy.errors import DkmError, MissingFileError
from tests.converters.onnx.graph.test_load_errors import holding, model, outer, refused, unreadable


@pytest.fixture
def path(tmp_path) -> Path:
    """Where the model is to be; ``d.bin`` beside it has 16 bytes, 0 to 15."""
    (tmp_path / "d.bin").write_bytes(bytes(range(16)))
    return tmp_path / "m.onnx"


def test_a_data_file_that_the_system_does_not_read(path, monkeypatch):
    holding(path, outer())
    monkeypatch.setattr(Path, "open", unreadable)
    with pytest.raises(DkmError, match=r"d\.bin: cannot be read: Input/output error$") as caught:
        load(path)
    assert str(caught.value).startswith(f"{path.parent / 'd.bin'}: ")


def refused_tensor(path, tensor, reason):
    refused(holding(path, tensor), f"{tensor.name}: {reason}")


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"offset": "8"}, "its bytes 8 to 20 lie outside {file}, which has 16"),
        ({"offset": "-4"}, "the offset of its data is '-4', which is not a number of bytes"),
        ({"offset": "٣"}, "the offset of its data is '٣', which is not a number of bytes"),
        ({"length": ""}, "the length of its data is '', which is not a number of bytes"),
        ({"length": "8"}, "its shape needs 12 bytes, but the file records 8"),
        ({"length": "16"}, "its shape needs 12 bytes, but the file records 16"),
        (
            {"offset": "1" * 19},
            f"its bytes {'1' * 19} to {int('1' * 19) + 12} lie outside {{file}}, which has 16",
        ),
        (
            {"offset": "1" * 20},
            f"the offset of its data is '{'1' * 20}', which is not a number of bytes",
        ),
    ],
)
def test_a_place_in_a_data_file_that_is_none(path, entries, reason):
    refused_tensor(path, outer(**entries), reason.format(file=path.parent / "d.bin"))


NOT_INSIDE = (
    "its data file {!r} is not in the folder of the model; put the file there, not a link to it"
)


@pytest.mark.parametrize("location", ["../d.bin", "sub/../d.bin", "left out", ""])
def test_a_data_file_out_of_the_folder(path, location):
    said = "" if location == "left out" else location
    refused_tensor(path, outer(location=location), NOT_INSIDE.format(said))


def test_an_absolute_data_file(path):
    location = str(path.parent / "d.bin")
    refused_tensor(path, outer(location=location), NOT_INSIDE.format(location))


def test_a_data_file_that_is_not_there(path):
    missing = str(path.parent / "no.bin")
    refused_tensor(path, outer(location="no.bin"), f"refers to {missing!r}, which is missing")
    with pytest.raises(MissingFileError):
        load(path)


def test_a_data_file_of_an_impossible_name(path):
    reason = "its data file 'a\\x00b' cannot be found: embedded null byte"
    refused_tensor(path, outer(location="a\0b"), reason)


def test_a_shape_that_is_none(path):
    refused_tensor(path, outer(dims=(-4, 4)), "its shape [-4, 4] is not a valid shape")


@pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.UNDEFINED, 99])
def test_values_that_have_no_bytes(path, kind):
    refused_tensor(
        path, outer(kind=kind), f"values of type {kind} cannot be stored in another file"
    )


def place_of(path: Path, tensor: TensorProto) -> Region:
    ((_, region),) = outside(load(holding(path, tensor), largest=0), path)
    return region


@pytest.mark.parametrize(
    ("tensor", "offset", "length"),
    [
        (outer(), 0, 12),
        (outer(offset="4", length="12"), 4, 12),
        (outer(dims=()), 0, 4),
        (outer(dims=(5,), kind=TensorProto.UINT4), 0, 3),
        (outer(dims=(3,), kind=TensorProto.FLOAT16, offset="10"), 10, 6),
    ],
)
def test_the_place_of_a_tensor_follows_from_its_entries_and_shape(path, tensor, offset, length):
    assert place_of(path, tensor) == Region(path.parent / "d.bin", offset, length)


def test_a_tensor_without_elements_needs_no_bytes(path):
    load(holding(path, outer(dims=(0, 3))))
    assert list(outside(load(path), path)) == []


def test_tensors_up_to_the_largest_are_read(path):
    holding(path, outer(dims=(2,), offset="4"), outer("u", dims=(3,)))
    part = load(path, largest=8)
    small, large = part.graph.initializer
    assert small.raw_data == bytes(range(4, 12))
    assert not small.external_data
    assert not small.HasField("data_location")
    assert [tensor.name for tensor, _ in outside(part, path)] == ["u"]
    fill([small, large], path)
    assert large.raw_data == bytes(range(12))
    assert load(path) == part


def test_tensors_are_found_wherever_a_model_can_hold_one(path):
    proto = model()
    graph = proto.graph
    graph.initializer.extend([outer("initializer"), outer("second")])
    graph.sparse_initializer.add(values=outer("values"), indices=outer("indices"))
    node = graph.node.add()
    node.attribute.add(t=outer("t"), tensors=[outer("t0"), outer("t1")])
    sparse = node.attribute.add()
    sparse.sparse_tensor.values.CopyFrom(outer("sparse"))
    sparse.sparse_tensor.indices.CopyFrom(outer("places"))
    sparse.sparse_tensors.add(values=outer("sparse_0"), indices=outer("places_0"))
    nested = graph.node.add().attribute.add()
    nested.g.initializer.extend([outer("body")])
    nested.g.node.add().attribute.add().g.initializer.extend([outer("inner body")])
    for number in (0, 1):
        nested.graphs.add().initializer.extend([outer(f"body {number}")])
    function = proto.functions.add(name="f").node.add()
    function.attribute.add(t=outer("function")).g.initializer.extend([outer("its body")])
    proto.functions.add(name="g").node.add().attribute.add(t=outer("another"))
    names = [tensor.name for tensor, _ in outside(proto, path)]
    made = "initializer, second, values, indices, t, t0, t1, sparse, places, sparse_0, places_0"
    bodies = "body, inner body, body 0, body 1, function, its body, another"
    assert sorted(names) == sorted([*made.split(", "), *bodies.split(", ")])
