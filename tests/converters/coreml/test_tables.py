"""Tables of which a Core ML program holds some rows, and palettes with a scale, read back."""

import json
import shutil

import numpy as np
import pytest

from converters.coreml.reading.ledger import ledger
from converters.coreml.reading.read_palettes import palette_sites, read_palettes
from converters.coreml.tables.row_blocks import pick
from converters.coreml.tables.unread_rows import store
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.ledger import size_on_disk
from dkm_deploy.formats.mlpackage.package import open_package
from dkm_deploy.palette import Palette
from tests.formats.mlpackage import packages
from tests.formats.mlpackage.packages import edit, mb, types

INDICES = np.arange(48).reshape(12, 4).astype(np.uint8) % 16
SHARED = Palette(INDICES, np.linspace(-1, 1, 16, dtype=np.float32).reshape(1, 1, 16, 1))
GROUPED = Palette(INDICES, np.linspace(-1, 1, 48, dtype=np.float32).reshape(3, 1, 16, 1))
SCALED = Palette(INDICES, SHARED.lut, scale=np.linspace(1, 2, 12, dtype=np.float32)[:, None])


def decoded(made, name):
    """A weight of a program, times its scale if it has one."""
    dtype = types.nptype_from_builtin(types.uint4)
    weight = mb.constexpr_lut_to_dense(indices=made.indices.astype(dtype), lut=made.lut, name=name)
    if made.scale is None:
        return weight
    return mb.constexpr_blockwise_shift_scale(data=weight, scale=made.scale, name=f"{name}_scaled")


def save(tmp_path, parts, **metadata):
    """A program that multiplies its input with each of these weights."""

    def body(x):
        return tuple(mb.matmul(x=x, y=decoded(p, name)) for name, p in parts.items())

    rows = len(next(iter(parts.values())).indices)
    path = packages.save(tmp_path / "m.mlpackage", body, (1, rows))
    put(path, **metadata)
    return path


def put(path, **metadata):
    def change(model):
        for key, value in metadata.items():
            text = json.dumps(value)
            model.description.metadata.userDefined[f"dkm_deploy.{key.lower()}"] = text

    edit(path, change)


def rows(blocks, *runs, luts=False):
    return {"blocks": blocks, "luts": luts, "runs": [*runs]}


def kept(path, rest, *, luts=False):
    """Where the weight file now holds these rows, which no operation reads."""
    return {"t": store(rest, path / "Data/com.apple.CoreML/weights", luts=luts)}


def sizes(path):
    """How many bytes of indices and LUTs there are, of how many weights; all are accounted for."""
    found = ledger(path)
    assert found.total_bytes == size_on_disk(path)
    kinds = {e.name for e in found.entries if e.kind in ("indices", "lut")}
    return found.by_kind()["indices"], found.by_kind()["lut"], kinds


T = {"a": "t", "b": "t"}


@pytest.mark.parametrize(
    ("table", "blocks", "luts"),
    [(SHARED, 12, False), (GROUPED, 3, True), (SCALED, 12, False)],
)
def test_parts_of_a_table_and_the_rows_that_nothing_reads(tmp_path, table, blocks, luts):
    third = blocks // 3
    a, b, rest = (pick(table, range(i * third, (i + 1) * third), blocks) for i in (0, 2, 1))
    path = save(
        *(tmp_path, {"a": a, "b": b}),
        WEIGHTS=T,
        ROWS={
            "a": rows(blocks, [0, third], luts=luts),
            "b": rows(blocks, [2 * third, blocks], luts=luts),
        },
    )
    put(path, UNREAD=kept(path, rest, luts=luts))
    assert read_palettes(path) == {"t": table}
    scale = 0 if table.scale is None else 48
    shared = 0 if luts else 64  # a LUT that both hold is in the file twice
    assert sizes(path) == (24, table.lut.nbytes + shared + scale, {"t"})


def test_parts_in_more_than_one_run(tmp_path):
    places = [0, 1, 5, 6, 7, 11]
    others = [n for n in range(12) if n not in places]
    path = save(
        *(tmp_path, {"a": pick(SHARED, places, 12), "b": pick(SHARED, others, 12)}),
        WEIGHTS=T,
        ROWS={
            "a": rows(12, [0, 2], [5, 8], [11, 12]),
            "b": rows(12, [2, 5], [8, 11]),
        },
    )
    assert read_palettes(path) == {"t": SHARED}


