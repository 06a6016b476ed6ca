"""From a package to a package: palettes, bytes, and outputs that are those of numpy."""

from __future__ import annotations

import numpy as np
import pytest

import dkm_deploy as dkm
from dkm_deploy.formats.mlpackage.ml_program import functions
from dkm_deploy.formats.mlpackage.package import open_package
from dkm_deploy.packing import packed_size
from tests.converters.coreml.rewriting.packages import (
    files,
    one_layer,
    run,
    two_layers,
    two_layers_of,
    values,
)
from tests.formats.mlpackage.packages import edit, mb

TARGETS = ["iOS15", "iOS16", "iOS17", "iOS18", "iOS26"]
X = values(2, 64, seed=9)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """The same program for each deployment target."""
    folder = tmp_path_factory.mktemp("dense")
    return {t: two_layers(folder / f"{t}.mlpackage", t) for t in TARGETS}


@pytest.mark.parametrize(("target", "bits"), [*zip(TARGETS, [1, 3, 4, 5, 3], strict=True)])
def test_outputs_are_those_of_the_decoded_weights(dense, tmp_path, target, bits):
    before = files(dense[target])
    result = dkm.palettize_file(dense[target], tmp_path / "small.mlpackage", bits)
    assert files(dense[target]) == before
    assert list(result.palettes) == ["first_weight", "second_weight"]
    assert dkm.read_palettes(result.path) == dict(result.palettes)
    decoded = [palette.decode() for palette in result.palettes.values()]
    np.testing.assert_allclose(
        run(result.path, X), two_layers_of(X, *decoded), rtol=1e-5, atol=1e-6
    )
    assert result.dense["table"] == "input y of add: not the weight of a linear operation"
    assert result.unchecked == ()


@pytest.mark.parametrize(
    ("target", "bits", "stored"),
    [("iOS15", 3, 4), ("iOS17", 5, 6), ("iOS16", 6, 6), ("iOS18", 3, 3), ("iOS18", 7, 8)],
)
def test_indices_take_their_ideal_bytes_and_a_wider_type_is_told(
    dense, tmp_path, target, bits, stored
):
    result = dkm.palettize_file(dense[target], tmp_path / "small.mlpackage", bits)
    kinds = dkm.size_breakdown(result.path).by_kind()
    counts = (48 * 64, 48 * 16)
    assert kinds["indices"] == sum(packed_size(count, stored) for count in counts)
    assert kinds["lut"] == 2 * 4 * 2**stored
    assert result.bytes_before - result.bytes_after > 4 * sum(counts) - kinds["indices"] - 3_000
    told = f"{bits} bits are stored as {stored}, the next width that "
    assert [told in note for note in result.notes if "stored" in note] == [True] * (bits != stored)


def test_a_program_of_ios_15_becomes_one_of_ios_16(dense, tmp_path):
    result = dkm.palettize_file(dense["iOS15"], tmp_path / "small.mlpackage", 4)
    package = open_package(result.path)
    assert functions(package)["main"].opset == 6
    assert package.model.specificationVersion == 7
    assert result.notes == (
        "it was for iOS 15 and needs iOS16 or macOS13 now, the first that has palettes",
    )


@pytest.mark.parametrize(
    ("target", "spec"),
    [
        ("iOS18", dkm.PaletteSpec(4, group_size=8)),
        ("iOS18", dkm.PaletteSpec(2, axis=1, group_size=4)),
        ("iOS18", dkm.PaletteSpec(4, cluster_dim=2)),
        ("iOS18", dkm.PaletteSpec(6, cluster_dim=4, axis=1)),
        ("iOS18", dkm.PaletteSpec(3, per_channel_scale=True)),
        ("iOS26", dkm.PaletteSpec(3, per_channel_scale=True)),
        ("iOS26", dkm.PaletteSpec(2, group_size=8, per_channel_scale=True)),
    ],
)
def test_groups_vectors_and_scales(dense, tmp_path, target, spec):
    recipe = dkm.Recipe(rules=[dkm.Rule("first_weight", spec=spec)])
    result = dkm.palettize_file(dense[target], tmp_path / "small.mlpackage", recipe)
    (palette,) = dkm.read_palettes(result.path).values()
    assert palette == result.palettes["first_weight"]
    scaled = spec.per_channel_scale and target == "iOS26"  # before, the LUTs hold the scale
    assert (palette.cluster_dim, palette.scale is not None) == (spec.cluster_dim, scaled)
    expected = two_layers_of(X, palette.decode(), values(48, 16, seed=3))
    np.testing.assert_allclose(run(result.path, X), expected, rtol=1e-5, atol=1e-6)
    assert result.dense["second_weight"] == "the recipe has no default"


