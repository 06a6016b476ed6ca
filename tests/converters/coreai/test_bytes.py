"""Palettes and ledgers of Core AI assets written part by part, without Apple's packages."""

from collections import Counter

import numpy as np
import pytest

from converters.coreai.ledger import ledger
from converters.coreai.read_palettes import contents, read_palettes
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.ledger import size_on_disk
from dkm_deploy.packing import pack
from dkm_deploy.palette import Palette
from tests.formats.aimodel import mlir_bytecode as ml
from tests.formats.aimodel.mlir_bytecode import CONSTANT, DECODE, SCALE, Op, Tensor, asset, program

INDICES = np.arange(32).reshape(8, 4).astype(np.uint8) % 4
LUT = np.array([-1, 0, 1, 2], np.float16).reshape(1, 1, 4, 1)
FACTORS = np.linspace(1, 2, 8, dtype=np.float16).reshape(8, 1)
MADE = Palette(INDICES, LUT)
SCALED = Palette(INDICES, LUT, scale=FACTORS)


def indices(key=None, codes=INDICES):
    return Tensor(codes.shape, ml.U2, pack(codes, 2).tobytes(), key)


def floats(values, key=None):
    return Tensor(values.shape, ml.F16, values.astype("<f2").tobytes(), key)


def integer(value):
    return Tensor((), ml.S32, value.to_bytes(4, "little", signed=True))


def named(name="w"):
    """A palette's constants, which become values 0, 1 and 2."""
    return [indices(f"{name}.indices"), floats(LUT, f"{name}.lut"), integer(0)]


def scaled(by="w.scale", shift=0.0):
    """These with a scale and the two shifts that go with it, values 3 to 5."""
    shifts = [floats(np.full((8, 1), shift)), floats(np.zeros(1))]
    return [*named(), floats(FACTORS, by), *shifts]


def write(tmp_path, tensors, *operations, same=None):
    metadata = {} if same is None else {"creatorDefinedMetadata": {"dkm_deploy.same": same}}
    return asset(tmp_path / "m.aimodel", program(tensors, operations), metadata)


DECODED = Op(DECODE, (0, 1, 2))
TIMES = Op(SCALE, (6, 3, 4, 5))  # of the seventh value, which is the decoded one


def test_a_palette_by_the_stem_of_its_keys(tmp_path):
    path = write(tmp_path, named("net.0.weight"), DECODED)
    assert read_palettes(path) == {"net.0.weight": MADE}


def test_a_vector_fills_the_axis_that_is_said(tmp_path):
    lut = np.arange(8).astype(np.float16).reshape(1, 1, 4, 2)
    tensors = [indices("w.indices"), floats(lut, "w.lut"), integer(1)]
    assert read_palettes(write(tmp_path, tensors, DECODED)) == {"w": Palette(INDICES, lut, 1)}


def test_a_palette_without_keys_goes_by_its_number(tmp_path):
    bare = [indices(), floats(LUT), integer(0)]
    path = write(tmp_path, [*bare, *named()], Op(DECODE, (3, 4, 5)), Op(DECODE, (0, 1, 2)))
    assert read_palettes(path) == {"w": MADE, "1": MADE}


def test_a_palette_with_a_scale(tmp_path):
    assert read_palettes(write(tmp_path, scaled(), DECODED, TIMES)) == {"w": SCALED}


def test_a_scale_that_all_users_multiply_with(tmp_path):
    assert read_palettes(write(tmp_path, scaled(), DECODED, TIMES, TIMES)) == {"w": SCALED}


@pytest.mark.parametrize(
    ("tensors", "users"),
    [
        (scaled(shift=1), [TIMES]),
        (scaled(), [TIMES, Op("aicode.add", (6, 3))]),
        (scaled(), [Op("aicode.add", (6, 3, 4, 5))]),
        (scaled(), [Op(SCALE, (6, 3, 4))]),
        (scaled(), [Op(SCALE, (6, 3, 4, 6))]),  # a shift that is no constant
        (scaled(), [Op(SCALE, (6, 6, 4, 5))]),
    ],
)
def test_what_is_done_to_a_weight_otherwise_is_no_scale(tmp_path, tensors, users):
    assert read_palettes(write(tmp_path, tensors, DECODED, *users)) == {"w": MADE}


def test_one_palette_decoded_twice(tmp_path):
    assert read_palettes(write(tmp_path, named(), DECODED, DECODED)) == {"w": MADE}


def test_a_palette_and_its_own_parts_with_a_scale_are_two(tmp_path):
    """The first has the name; the other, whose keys all are taken, has one with its number."""
    path = write(
        *(tmp_path, scaled(), DECODED, Op(DECODE, (0, 1, 2)), Op(SCALE, (7, 3, 4, 5))),
        same={"v": "w / number 1"},
    )
    assert [site.name for site in contents(path).sites] == ["w", "w / number 1"]
    assert read_palettes(path) == {"w": MADE, "v": SCALED}


def test_keys_that_differ_are_told_apart_by_the_metadata(tmp_path):
    tensors = [indices("a.indices"), floats(LUT, "b.lut"), integer(0)]
    path = write(tmp_path, tensors, DECODED, same={"w": "a / b"})
    assert [site.name for site in contents(path).sites] == ["a / b"]
    assert read_palettes(path) == {"w": MADE}
    assert {e.name for e in ledger(path).entries if e.kind in ("indices", "lut")} == {"w"}


def test_the_key_of_a_scale_counts_too(tmp_path):
    path = write(tmp_path, scaled(by="v.scale"), DECODED, TIMES, same={"w": "w / v"})
    assert read_palettes(path) == {"w": SCALED}


