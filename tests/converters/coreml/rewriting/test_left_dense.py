"""What stays as it is in a package, and the reasons that are told."""

from __future__ import annotations

import numpy as np
import pytest

import dkm_deploy as dkm
from tests.converters.coreml.rewriting.packages import one_layer, run, values
from tests.formats.mlpackage.packages import mb

NAN = values(48, 64)
NAN[3, 5] = np.nan
TYPED = np.arange(48 * 64, dtype=np.uint8).reshape(48, 64) % 16


def _linear(weight):
    return lambda x: mb.linear(x=x, weight=weight())


def _const(array):
    return _linear(lambda: mb.const(val=array, name="w"))


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (_const(NAN), "it holds NaN or infinity"),
        (_const(np.full((48, 64), 0.5, np.float32)), "all its values are 0.5"),
        (_const(values(1, 64)), r"64 values: 320 bytes now, 3\d\d as a palette"),
        (
            lambda x: mb.mul(x=x, y=mb.const(val=values(48, 64), name="w")),
            "input y of mul: not the weight of a linear operation",
        ),
        (
            lambda x: mb.add(
                x=mb.matmul(x=x, y=(w := mb.const(val=values(64, 64), name="w"))),
                y=mb.slice_by_index(x=w, begin=[0, 0], end=[1, 64]),
            ),
            "input y of add: not the weight",
        ),
        (
            lambda x: mb.gather(
                x=mb.const(val=values(9, 64), name="w"),
                indices=np.arange(30, dtype=np.int32) % 9,
                axis=0,
            ),
            "a lookup table already: constant indices read from it",
        ),
        (
            lambda x: mb.gather(
                x=mb.const(val=np.arange(300, dtype=np.int32).reshape(3, 100), name="w"),
                indices=mb.cast(x=x, dtype="int32"),
                axis=1,
            ),
            "int32: palettes are float16 or float32",
        ),
    ],
    ids=["nan", "constant", "small", "factor", "two uses", "lookup table", "integers"],
)
def test_what_is_no_weight_is_told(tmp_path, build, reason):
    path = one_layer(tmp_path / "net.mlpackage", build, (48, 64))
    with pytest.raises(
        dkm.DkmError, match=f"net.mlpackage: there is nothing to palettize: w: {reason}"
    ):
        dkm.palettize_file(path, tmp_path / "small.mlpackage", 4)
    assert [part.name for part in tmp_path.iterdir()] == ["net.mlpackage"]


def test_a_constant_weight_that_a_rule_names_is_palettized(tmp_path):
    build = _const(np.full((48, 64), 0.5, np.float32))
    path = one_layer(tmp_path / "net.mlpackage", build, (2, 64))
    recipe = dkm.Recipe(rules=[dkm.Rule("w", spec=1)])
    result = dkm.palettize_file(path, tmp_path / "small.mlpackage", recipe)
    assert (result.palettes["w"].decode() == 0.5).all()


def test_a_default_that_a_weight_cannot_take_becomes_the_nearest(tmp_path):
    path = one_layer(tmp_path / "net.mlpackage", _const(values(60, 64)), (2, 64))
    spec = dkm.PaletteSpec(4, group_size=16)
    result = dkm.palettize_file(path, tmp_path / "small.mlpackage", spec)
    assert result.adjusted.keys() == {"w"}
    assert result.palettes["w"].groups == (4, 1)


COMPRESSED = {
    "palettized already": lambda: mb.constexpr_lut_to_dense(
        indices=TYPED.reshape(-1)[: 48 * 32],
        lut=np.linspace(-1, 1, 16, dtype=np.float32),
        shape=np.array([48, 64], np.uint32),
        name="other",
    ),
    "quantized already": lambda: mb.constexpr_affine_dequantize(
        quantized_data=TYPED.astype(np.int8),
        zero_point=np.int8(0),
        scale=np.float32(0.1),
        axis=0,
        name="other",
    ),
    "pruned already": lambda: mb.constexpr_sparse_to_dense(
        nonzero_data=np.ones(8 * 384, np.float32),
        mask=np.full(384, 255, np.uint8),
        shape=np.array([48, 64], np.uint32),
        name="other",
    ),
}


@pytest.mark.parametrize("told", COMPRESSED)
def test_what_other_tools_compressed_is_kept_and_listed(tmp_path, told):
    def body(x):
        own = mb.linear(x=x, weight=mb.const(val=values(64, 64), name="w"))
        return mb.linear(x=own, weight=COMPRESSED[told]())

    path = one_layer(tmp_path / "net.mlpackage", body, (2, 64), "iOS16")
    result = dkm.palettize_file(path, tmp_path / "small.mlpackage", 4)
    assert result.dense == {"other": told}
    assert list(result.palettes) == ["w"]
    x = values(2, 64, seed=9)
    assert dkm.validate(result.path, original=path, inputs={"x": x})
    assert not np.array_equal(run(path, x), run(result.path, x))
