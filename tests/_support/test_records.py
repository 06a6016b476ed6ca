"""Records from plain values: what is taken, and what is told of anything else."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dkm_deploy as dkm
from dkm_deploy._support.byte_sizes import bytes_of
from dkm_deploy._support.records import WrittenAs, from_plain, parse_json
from dkm_deploy.conversion.plan_subject import FileSizes
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.interface import Interface
from dkm_deploy.recipe_file import RecipeFile
from dkm_deploy.report.report_file import ReportFile
from dkm_deploy.runtimes.mlprogram.interface import Pixels
from dkm_deploy.validation.golden.manifest import Manifest


@dataclass(frozen=True)
class Wheel:
    spokes: int = 8

    def __post_init__(self) -> None:
        if self.spokes < 0:
            raise DkmError(f"spokes is {self.spokes}; it must be at least 0")


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Cart:
    kind: Literal["cart", "sledge"]
    name: str
    wheels: Sequence[Wheel] = ()
    spare: Wheel | None = None
    load: Annotated[int, WrittenAs(bytes_of, "bytes, such as '3KB'")] | None = None
    size: tuple[float, int] = (0.0, 0)
    cover: bool = False
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    other: Any = None
    colour: Colour = Colour.RED


CART = {"kind": "cart", "name": "a"}
KEYS = "kind, name, wheels, spare, load, size, cover, notes, other, colour"


def test_every_kind_of_field_is_read():
    values = {
        **CART,
        "wheels": [{}, {"spokes": 3}],
        "spare": {"spokes": 1},
        "load": "3KB",
        "size": [1, 2],
        "cover": True,
        "notes": {"x": ["a", "b"]},
        "other": [{"any": None}],
        "colour": "blue",
    }
    found = from_plain(values, Cart)
    assert found == Cart(
        "cart",
        "a",
        (Wheel(), Wheel(3)),
        Wheel(1),
        3000,
        (1.0, 2),
        True,
        {"x": ("a", "b")},
        [{"any": None}],
        Colour.BLUE,
    )
    assert type(found.colour) is Colour
    assert [type(one) for one in found.size] == [float, int]
    assert from_plain(CART, Cart) == Cart("cart", "a")
    assert math.isnan(from_plain({**CART, "size": [math.nan, 2]}, Cart).size[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nmae": 3}, f"unknown key 'nmae'; known keys are {KEYS}"),
        ({"kind": "car"}, "kind is 'car'; it must be one of 'cart', 'sledge'"),
        ({"kind": ["cart"]}, "kind is ['cart']; it must be one of 'cart', 'sledge'"),
        ({"colour": "RED"}, "colour is 'RED'; it must be one of 'red', 'blue'"),
        ({"name": 3}, "name is 3; it must be text"),
        ({"name": None}, "name is None; it must be text"),
        ({"name": "a", "wheels": {}}, "wheels is {}; it must be a list"),
        ({"wheels": "ab"}, "wheels is 'ab'; it must be a list"),
        ({"wheels": [{}, 3]}, "wheels[1] is 3; it must be a mapping with the keys spokes"),
        ({"wheels": [{}, {"spokes": "3"}]}, "wheels[1].spokes is '3'; it must be an integer"),
        ({"wheels": [{"spokes": True}]}, "wheels[0].spokes is True; it must be an integer"),
        ({"wheels": [{"spokes": 3.0}]}, "wheels[0].spokes is 3.0; it must be an integer"),
        ({"wheels": [{"spokes": -1}]}, "wheels[0]: spokes is -1; it must be at least 0"),
        ({"wheels": [{"a\nb": 1}]}, r"wheels[0]: unknown key 'a\nb'; known keys are spokes"),
        ({"spare": {"spokes": None}}, "spare.spokes is None; it must be an integer"),
        ({"load": "3 apples"}, "load is '3 apples'; it must be bytes, such as '3KB'"),
        ({"size": [1]}, "size is [1]; it must be a list of 2"),
        ({"size": [1, 2, 3]}, "size is [1, 2, 3]; it must be a list of 2"),
        ({"size": [1, 2.0]}, "size[1] is 2.0; it must be an integer"),
        ({"size": [True, 2]}, "size[0] is True; it must be a number"),
        ({"size": [10**400, 2]}, "size[0] is of type int; it must be a number that a float holds"),
        ({"cover": 1}, "cover is 1; it must be true or false"),
        ({"notes": []}, "notes is []; it must be a mapping"),
        ({"notes": {"x": "a"}}, "notes['x'] is 'a'; it must be a list"),
        ({"notes": {"x": ["a", 3]}}, "notes['x'][1] is 3; it must be text"),
        ({"kind": 1, "name": 2}, "kind is 1; it must be one of 'cart', 'sledge'"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_path(changes, message):
    with pytest.raises(DkmError) as caught:
        from_plain({**CART, **changes}, Cart)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"kind": "cart"}, "carts['x'].name is missing; it must be text"),
        (3, f"carts['x'] is 3; it must be a mapping with the keys {KEYS}"),
        ({**CART, "wheels": 3}, "carts['x'].wheels is 3; it must be a list"),
    ],
)
def test_the_path_begins_with_what_the_value_is(value, message):
    with pytest.raises(DkmError) as caught:
        from_plain({"x": value}, dict[str, Cart], "carts")
    assert str(caught.value) == message


def test_the_whole_of_a_file_has_no_name():
    with pytest.raises(DkmError, match="^it is 3; it must be a mapping with the keys spokes$"):
        from_plain(3, Wheel)


def test_keys_that_a_later_version_adds_are_left_out_where_that_is_asked_for():
    assert from_plain({"spokes": 3, "hub": {}}, Wheel, more_keys=True) == Wheel(3)
    with pytest.raises(DkmError, match="^unknown key 'hub'; known keys are spokes$"):
        from_plain({"spokes": 3, "hub": {}}, Wheel)


def test_what_is_nested_without_end_is_told():
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(DkmError, match="^spokes is of type list; it must be an integer$"):
        from_plain({"spokes": nested}, Wheel)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "1" * 5000, b"\xff"])
def test_what_is_no_json_is_told(text):
    with pytest.raises(DkmError, match="^not JSON: "):
        parse_json(text)


KINDS = [
    Cart,
    RecipeFile,
    dkm.Limits,
    dkm.Budget,
    Manifest,
    ReportFile,
    Interface,
    FileSizes,
    Pixels,
]
SOUND: dict[type, dict[str, Any]] = {
    Cart: CART,
    RecipeFile: {"default": {}, "rules": [{"skip": True}], "schedule": {"steps": 1, "gap": 0.1}},
    dkm.Limits: asdict(dkm.Limits(outputs={"y": dkm.OutputLimits()})),
    dkm.Budget: {"files": [{"match": "*", "max_bytes": 3}]},
    Interface: {"suffix": ".x", "inputs": [{"name": "x", "dtype": "image", "image": {}}]},
    Pixels: {"scale": 1, "bias": [0]},
}
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
_VALUES = st.recursive(
    _SCALARS | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


@st.composite
def _nearly(draw: st.DrawFn) -> tuple[type, Any]:
    """A kind of record, and values of which one, at any depth, is anything."""
    kind = draw(st.sampled_from(KINDS))
    values = json.loads(json.dumps(SOUND.get(kind, {"format": "?", "version": 1})))
    if draw(st.booleans()):
        return kind, draw(_VALUES)
    held: Any = values
    while True:
        names = list(kind.__dataclass_fields__) if held is values else []
        keys = [*held, *names] if isinstance(held, dict) else list(range(len(held)))
        key = draw(st.sampled_from(keys))
        inner = held.get(key) if isinstance(held, dict) else held[key]
        if not isinstance(inner, dict | list) or not inner or draw(st.booleans()):
            held[key] = draw(_VALUES)
            return kind, values
        held = inner


@settings(max_examples=150, deadline=None, derandomize=True)
@given(case=_nearly(), more_keys=st.booleans())
def test_any_value_is_a_record_or_one_line(case, more_keys):
    kind, values = case
    told = "one line"
    try:
        assert isinstance(from_plain(values, kind, more_keys=more_keys), kind)
    except DkmError as error:
        told = str(error)
    assert len(told.splitlines()) == 1
    assert len(told) < 2000