def test_two_names_of_one_palette(tmp_path):
    path = write(tmp_path, named(), DECODED, same={"v": "w"})
    assert read_palettes(path) == {"w": MADE, "v": MADE}
    assert {e.name for e in ledger(path).entries if e.kind in ("indices", "lut")} == {"w"}


@pytest.mark.parametrize(
    ("tensors", "operation", "expected"),
    [
        (named(), Op(DECODE, (0, 1)), f"{DECODE} number 0 does not take three constants"),
        (named(), Op(DECODE, (0, 1, 3)), f"{DECODE} number 0 does not take three constants"),
        (named() + named(), DECODED, "2 resources are called 'w.indices'"),
    ],
)
def test_a_program_that_is_not_understood(tmp_path, tensors, operation, expected):
    path = write(tmp_path, tensors, operation)
    for read in (read_palettes, ledger):
        with pytest.raises(DkmError) as caught:
            read(path)
        start = f"{path}: its program is damaged or of an unknown kind: "
        assert str(caught.value) == start + expected


@pytest.mark.parametrize(
    "operation", [Op("aicode.other", (), attribute=2, result=5), Op(CONSTANT, (), result=5)]
)
def test_a_value_that_is_no_constant(tmp_path, operation):
    """Of an operation that has properties as constants have, or of one that has none."""
    path = write(tmp_path, named(), operation, Op(DECODE, (0, 1, 3)))
    with pytest.raises(DkmError, match=f"{DECODE} number 0 does not take three constants$"):
        contents(path)


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ([floats(LUT, "w.indices"), *named()[1:]], "indices are float of 16 bits"),
        ([named()[0], indices("w.lut"), integer(0)], "unsigned integers in place of floats"),
        ([*named()[:2], floats(LUT)], "a tensor of shape (1, 1, 4, 1) in place of one integer"),
        ([*named()[:2], integer(-1)], "axis is -1; it must be at least 0"),
    ],
)
def test_tensors_that_make_no_palette(tmp_path, tensors, expected):
    path = write(tmp_path, tensors, DECODED)
    with pytest.raises(DkmError) as caught:
        read_palettes(path)
    assert str(caught.value) == f"{path}: w: {expected}"


@pytest.mark.parametrize(
    ("custom", "expected"),
    [
        ({"dkm_deploy.same": []}, " is []; it must be a mapping"),
        ({"dkm_deploy.same": {"v": 1}}, "['v'] is 1; it must be text"),
        ({"dkm_deploy.same": {"v": "u"}}, " names 'u', which is not a palette"),
    ],
)
def test_metadata_that_names_no_palettes(tmp_path, custom, expected):
    data = program(named(), [DECODED])
    path = asset(tmp_path / "m.aimodel", data, {"creatorDefinedMetadata": custom})
    with pytest.raises(DkmError) as caught:
        read_palettes(path)
    assert str(caught.value) == f"{path}: metadata 'dkm_deploy.same'{expected}"


@pytest.mark.parametrize("metadata", [{}, {"creatorDefinedMetadata": {}}])
def test_metadata_of_other_tools(tmp_path, metadata):
    path = asset(tmp_path / "m.aimodel", program(named(), [DECODED]), metadata)
    assert read_palettes(path) == {"w": MADE}
    path = asset(tmp_path / "n.aimodel", program(named(), [DECODED]), {"creatorDefinedMetadata": 1})
    assert read_palettes(path) == {"w": MADE}


def entries(path):
    """How many bytes there are by kind and name; all of them."""
    found = ledger(path)
    assert found.total_bytes == size_on_disk(path)
    sizes = Counter()
    for entry in found.entries:
        sizes[entry.kind, entry.name] += entry.size_bytes
    return sizes


def test_every_byte_of_an_asset(tmp_path):
    """Floats of ten elements or more in the program are weights; integers and fewer are not."""
    tensors = [
        *scaled(),
        floats(np.ones((2, 5))),
        floats(np.ones(9)),
        Tensor((40,), ml.F16, bytes(2)),  # one for all
        Tensor((40,), ml.S32, bytes(160)),
        floats(np.ones(3), "bias"),
        Tensor((6,), ml.S32, bytes(24), "table"),
        indices("left.indices"),
        Tensor((3,), 99, b"abc", "odd"),  # elements of an unknown type
    ]
    path = write(tmp_path, tensors, DECODED, Op(SCALE, (14, 3, 4, 5)))
    (path / "notes").mkdir()
    (path / "notes/a.txt").write_text("hello")
    sizes = entries(path)
    program_bytes = (path / "main.mlirb").stat().st_size
    weights = {
        ("indices", "w"): 8,
        ("lut", "w"): 8 + 16,
        ("dense", "constant 6"): 20,
        ("dense", "bias"): 6,
        ("dense", "table"): 24,
        ("dense", "left.indices"): 8,
        ("dense", "odd (unreferenced)"): 3,
    }
    padding = 7 * 2  # alignment and length of each resource
    assert sizes == weights | {
        ("padding", "main.mlirb"): padding,
        ("graph", "main.mlirb"): program_bytes - sum(weights.values()) - padding,
        ("metadata", "main.hash"): 32,
        ("metadata", "metadata.json"): 2,
        ("metadata", "notes/a.txt"): 5,
    }


def test_bytes_that_two_palettes_share_are_those_of_the_first(tmp_path):
    tensors = [*named("v"), floats(LUT + 1, "w.lut")]
    path = write(tmp_path, tensors, DECODED, Op(DECODE, (0, 3, 2)))
    sizes = entries(path)
    weights = {key: size for key, size in sizes.items() if key[0] in ("indices", "lut", "dense")}
    assert weights == {("indices", "v"): 8, ("lut", "v"): 8, ("lut", "v / w"): 8}