@pytest.mark.parametrize(
    ("target", "spec", "message"),
    [
        ("iOS17", dkm.PaletteSpec(4, group_size=8), "first_weight: grouped palettes need iOS18 or"),
        ("iOS15", dkm.PaletteSpec(4, cluster_dim=2), "vector palettes need iOS18 or macOS15"),
        ("iOS17", dkm.PaletteSpec(4, per_channel_scale=True), "scale=True. need iOS18 or"),
    ],
)
def test_what_the_deployment_target_lacks_is_refused(dense, tmp_path, target, spec, message):
    with pytest.raises(dkm.DkmError, match=message):
        dkm.palettize_file(dense[target], tmp_path / "small.mlpackage", spec)
    assert not any(tmp_path.iterdir())


def test_float16_weights(tmp_path):
    path = two_layers(tmp_path / "half.mlpackage", "iOS18", np.float16)
    result = dkm.palettize_file(path, tmp_path / "small.mlpackage", 3)
    assert {palette.lut.dtype for palette in result.palettes.values()} == {np.dtype("f2")}
    decoded = [palette.decode() for palette in result.palettes.values()]
    made = run(result.path, X.astype(np.float16))
    np.testing.assert_allclose(made, two_layers_of(X, *decoded), atol=5e-3)


def test_all_else_is_kept_byte_for_byte(dense, tmp_path):
    path = dense["iOS18"]
    edit(path, lambda model: model.description.metadata.userDefined.update({"maker": "Ada"}))
    (path / "Data/other.vendor").mkdir()
    (path / "Data/other.vendor/notes.txt").write_text("mine")
    result = dkm.palettize_file(path, tmp_path / "small.mlpackage", 4)
    before, after = files(path), files(result.path)
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} == {
        "Data/com.apple.CoreML/model.mlmodel",
        "Data/com.apple.CoreML/weights/weight.bin",
    }
    old, new = (open_package(each) for each in (path, result.path))
    assert new.user_metadata == {
        **old.user_metadata,
        "dkm_deploy.weights": '{"first_weight": "first_weight", "second_weight": "second_weight"}',
    }
    assert new.model.description.input == old.model.description.input
    assert new.model.description.output == old.model.description.output
    again = dkm.palettize_file(path, tmp_path / "again.mlpackage", 4)
    assert files(again.path) == after


@pytest.mark.parametrize(
    ("build", "shape", "weights"),
    [
        (
            lambda x: mb.conv(x=x, weight=mb.const(val=values(24, 8, 3, 3), name="w")),
            (1, 8, 6, 6),
            ["w"],
        ),
        (
            lambda x: mb.conv_transpose(x=x, weight=mb.const(val=values(8, 24, 3, 3), name="w")),
            (1, 8, 6, 6),
            ["w"],
        ),
        (
            lambda x: mb.einsum(
                values=(x, mb.const(val=values(1, 9, 6, 24), name="w")),
                equation="nchw,nwhu->nchu",
            ),
            (1, 8, 6, 9),
            ["w"],
        ),
        (
            lambda x: mb.matmul(
                x=x, y=mb.transpose(x=mb.const(val=values(40, 64), name="w"), perm=[1, 0])
            ),
            (2, 64),
            ["w"],
        ),
        (
            lambda x: mb.gather(
                x=mb.const(val=values(90, 24), name="w"),
                indices=mb.cast(x=x, dtype="int32"),
                axis=0,
            ),
            (4,),
            ["w"],
        ),
        (
            lambda x: mb.lstm(
                x=x,
                initial_h=np.zeros((2, 16), np.float32),
                initial_c=np.zeros((2, 16), np.float32),
                weight_ih=mb.const(val=values(64, 24), name="ih"),
                weight_hh=mb.const(val=values(64, 16, seed=5), name="hh"),
                direction="forward",
            )[0],
            (3, 2, 24),
            ["ih", "hh"],
        ),
    ],
    ids=["conv", "conv_transpose", "einsum", "transposed matmul", "gather", "lstm"],
)
def test_every_kind_of_layer(tmp_path, build, shape, weights):
    path = one_layer(tmp_path / "net.mlpackage", build, shape, "iOS16")
    result = dkm.palettize_file(path, tmp_path / "small.mlpackage", 2)
    assert list(result.palettes) == weights
    x = np.abs(values(*shape, seed=9))
    report = dkm.validate(result.path, original=path, inputs={"x": x})
    assert {check.name: check.status for check in report.files[0].checks}["parity"] == "passed"
    assert not np.array_equal(run(result.path, x), run(path, x))
