from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkm_deploy.palette_spec import PaletteSpec, nearest_spec


@pytest.mark.parametrize(
    ("spec", "shape", "found"),
    [
        (PaletteSpec(group_size=32), (1000, 64), PaletteSpec(group_size=40)),
        (PaletteSpec(group_size=32), (10, 64), PaletteSpec()),
        (PaletteSpec(group_size=32), (1009, 64), PaletteSpec()),
        (PaletteSpec(group_size=32), (48, 64), PaletteSpec(group_size=24)),
        (PaletteSpec(cluster_dim=4), (10, 64), PaletteSpec(cluster_dim=2)),
        (PaletteSpec(cluster_dim=4), (7, 64), PaletteSpec(cluster_dim=1)),
        (PaletteSpec(cluster_dim=4, group_size=32), (10, 64), PaletteSpec(cluster_dim=2)),
        (PaletteSpec(cluster_dim=2, group_size=5), (60, 4), PaletteSpec(4, 2, 0, 6)),
        (PaletteSpec(8, axis=3), (6, 4), PaletteSpec(8, axis=1)),
        (PaletteSpec(3, 1, 0, 5, True), (6, 4), PaletteSpec(3, per_channel_scale=True)),
    ],
)
def test_the_nearest_layout_divides_the_channels(spec, shape, found):
    nearest, change = nearest_spec(spec, shape)
    assert nearest == found
    assert change.startswith(f"{spec.refuse(shape)}; it has ")


def test_what_it_has_is_told():
    told = nearest_spec(PaletteSpec(cluster_dim=4, group_size=32), (10, 3))[1]
    assert told == "cluster_dim 4 does not divide its 10 channels; it has cluster_dim 2, one LUT"


@given(
    st.builds(
        PaletteSpec,
        bits=st.integers(1, 8),
        cluster_dim=st.integers(1, 16),
        axis=st.integers(0, 7),
        group_size=st.none() | st.integers(1, 512),
    ),
    st.lists(st.integers(1, 200), min_size=2, max_size=4),
)
def test_the_nearest_layout_fits_and_is_the_same_where_it_fitted(spec, shape):
    nearest, change = nearest_spec(spec, shape)
    assert nearest.refuse(shape) is None
    assert (nearest == spec) == (change == "") == (spec.refuse(shape) is None)
    assert nearest.bits == spec.bits