def test_a_part_beside_the_whole_table(tmp_path):
    parts = {"a": pick(SHARED, range(4), 12), "b": SHARED}

    def body(x):
        y = mb.matmul(x=x, y=mb.transpose(x=decoded(parts["b"], "b"), perm=[1, 0]))
        return y, mb.matmul(x=x, y=decoded(parts["a"], "a"))

    path = packages.save(tmp_path / "m.mlpackage", body, (1, 4))
    put(path, WEIGHTS=T, ROWS={"a": rows(12, [0, 4])})
    assert read_palettes(path) == {"t": SHARED}


def refusal(call, path):
    with pytest.raises(DkmError) as caught:
        call(path)
    return str(caught.value)


@pytest.fixture(scope="module")
def third(tmp_path_factory):
    made = pick(SHARED, range(4), 12)
    return save(tmp_path_factory.mktemp("third"), {"a": made}, WEIGHTS={"a": "t"})


@pytest.fixture
def part(third, tmp_path):
    """A program that holds a third of a table; what is said of the rest is to be put into it."""
    return shutil.copytree(third, tmp_path / "m.mlpackage")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": "12"}, ".blocks is '12'; it must be an integer"),
        ({"luts": 0}, ".luts is 0; it must be true or false"),
        ({"runs": {"0": 4}}, ".runs is {'0': 4}; it must be a list"),
        ({"runs": [4]}, ".runs[0] is 4; it must be a list of 2"),
        ({"runs": [[0, 2, 4]]}, ".runs[0] is [0, 2, 4]; it must be a list of 2"),
        ({"runs": [[0, 2], [4]]}, ".runs[1] is [4]; it must be a list of 2"),
        ({"runs": [[0, 4.0]]}, ".runs[0][1] is 4.0; it must be an integer"),
        ({"runs": [[False, 4]]}, ".runs[0][0] is False; it must be an integer"),
        ({"runs": []}, ": runs are []; they do not fit a table of 12 blocks"),
        ({"runs": [[-1, 3]]}, ": runs are [[-1, 3]]; they do not fit a table of 12 blocks"),
        ({"runs": [[4, 4]]}, ": runs are [[4, 4]]; they do not fit a table of 12 blocks"),
        ({"runs": [[8, 13]]}, ": runs are [[8, 13]]; they do not fit a table of 12 blocks"),
        (
            {"runs": [[0, 4], [9, 13]]},
            ": runs are [[0, 4], [9, 13]]; they do not fit a table of 12 blocks",
        ),
    ],
)
def test_rows_that_no_table_has(part, changes, message):
    put(part, ROWS={"a": rows(12, [0, 4]) | changes})
    expected = f"{part}: metadata 'dkm_deploy.rows'['a']{message}"
    assert refusal(read_palettes, part) == expected


@pytest.mark.parametrize("key", ["blocks", "luts", "runs"])
def test_rows_of_which_a_part_is_not_said(part, key):
    put(part, ROWS={"a": {k: v for k, v in rows(12, [0, 4]).items() if k != key}})
    expected = f"{part}: metadata 'dkm_deploy.rows'['a'].{key} is missing; it must be "
    assert refusal(read_palettes, part).startswith(expected)


@pytest.mark.parametrize(
    ("unread", "message"),
    [
        ({}, "the metadata does not say where the indices of unread rows are"),
        (
            {"other": {"indices": 64}},
            "the metadata does not say where the indices of unread rows are",
        ),
        ({"t": {"lut": 64}}, "the metadata does not say where the indices of unread rows are"),
    ],
)
def test_rows_of_which_it_is_not_said_where_they_are(part, unread, message):
    put(part, ROWS={"a": rows(12, [0, 4])}, UNREAD=unread)
    assert refusal(read_palettes, part) == f"{part}: t: {message}"


def test_rows_that_are_said_to_be_somewhere_else_are_refused_by_the_ledger(part):
    put(part, UNREAD={"t": {"other": 64}})
    expected = f"{part}: t: the metadata does not say where the other of unread rows are"
    assert refusal(ledger, part) == expected


@pytest.mark.parametrize(
    ("key", "told", "message"),
    [
        ("ROWS", 1, "['a'] is 1; it must be a mapping with the keys blocks, luts, runs"),
        ("UNREAD", 1, "['a'] is 1; it must be a mapping"),
        ("UNREAD", {"indices": "64"}, "['a']['indices'] is '64'; it must be an integer"),
    ],
)
def test_what_is_said_of_rows_is_a_mapping(part, key, told, message):
    put(part, **{"ROWS": {"a": rows(12, [0, 4])}, "UNREAD": {}} | {key: {"a": told}})
    name = f"dkm_deploy.{key.lower()}"
    assert refusal(read_palettes, part) == f"{part}: metadata {name!r}{message}"


