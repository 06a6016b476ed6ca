"""What the bytes of a Core ML package count as, also where a program is written in unusual ways."""

import numpy as np
import pytest

from converters.coreml.reading.ledger import ledger
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.ledger import size_on_disk
from tests.formats.mlpackage import packages
from tests.formats.mlpackage.packages import MODEL, edit, mb, types

WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
TABLE = np.arange(16, dtype=np.int32)
FLOATS = np.linspace(-1, 1, 16, dtype=np.float32)


@pytest.fixture
def path(tmp_path):
    """A table of integers and one of floats, both in the weight file, in this order."""

    def body(x):
        looked_up = mb.gather(x=TABLE, indices=mb.cast(x=x, dtype="int32"), name="look")
        return mb.add(x=mb.cast(x=looked_up, dtype="fp32"), y=FLOATS, name="sum")

    return packages.save(tmp_path / "m.mlpackage", body, (16,))


def sizes(path):
    """Bytes by kind and name; all are accounted for."""
    found = ledger(path)
    assert found.total_bytes == size_on_disk(path)
    return {(e.kind, e.name): e.size_bytes for e in found.entries}


def dense(path):
    return {name: size for (kind, name), size in sizes(path).items() if kind == "dense"}


def block(model):
    return next(iter(model.mlProgram.functions["main"].block_specializations.values()))


def value_of(model, name):
    """The value of the constant called ``name``."""
    found = (o for o in block(model).operations if o.outputs[0].name == name)
    return next(found).attributes["val"]


def test_all_of_the_weight_file_is_weights_or_padding(path):
    others = {key: size for key, size in sizes(path).items() if key[0] != "dense"}
    assert dense(path) == {"look_x_0": 64, "sum_y_0": 64}
    assert others == {
        ("metadata", "Manifest.json"): (path / "Manifest.json").stat().st_size,
        ("graph", MODEL): (path / MODEL).stat().st_size,
        ("padding", WEIGHTS): (path / WEIGHTS).stat().st_size - 128,
    }
    with (path / WEIGHTS).open("ab") as file:
        file.write(bytes(500))
    left = ("padding", "(unreferenced)")
    assert sizes(path)["padding", WEIGHTS] + sizes(path)[left] == (others["padding", WEIGHTS] + 500)


def written(path, count, *, unknown=False):
    """Write the floats into the program itself, ``count`` of them; what the graph lacks then.

    With ``unknown``, their type has another dimension whose length is not said.
    """

    def change(model):
        value = value_of(model, "sum_y_0")
        value.immediateValue.tensor.floats.values.extend(FLOATS[:count])
        value.type.tensorType.dimensions[0].constant.size = count
        if unknown:
            value.type.tensorType.dimensions.add().unknown.SetInParent()

    edit(path, change)
    return (path / MODEL).stat().st_size - sizes(path)["graph", MODEL]


def test_floats_in_the_program_are_weights_from_ten_on(path):
    assert written(path, 10) == 40
    assert dense(path) == {"look_x_0": 64, "sum_y_0": 40}


def test_fewer_are_part_of_the_graph(path):
    assert written(path, 9) == 0
    assert dense(path) == {"look_x_0": 64}


def test_so_are_those_whose_number_is_not_said(path):
    assert written(path, 16, unknown=True) == 0


def test_weights_in_the_program_are_told_apart(path):
    """Each has its own bytes, though neither has a place in the weight file."""

    def change(model):
        for name in ("look_x_0", "sum_y_0"):
            value = value_of(model, name)
            value.immediateValue.tensor.floats.values.extend(FLOATS)
            value.type.tensorType.dataType = 11  # FLOAT32

    edit(path, change)
    found = sizes(path)
    assert (found["dense", "look_x_0"], found["dense", "sum_y_0"]) == (64, 64)
    assert found["graph", MODEL] == (path / MODEL).stat().st_size - 128


def test_lists_in_the_program_are_part_of_the_graph(path):
    def change(model):
        value = value_of(model, "look_axis_0")
        value.type.listType.SetInParent()

    before = dense(path)
    edit(path, change)
    assert dense(path) == before


def records(path, change):
    """Change the bytes of the weight file: where its two records say that their data starts."""
    data = bytearray((path / WEIGHTS).read_bytes())
    starts = [int.from_bytes(data[at : at + 8], "little") for at in (80, 208)]
    for at, start in zip((80, 208), change(*starts), strict=True):
        data[at : at + 8] = start.to_bytes(8, "little")
    (path / WEIGHTS).write_bytes(data)


def test_weights_that_touch_do_not_overlap(path):
    records(path, lambda first, second: (second - 64, second))
    assert dense(path) == {"look_x_0": 64, "sum_y_0": 64}


def test_weights_that_overlap_are_refused(path):
    records(path, lambda first, second: (second - 63, second))
    with pytest.raises(DkmError) as caught:
        ledger(path)
    assert str(caught.value) == f"{path / WEIGHTS}: two weights overlap at byte 256"


@pytest.mark.parametrize("missing", ["indices", "lut"])
def test_a_decode_without_one_of_its_parts_is_counted_without_it(tmp_path, missing):
    """The ledger weighs what is there, be it a palette or not."""
    indices = np.zeros((8, 8), types.nptype_from_builtin(types.uint4))

    def body(x):
        lut = FLOATS.reshape(1, 1, 16, 1)
        return mb.matmul(x=x, y=mb.constexpr_lut_to_dense(indices=indices, lut=lut, name="w"))

    def change(model):
        decode = next(o for o in block(model).operations if o.type == "constexpr_lut_to_dense")
        decode.inputs.pop(missing)

    path = packages.save(tmp_path / "m.mlpackage", body, (1, 8))
    edit(path, change)
    kinds = ledger(path).by_kind()
    assert (kinds["indices"], kinds["lut"]) == ((0, 64) if missing == "indices" else (32, 0))
