"""Which computation of a file is which call of a PyTorch layer."""

from __future__ import annotations

from torch import nn

from dkm_deploy.runtimes import Tap
from dkm_deploy.validation.locate.layer_calls import LayerCall
from dkm_deploy.validation.locate.layer_pairs import Pair, groups, norms_of, pair


def _tap(layer, place=0):
    return Tap(f"{layer}.weight", f"{layer}_in{place}", f"{layer}_out{place}")


def _call(layer, taken=2, made=3):
    return LayerCall(layer, (taken, 5), (made,))


def test_layers_go_in_the_files_order_to_their_calls():
    taps = [_tap("b.c"), _tap("a")]
    pairs = pair(taps, [_call("a"), _call("other"), _call("b.c", 7)], ())
    assert pairs == [Pair(taps[0], 2, None, 4 * (35 + 3)), Pair(taps[1], 0, None, 4 * (10 + 3))]
    assert [each.layer for each in pairs] == ["b.c", "a"]


def test_a_layer_that_is_called_twice_is_paired_twice_or_not_at_all():
    taps = [_tap("a", 0), _tap("a", 1)]
    calls = [_call("a"), _call("b"), _call("a")]
    assert [each.call for each in pair(taps, calls, ())] == [0, 2]
    assert pair(taps[:1], calls, ()) == []
    assert pair(taps, calls[:2], ()) == []
    assert pair([_tap("none")], calls, ()) == []


def test_a_norm_that_the_file_lacks_may_be_folded_into_the_call_before():
    calls = [_call("conv"), _call("norm", 11, 13), _call("head"), _call("last")]
    size = 4 * (10 + 3 + 55 + 13)
    head = Pair(_tap("head"), 2, None, 4 * 13)
    found = pair([_tap("conv"), _tap("head")], calls, ["norm"])
    assert found == [Pair(_tap("conv"), 0, 1, size), head]
    assert [each.folded for each in pair([_tap("conv"), _tap("norm")], calls, ["norm"])] == [
        None,
        None,
    ]
    assert [each.folded for each in pair([_tap("conv")], calls, ())] == [None]


def test_batch_normalizations_are_found_by_their_class():
    norms = [nn.BatchNorm1d(1), nn.BatchNorm2d(1), nn.BatchNorm3d(1)]
    model = nn.Sequential(*norms, nn.LayerNorm(1), nn.Linear(1, 1))
    assert norms_of(model, map(str, range(5))) == {"0", "1", "2"}
    assert norms_of(model, ["1", "3"]) == {"1"}


def test_groups_hold_what_fits_and_at_least_one():
    def sized(size):
        return Pair(Tap("w", "x", "y"), 0, None, size)

    grouped = groups(map(sized, [3, 4, 9, 1, 7, 2]), 8)
    assert [[each.size for each in group] for group in grouped] == [[3, 4], [9], [1, 7], [2]]
    assert list(groups([], 8)) == []