@pytest.mark.parametrize("order", [[0, 2], [], [1, 2]])
def test_an_order_that_is_none_is_told_as_it_is_written(part, order):
    put(part, ORDERS={"a": order})
    expected = f"{part}: metadata 'dkm_deploy.orders' holds {order}, no order of blocks"
    assert refusal(read_palettes, part) == expected


def test_one_palette_of_two_names(part):
    put(part, SAME={"u": "t"})
    made = pick(SHARED, range(4), 12)
    assert read_palettes(part) == {"t": made, "u": made}


def test_the_columns_of_a_parameter(tmp_path):
    path = save(tmp_path, {"a": SHARED.transpose()}, WEIGHTS={"a": "t"}, TRANSPOSED={"a": True})
    assert read_palettes(path) == {"t": SHARED}
    put(path, TRANSPOSED={"a": False})
    assert read_palettes(path) == {"t": SHARED.transpose()}


BARE = Palette(INDICES, SHARED.lut)


def test_a_scale_belongs_to_a_parameter_and_not_to_the_palettes_of_other_tools(tmp_path):
    path = save(tmp_path, {"a": SCALED}, WEIGHTS={"a": "t"})
    assert read_palettes(path) == {"t": SCALED}
    assert sizes(path) == (24, 64 + 48, {"t"})
    put(path, WEIGHTS={})
    assert read_palettes(path) == {"a": BARE}
    dense = {e.name: e.size_bytes for e in ledger(path).entries if e.kind == "dense"}
    assert dense == {"a_scaled": 48}


def test_a_scale_behind_dimensions_of_length_1(tmp_path):
    indices, lut = INDICES[None], SHARED.lut[None]
    made = Palette(indices, lut)
    scale = SCALED.scale[None]

    def body(x):
        weight = decoded(made, "a")
        return mb.matmul(x=x, y=mb.constexpr_blockwise_shift_scale(data=weight, scale=scale))

    path = packages.save(tmp_path / "m.mlpackage", body, (1, 1, 12))
    put(path, WEIGHTS={"a": "t"}, STACKED={"a": 1})
    assert read_palettes(path) == {"t": SCALED}


def scaling(model):
    """The operation that multiplies the last decoded weight of a program."""
    block = next(iter(model.mlProgram.functions["main"].block_specializations.values()))
    kind = "constexpr_blockwise_shift_scale"
    return [operation for operation in block.operations if operation.type == kind][-1]


def with_an_offset(model):
    inputs = scaling(model).inputs
    inputs["offset"].CopyFrom(inputs["scale"])


@pytest.mark.parametrize(
    "change",
    [
        with_an_offset,
        lambda model: scaling(model).inputs.pop("scale"),
        lambda model: scaling(model).inputs.pop("data"),
        lambda model: setattr(scaling(model), "type", "another"),
    ],
)
def test_what_is_done_to_a_weight_otherwise_is_no_scale(tmp_path, change):
    path = save(tmp_path, {"a": SCALED}, WEIGHTS={"a": "t"})
    edit(path, change)
    assert read_palettes(path) == {"t": BARE}


def test_the_scale_of_a_lut_of_integers_is_another_matter(tmp_path):
    """It stands before the LUT, and the one of the weight is found behind it."""
    codes = np.arange(-8, 8).astype(np.int8).reshape(1, 1, 16, 1)
    step = np.full((1, 1, 1, 1), 0.5, np.float32)
    dtype = types.nptype_from_builtin(types.uint4)

    def body(x):
        lut = mb.constexpr_blockwise_shift_scale(data=codes, scale=step)
        weight = mb.constexpr_lut_to_dense(indices=INDICES.astype(dtype), lut=lut, name="a")
        scaled = mb.constexpr_blockwise_shift_scale(data=weight, scale=SCALED.scale)
        return mb.matmul(x=x, y=scaled)

    path = packages.save(tmp_path / "m.mlpackage", body, (1, 12))
    put(path, WEIGHTS={"a": "t"})
    expected = Palette(INDICES, codes.astype(np.float32) * step, scale=SCALED.scale)
    assert read_palettes(path) == {"t": expected}


def test_the_palettes_of_every_function(tmp_path):
    path = save(tmp_path, {"a": SCALED}, WEIGHTS={"a": "t"})

    def change(model):
        model.mlProgram.functions["other"].CopyFrom(model.mlProgram.functions["main"])

    edit(path, change)
    sites = palette_sites(open_package(path))
    assert [(s.name, s.transposed, s.ones) for s in sites] == [("t", False, 0)] * 2
    assert read_palettes(path) == {"t": SCALED}
