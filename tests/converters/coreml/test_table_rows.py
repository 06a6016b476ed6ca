"""Tables of which a program reads known rows: these are constants, and palettes stay whole."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from converters.coreml.reading.read_palettes import ROWS_KEY, UNREAD_KEY
from dkm_deploy.formats.ledger import size_on_disk
from dkm_deploy.palette import difference
from tests.converters.coreml.programs import operations, spec, without_decodes

ROWS = 12
SPECS = {
    "plain": dkm.PaletteSpec(bits=4),
    "odd": dkm.PaletteSpec(bits=5),
    "grouped": dkm.PaletteSpec(bits=2, group_size=2),
    "single": dkm.PaletteSpec(bits=2, group_size=1),
    "columns": dkm.PaletteSpec(bits=2, group_size=4, axis=1),
    "vectors": dkm.PaletteSpec(bits=2, cluster_dim=2),
    "wide": dkm.PaletteSpec(bits=2, cluster_dim=4, axis=1),
    "both": dkm.PaletteSpec(bits=3, cluster_dim=2, group_size=4),
}
SCALED = SPECS | {"scaled": dkm.PaletteSpec(bits=2, per_channel_scale=True)}
GROUPED = {name: SPECS[name] for name in ("plain", "grouped")}


class Tables(nn.Module):
    """``x`` plus the same rows of several tables of twelve, an output for each of these."""

    def __init__(self, names, positions):
        super().__init__()
        self.tables = nn.ModuleDict({name: nn.Embedding(ROWS, 8) for name in names})
        self.register_buffer("positions", torch.tensor(positions))

    def forward(self, x):
        return {name: x + table(self.positions) for name, table in self.tables.items()}


def _tables(specs, positions):
    torch.manual_seed(0)
    model = Tables(specs, positions).eval()
    return model, _frozen(model, specs), torch.randn(1, np.size(positions), 8)


def _frozen(model, specs):
    rules = [dkm.Rule(f"tables.{name}.weight", made) for name, made in specs.items()]
    return dkm.palettize(model, dkm.Recipe(rules=rules))


def _more(model, frozen, inputs, folder, **options):
    """The palettized package, and the operations that it has and the dense one has not."""
    dense = dkm.convert(model, inputs, folder / "dense.mlpackage", **options)
    artifact = dkm.convert(frozen, inputs, folder / "m.mlpackage", **options)
    found, expected = without_decodes(operations(artifact)), operations(dense)
    assert not expected - found
    return artifact, found - expected


def _check(path, frozen, inputs, **limits):
    """Palettes bit for bit, and numbers."""
    stored, palettes = dkm.read_palettes(path), dkm.palettes(frozen)
    assert stored.keys() == palettes.keys()
    assert {name: difference(palettes[name], stored[name]) for name in stored} == dict.fromkeys(
        stored
    )
    outputs = dkm.MLProgramEvaluator(path).run({n: x.numpy() for n, x in inputs.items()})
    for name, expected in frozen(**inputs).items():
        torch.testing.assert_close(torch.tensor(outputs[name]), expected, **limits)


EXACT, HALF = {"rtol": 1e-5, "atol": 1e-6}, {"rtol": 2e-3, "atol": 2e-3}


@pytest.mark.parametrize(
    ("specs", "positions", "options", "limits"),
    [
        (GROUPED, [[*range(8)]], {}, HALF),
        pytest.param(SPECS, [[*range(8)]], {}, HALF, marks=pytest.mark.slow),
        pytest.param(
            SCALED,
            [8, 9, 10, 11, 0, 1, 2, 3],
            {"minimum_deployment_target": "iOS26", "compute_precision": "float32"},
            EXACT,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            SCALED,
            [[*range(ROWS)]],
            {"minimum_deployment_target": "iOS26"},
            HALF,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"plain": SPECS["plain"], "odd": SPECS["odd"]},
            [[11, 3, 4]],
            {"minimum_deployment_target": "iOS16"},
            HALF,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_rows_are_constants_and_palettes_stay_whole(tmp_path, specs, positions, options, limits):
    model, frozen, x = _tables(specs, positions)
    artifact, more = _more(model, frozen, x, tmp_path, **options)
    assert not more
    assert operations(artifact)["gather"] == 0
    assert not [note for note in artifact.notes if "look-up" in note]
    _check(artifact.path, frozen, {"x": x}, **limits)
    assert artifact.ledger.total_bytes == size_on_disk(artifact.path)
    assert "(unreferenced)" not in {entry.name for entry in artifact.ledger.entries}


@pytest.mark.slow
def test_with_8_bit_luts_whose_largest_entry_is_in_rows_that_nothing_reads(tmp_path):
    torch.manual_seed(0)
    model, x = Tables(GROUPED, [[*range(4)]]).eval(), torch.randn(1, 4, 8)
    for table in model.tables.values():
        table.weight.data[ROWS - 1] *= 10
    frozen = dkm.quantize_luts(_frozen(model, GROUPED))
    artifact, more = _more(model, frozen, x, tmp_path, lut_dtype="int8")
    assert not more
    _check(artifact.path, frozen, {"x": x}, **HALF)


class Reads(nn.Module):
    """Rows of tables of twelve, each read in another way."""

    names = ("mixed", "twice", "one", "batch", "torn", "product", "left", "right")

    def __init__(self):
        super().__init__()
        self.tables = nn.ModuleDict({name: nn.Embedding(ROWS, 8) for name in self.names})
        self.register_buffer("zeros", torch.zeros(2, 4, dtype=torch.int64))

    def forward(self, x, ids):
        tables, rows = self.tables, torch.arange(4)
        return {
            "mixed": x * tables["mixed"](ids) + tables["mixed"](rows),
            "twice": x + tables["twice"](rows) + tables["twice"](rows + 2),
            "one": x + tables["one"](self.zeros),
            "batch": tables["batch"](rows[None].expand(2, 4)) + x,
            "torn": x + tables["torn"](rows + 1),
            "product": x * tables["product"](self.zeros),
            "sum": x * (tables["left"](self.zeros) + tables["right"](self.zeros)),
        }


def test_ways_to_read(tmp_path):
    """A row read for all places is stored once if it is added to them; what is torn is looked up.

    Of two such rows that are only added to each other, one keeps its look-up, and the addition of
    both stays.
    """
    torch.manual_seed(0)
    model = Reads().eval()
    specs = dict.fromkeys(Reads.names, dkm.PaletteSpec(bits=4))
    frozen = _frozen(model, specs | {"torn": dkm.PaletteSpec(bits=2, group_size=4)})
    x, ids = torch.randn(2, 4, 8), torch.randint(0, ROWS, (2, 4))
    artifact, more = _more(model, frozen, (x, ids), tmp_path)
    assert more == {"gather": 3, "add": 1}
    (note,) = artifact.notes
    assert note.startswith("3 look-ups of constant rows stay operations: ")
    assert note.endswith("tables.torn.weight, tables.product.weight, tables.right.weight")
    _check(artifact.path, frozen, {"x": x, "ids": ids.int()}, **HALF)
    assert sorted(_metadata(artifact.path, UNREAD_KEY)) == [
        f"tables.{name}.weight" for name in ("batch", "left", "one", "twice")
    ]


def test_a_table_costs_at_most_128_bytes_a_tensor(tmp_path):
    specs = {"plain": dkm.PaletteSpec(bits=8), "grouped": dkm.PaletteSpec(bits=8, group_size=2)}
    _, frozen, x = _tables(specs, [[*range(8)]])
    artifact = dkm.convert(frozen, x, tmp_path / "m.mlpackage")
    data = _weights(artifact.path).read_bytes()
    palettes = dkm.palettes(frozen).values()
    ideal = sum(palette.indices.size + 2 * palette.lut.size for palette in palettes)
    assert len(data) - ideal <= 128 * int.from_bytes(data[:4], "little")
    stored = artifact.ledger.by_kind()
    assert stored["indices"] + stored["lut"] == ideal


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A model and its package, which tests may change and change back."""
    _, frozen, x = _tables(GROUPED, [[*range(8)]])
    return frozen, x, dkm.convert(frozen, x, tmp_path_factory.mktemp("m") / "m.mlpackage").path


