from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dkm_deploy import DkmError, Palette
from dkm_deploy.ops import lut_to_dense
from dkm_deploy.palette import difference


@st.composite
def palettes(draw):
    """Palettes of rank 1 to 4 with any groups, axis, width and cluster_dim."""
    rank = draw(st.integers(1, 4))
    groups = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    shape = tuple(g * draw(st.integers(1, 3)) for g in groups)
    bits, dim = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    indices = rng.integers(0, 1 << bits, shape).astype(np.uint8)
    lut = rng.normal(size=(*groups, 1 << bits, dim)).astype(np.float32)
    return Palette(indices, lut, draw(st.integers(0, rank - 1)))


def _decode_slowly(palette: Palette) -> np.ndarray:
    """The definition, an element at a time."""
    dense = np.empty(palette.shape, palette.lut.dtype)
    for where in np.ndindex(*palette.shape):
        at = list(where)
        at[palette.axis], part = divmod(where[palette.axis], palette.cluster_dim)
        sizes = zip(at, palette.indices.shape, palette.groups, strict=True)
        group = tuple(i // (n // g) for i, n, g in sizes)
        dense[where] = palette.lut[(*group, palette.indices[tuple(at)], part)]
    return dense


@settings(max_examples=60, deadline=None)
@given(palettes())
def test_decode_is_the_definition(palette):
    assert np.array_equal(palette.decode(), _decode_slowly(palette))


def _scaled(palette: Palette) -> Palette:
    """The palette with a scale for each channel, of very different sizes."""
    channels, *rest = palette.shape
    scale = np.geomspace(0.01, 7, channels).reshape(channels, *[1] * len(rest))
    return Palette(
        palette.indices, palette.lut, palette.axis, scale=scale.astype(palette.lut.dtype)
    )


@settings(max_examples=60, deadline=None)
@given(palettes())
def test_luts_that_hold_the_scale_decode_to_the_same_bits(palette):
    for plain in (palette, palette.astype(np.float16)):
        scaled = _scaled(plain)
        folded = scaled.scale_in_luts()
        assert folded.scale is None
        assert folded.decode().tobytes() == scaled.decode().tobytes()
        assert plain.scale_in_luts() is plain
    assert difference(scaled, folded) is None


@settings(max_examples=60, deadline=None)
@given(palettes())
def test_a_scale_multiplies_each_channel_in_the_luts_dtype(palette):
    for plain in (palette, palette.astype(np.float16)):
        scaled = _scaled(plain)
        dense = scaled.decode()
        assert dense.dtype == plain.lut.dtype
        for channel, values in enumerate(_decode_slowly(plain)):
            assert np.array_equal(dense[channel], values * scaled.scale[channel])


@settings(max_examples=60, deadline=None)
@given(palettes())
def test_the_op_decodes_as_the_palette_does(palette):
    indices, lut = torch.tensor(palette.indices), torch.tensor(palette.lut)
    dense = lut_to_dense(indices, lut, palette.axis)
    assert np.array_equal(dense.numpy(), palette.decode())


def test_the_op_passes_torchs_own_checks():
    indices = torch.randint(0, 4, (4, 6), dtype=torch.uint8)
    torch.library.opcheck(lut_to_dense, (indices, torch.randn(2, 1, 4, 2), 1))


@given(palettes(), st.integers(0, 7))
def test_widening_keeps_the_weight(palette, more):
    bits = min(8, palette.bits + more)
    wide = palette.widen(bits)
    assert wide.bits == bits
    assert np.array_equal(wide.decode(), palette.decode())
    assert difference(palette, wide) is None


def test_equality_is_bit_for_bit():
    indices, lut = np.zeros((2, 2), np.uint8), np.zeros((1, 1, 2, 1), np.float32)
    assert Palette(indices, lut) == Palette(indices.copy(), lut.copy())
    negative_zero = lut.copy()
    negative_zero[0, 0, 1, 0] = -0.0
    assert Palette(indices, lut) != Palette(indices, negative_zero)
    assert Palette(indices, lut) != Palette(indices, lut.astype(np.float16))


def test_the_axis_of_a_scalar_palette_means_nothing():
    indices, lut = np.zeros((4, 4), np.uint8), np.zeros((1, 2, 2, 1), np.float32)
    assert Palette(indices, lut, axis=0) == Palette(indices, lut, axis=1)
    assert Palette(indices, lut, axis=0).axis == 1
    vectors = np.zeros((1, 1, 2, 2), np.float32)
    assert Palette(indices, vectors, axis=0) != Palette(indices, vectors, axis=1)


def test_bits_per_weight_counts_the_luts():
    palette = Palette(np.zeros((4, 8), np.uint8), np.zeros((1, 1, 4, 2), np.float16), axis=1)
    assert palette.size == 64
    assert palette.bits_per_weight == (32 * 2 + 8 * 16) / 64


def test_a_scale_is_part_of_a_palette():
    plain = Palette(np.zeros((4, 8), np.uint8), np.ones((1, 1, 4, 2), np.float32), axis=1)
    palette = _scaled(plain)
    assert palette != plain
    assert plain != palette
    assert palette == _scaled(plain)
    assert "scale=per channel" in repr(palette)
    assert palette.bits_per_weight == (32 * 2 + (8 + 4) * 32) / 64
    half = palette.astype(np.float16)
    assert half.scale.dtype == np.float16
    for stored in (half, palette.widen(3), half.widen(8)):
        assert difference(palette, stored) is None
    assert "in place of" in difference(palette, plain)
    off = palette.scale.copy()
    off[2] = np.nextafter(off[2], np.float32(9))
    other = Palette(palette.indices, palette.lut, 1, scale=off)
    assert palette != other
    assert difference(palette, other) == "the scales of the channels differ"
    with pytest.raises(ValueError, match="read-only"):
        palette.scale[0] = 1


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (np.ones((4, 1)), "the scale is float64 and the LUT float32"),
        (np.ones((2, 1), np.float32), r"shape \(2, 1\) does not fit .*it must be \(4, 1\)"),
        (np.ones(4, np.float32), r"shape \(4,\) does not fit"),
        (np.ones((1, 3), np.float32), r"shape \(1, 3\) does not fit"),
        (np.full((4, 1), np.inf, np.float32), "the scale holds NaN or infinity"),
    ],
)
def test_a_scale_that_does_not_fit_is_refused(scale, message):
    """Vectors of two along dimension 0: four channels of two rows of indices."""
    with pytest.raises(DkmError, match=message):
        Palette(np.zeros((2, 3), np.uint8), np.zeros((1, 1, 2, 2), np.float32), 0, scale=scale)