@pytest.fixture
def package(converted):
    frozen, x, path = converted
    files = [_program(path), _weights(path)]
    before = [file.read_bytes() for file in files]
    yield frozen, x, path
    for file, data in zip(files, before, strict=True):
        file.write_bytes(data)


def _program(path):
    return path / "Data/com.apple.CoreML/model.mlmodel"


def _weights(path):
    return path / "Data/com.apple.CoreML/weights/weight.bin"


def _metadata(path, key):
    return json.loads(spec(path).description.metadata.userDefined[key])


def _put(path, key, table):
    model = spec(path)
    model.description.metadata.userDefined[key] = json.dumps(table)
    _program(path).write_bytes(model.SerializeToString())


def test_validation_sees_a_bit_that_changed_in_a_row_that_nothing_reads(package):
    frozen, x, path = package
    assert dkm.validate([path], reference=frozen, inputs=x)
    offset = _metadata(path, UNREAD_KEY)["tables.plain.weight"]["indices"]
    data = bytearray(_weights(path).read_bytes())
    data[offset + 64] ^= 1
    _weights(path).write_bytes(data)
    report = dkm.validate([path], reference=frozen, inputs=x)
    assert not report
    assert "tables.plain.weight: 1 of 96 indices differ" in json.dumps(report.to_dict())