def test_arrays_cannot_be_written():
    palette = Palette(np.zeros((2, 2), np.uint8), np.zeros((1, 1, 2, 1), np.float32))
    with pytest.raises(ValueError, match="read-only"):
        palette.indices[0, 0] = 1


@pytest.mark.parametrize(
    ("indices", "lut", "axis", "bits", "message"),
    [
        (np.zeros((2, 2)), np.zeros((1, 1, 2, 1)), 0, 0, "indices are float64"),
        (np.zeros((2, 2), np.uint8), np.zeros((1, 1, 2, 1), int), 0, 0, "the LUT is int64"),
        (np.zeros((2, 2), np.uint8), np.zeros((2, 1)), 0, 0, "need a LUT of rank 4"),
        (
            np.zeros((2, 2), np.uint8),
            np.zeros((1, 1, 2, 1)),
            2,
            0,
            "^axis is 2; the weight has dimensions 0 to 1$",
        ),
        (
            np.zeros((2, 2), np.uint8),
            np.zeros((1, 1, 2, 0)),
            0,
            0,
            "^the LUT's entries are empty; cluster_dim is at least 1$",
        ),
        (np.zeros((2, 2), np.uint8), np.zeros((1, 1, 3, 1)), 0, 0, "the LUT has 3 entries"),
        (np.zeros((2, 2), np.uint8), np.zeros((1, 1, 512, 1)), 0, 0, "the LUT has 512 entries"),
        (np.zeros((2, 3), np.uint8), np.zeros((1, 2, 2, 1)), 0, 0, r"^group counts \(1, 2\)"),
        (np.full((2, 2), 2, np.uint8), np.zeros((1, 1, 2, 1)), 0, 0, "index 2 points outside"),
        (np.zeros((2, 2), np.uint8), np.full((1, 1, 2, 1), np.nan), 0, 0, "NaN or infinity"),
        (np.zeros((2, 2), np.uint8), np.zeros((1, 1, 2, 1)), 0, 3, "bits is 3, but a LUT of 2 "),
        (np.zeros((2, 2), np.uint8), np.zeros((1, 1, 8, 1)), 0, 2, "bits is 2, but a LUT of 8 e"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(indices, lut, axis, bits, message):
    with pytest.raises(DkmError, match=message):
        Palette(indices, lut, axis, bits)


def test_a_lut_that_overflows_float16_is_refused():
    palette = Palette(np.zeros((1, 1), np.uint8), np.array([[[[1e6], [0]]]], np.float32))
    with pytest.raises(DkmError, match="NaN or infinity"):
        palette.astype(np.float16)


def test_difference_names_what_differs():
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 4, (4, 4)).astype(np.uint8)
    palette = Palette(indices, rng.normal(size=(1, 1, 4, 1)).astype(np.float32))
    assert difference(palette, palette.astype(np.float16)) is None
    flipped = indices.copy()
    flipped[1, 2] ^= 1
    assert difference(palette, Palette(flipped, palette.lut)) == "1 of 16 indices differ"
    turned = Palette(np.ascontiguousarray(indices.T), palette.lut)
    assert difference(palette, turned) == "it is transposed: its first two dimensions are swapped"
    off = palette.lut.astype(np.float16)
    off[0, 0, 2, 0] = np.nextafter(off[0, 0, 2, 0], np.float16(np.inf))
    gap = float(off[0, 0, 2, 0]) - float(palette.lut.astype(np.float16)[0, 0, 2, 0])
    assert difference(palette, Palette(indices, off)) == (
        f"LUT entries differ: 1 of 4 float16 values, by up to {gap:.3g}"
    )
    assert "shape" in difference(palette, Palette(indices[:2], palette.lut))
    vectors = palette.lut.reshape(1, 1, 2, 2)
    pairs = Palette(indices // 2, vectors, axis=0), Palette(indices // 2, vectors, axis=1)
    assert "shape" in difference(*pairs)


def test_a_difference_of_a_vector_of_weights_is_told_too():
    """Of one dimension: there are no two to be swapped."""
    lut = np.arange(4, dtype=np.float32).reshape(1, 4, 1)
    one, other = (Palette(np.array(values, np.uint8), lut) for values in ([0, 1, 2], [2, 1, 0]))
    assert difference(one, other) == "2 of 3 indices differ"


def test_a_difference_in_layout_shows_both():
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 2, (2, 2)).astype(np.uint8)
    whole = Palette(indices, np.array([0, 1], np.float32).reshape(1, 1, 2, 1))
    rows = Palette(indices, np.array([0, 1, 0, 1], np.float32).reshape(2, 1, 2, 1))
    assert difference(whole, rows) == f"stored as {rows!r} in place of {whole!r}"
    assert (
        difference(whole, _scaled(whole)) == f"stored as {_scaled(whole)!r} in place of {whole!r}"
    )
    wide = whole.widen(3)
    assert difference(wide, whole) == f"stored as {whole!r} in place of {wide!r}"


def test_a_palette_says_what_it_is():
    plain = Palette(np.zeros((4, 8), np.uint8), np.ones((2, 1, 4, 2), np.float32), axis=1)
    told = "Palette(shape=(4, 16), bits=2, cluster_dim=2, axis=1, groups=(2, 1), lut=float32"
    assert repr(plain) == f"{told})"
    assert repr(_scaled(plain)) == f"{told}, scale=per channel)"


def test_a_palette_is_no_other_object():
    assert Palette(np.zeros(2, np.uint8), np.zeros((1, 2, 1), np.float32)) != "a palette"


@pytest.mark.parametrize("bits", [1, 9])
def test_widening_to_fewer_bits_or_beyond_a_byte_is_refused(bits):
    palette = Palette(np.zeros(2, np.uint8), np.zeros((1, 4, 1), np.float32))
    with pytest.raises(DkmError, match=f"^2 bits cannot be widened to {bits} bits$"):
        palette.widen(bits)


@settings(max_examples=60, deadline=None)
@given(palettes().filter(lambda palette: palette.indices.ndim == 2))
def test_a_transposed_palette_is_that_of_the_transposed_matrix(palette):
    turned = palette.transpose()
    assert np.array_equal(turned.decode(), palette.decode().T)
    assert turned.lut.flags.c_contiguous
    assert turned.indices.flags.c_contiguous


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indices": [[0, 0]]}, "^indices is a list; give a numpy array$"),
        ({"lut": (1.0, 2.0)}, "^lut is a tuple; give a numpy array$"),
        ({"bits": 9}, "^bits is 9"),
        ({"bits": -1}, "^bits is -1"),
        ({"bits": 1.5}, "^bits is 1.5"),
        ({"axis": -1}, "^axis is -1"),
        ({"axis": "0"}, "^axis is '0'"),
    ],
)
def test_what_is_no_array_or_no_whole_number_is_named(change, message):
    right = {"indices": np.zeros((2, 2), np.uint8), "lut": np.zeros((1, 1, 2, 1), np.float32)}
    with pytest.raises(DkmError, match=message):
        Palette(**(right | change))


def test_numbers_of_numpy_are_taken():
    lut = np.zeros((1, 1, 256, 2), np.float32)
    palette = Palette(np.zeros((2, 2), np.uint8), lut, np.int64(1), np.int64(8))
    assert (palette.axis, palette.bits) == (1, 8)
    assert type(palette.axis) is type(palette.bits) is int