NAME = "tables.plain.weight"


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ({}, f"{NAME}: the metadata does not say where the indices of unread rows are"),
        ({NAME: {"indices": "1"}}, "is '1'; it must be an integer"),
        ({NAME: {"indices": 64}}, r"bytes, not \d+|are \w+, not uint8"),
        ({NAME: {"indices": 65}}, "no weight starts at byte 65"),
        ({NAME: {"indices": 10**9}}, "lies outside its"),
        ({"tables.grouped.weight": {"indices": 64}, NAME: {}}, "unread rows"),
        ([], r"'dkm_deploy.unread' is \[\]; it must be a mapping"),
        ({NAME: 3}, "is 3; it must be a mapping"),
    ],
)
def test_rows_that_are_not_there_are_refused(package, offsets, message):
    path = package[2]
    _put(path, UNREAD_KEY, offsets)
    with pytest.raises(dkm.DkmError, match=rf"^.*m\.mlpackage.*({message})") as caught:
        dkm.read_palettes(path)
    assert "\n" not in str(caught.value)


def test_a_ledger_of_rows_that_are_not_there_is_refused(package):
    path = package[2]
    _put(path, UNREAD_KEY, {NAME: {"shape": 64}})
    with pytest.raises(
        dkm.DkmError, match=rf"m\.mlpackage: {NAME}: the metadata does not say where the shape"
    ):
        dkm.size_breakdown(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks": 13}, "fill|fills"),
        ({"blocks": 10**12}, "fill|fills"),
        ({"blocks": 4}, "do not fit a table"),
        ({"blocks": "12"}, "blocks is '12'; it must be an integer"),
        ({"luts": True}, "lut of unread rows|do not fit together"),
        ({"luts": 0}, "luts is 0; it must be true or false"),
        ({"runs": []}, "do not fit a table"),
        ({"runs": [[0, 4], [8]]}, r"runs\[1\] is \[8\]; it must be a list of 2"),
        ({"runs": [[4, 0]]}, "do not fit a table"),
        ({"runs": [[0, 12]]}, "fewer rows than its metadata says"),
        ({"runs": [[0, 7]]}, "fill|fills|do not fit"),
    ],
)
def test_damaged_rows_are_refused(package, change, message):
    path = package[2]
    rows = _metadata(path, ROWS_KEY)
    (output,) = (output for output in rows if "plain" in output)
    _put(path, ROWS_KEY, rows | {output: rows[output] | change})
    with pytest.raises(dkm.DkmError, match=rf"^.*m\.mlpackage.*({message})") as caught:
        dkm.read_palettes(path)
    assert "\n" not in str(caught.value)


def test_parts_of_two_tables_do_not_make_one(package):
    path = package[2]
    model = spec(path)
    names = json.loads(model.description.metadata.userDefined["dkm_deploy.weights"])
    _put(path, "dkm_deploy.weights", dict.fromkeys(names, NAME))
    with pytest.raises(dkm.DkmError, match=rf"{NAME}: its parts do not fit together"):
        dkm.read_palettes(path)
