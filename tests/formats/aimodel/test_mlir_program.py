"""Operations of Core AI programs: every part that one can have, and regions inside it."""

import pytest

from dkm_deploy.errors import DkmError
from dkm_deploy.formats.aimodel.asset import Asset
from dkm_deploy.formats.aimodel.byte_cursor import DamagedError
from dkm_deploy.formats.aimodel.mlir_program import open_program, parse
from tests.formats.aimodel import mlir_bytecode as ml
from tests.formats.aimodel.mlir_bytecode import bytecode, flagged, listed, number, numbers, strings

NAMES = ("m", "a", "b", "c", "d")
ATTRIBUTES, RESULTS, OPERANDS, SUCCESSORS, REGIONS, ORDERS, PROPERTIES = (1 << i for i in range(7))


def file(content, *, program=True):
    """A program of this content, with operations m.a to m.d and two properties."""
    named = b"".join(flagged(1 + i) for i in range(4))
    return bytecode(
        strings(*NAMES),
        ml.section(ml.DIALECTS, number(1), flagged(0), number(4), numbers(0, 4), named),
        ml.section(ml.ATTRIBUTES),
        ml.section(ml.ATTRIBUTE_OFFSETS, numbers(0, 0)),
        ml.section(ml.PROPERTIES, number(2), number(1) + b"p", number(2) + b"qr"),
        *([ml.section(ml.IR, content)] if program else []),
    )


def op(name, mask=0, *parts):
    """An operation at location 7."""
    return number(name) + bytes([mask]) + number(7) + b"".join(parts)


def block(*operations, arguments=b""):
    return flagged(len(operations), bool(arguments)) + arguments + b"".join(operations)


def region(values, *blocks):
    return numbers(len(blocks), values) + b"".join(blocks)


def around(*regions, isolated=False, name=0):
    """A block of one operation that has these regions."""
    return block(op(name, REGIONS, flagged(len(regions), isolated), *regions))


def shown(content):
    """Each operation's name, results and the names of what made its operands."""
    found = parse(file(content)).operations
    return [(o.name, o.results, tuple(m and m.name for m in o.operands)) for o in found]


def message(content, **options):
    with pytest.raises(DamagedError) as caught:
        parse(file(content, **options))
    return str(caught.value)


def test_operations_name_who_made_what_they_take():
    body = block(
        op(0, RESULTS, listed(5, 6)),
        op(1, RESULTS | OPERANDS, listed(4), listed(1, 0)),
        op(2, OPERANDS, listed(2, 0)),
    )
    assert shown(around(region(3, body), name=3)) == [
        ("m.d", (), ()),
        ("m.a", (5, 6), ()),
        ("m.b", (4,), ("m.a", "m.a")),
        ("m.c", (), ("m.b", "m.a")),
    ]


def test_parts_that_are_not_kept_are_skipped_in_their_order():
    every = op(
        *(1, ATTRIBUTES | RESULTS | OPERANDS | SUCCESSORS | REGIONS | PROPERTIES),
        *(number(90), number(1), listed(5), listed(0), listed(8, 8, 8)),
        flagged(1) + number(0),
    )
    body = block(op(0, RESULTS, listed(3)), every, op(2, ATTRIBUTES, number(9)), op(3))
    content = around(region(2, body))
    assert shown(content) == [
        *[("m.a", (), ()), ("m.a", (3,), ()), ("m.b", (5,), ("m.a",)), ("m.c", (), ())],
        ("m.d", (), ()),
    ]
    owned = [o.properties for o in parse(file(content)).operations]
    assert [o and bytes(o.again().take(o.remaining)) for o in owned] == [
        None,
        None,
        b"qr",
        None,
        None,
    ]


def test_arguments_are_values_that_no_operation_makes():
    """Each is a type with a flag that a location follows; a zero says that there are no orders."""
    arguments = number(2) + flagged(1, True) + number(60) + flagged(0) + b"\0"
    body = block(
        op(0, RESULTS | OPERANDS, listed(1), listed(1)),
        op(1, OPERANDS, listed(0, 2)),
        arguments=arguments,
    )
    assert shown(around(region(3, body)))[1:] == [
        ("m.a", (1,), (None,)),
        ("m.b", (), (None, "m.a")),
    ]


def test_blocks_of_a_region_number_their_values_on():
    first = block(op(0, RESULTS, listed(1)))
    second = block(
        op(1, RESULTS | OPERANDS, listed(1), listed(0)),
        op(2, OPERANDS, listed(1, 0, 2)),
        arguments=number(1) + flagged(0) + b"\0",
    )
    assert shown(around(region(3, first, second)))[1:] == [
        ("m.a", (1,), ()),
        ("m.b", (1,), ("m.a",)),
        ("m.c", (), (None, "m.a", "m.b")),
    ]


def test_an_inner_region_sees_the_values_around_it_and_its_own_end_with_it():
    inner = region(1, block(op(1, RESULTS | OPERANDS, listed(1), listed(0))))
    body = block(
        op(0, RESULTS, listed(1)),
        op(2, REGIONS, flagged(2), inner, inner),
        op(3, RESULTS | OPERANDS, listed(1), listed(0)),
    )
    assert shown(around(region(2, body)))[1:] == [
        *[("m.a", (1,), ()), ("m.c", (), ()), ("m.b", (1,), ("m.a",)), ("m.b", (1,), ("m.a",))],
        ("m.d", (1,), ("m.a",)),
    ]
    late = block(
        op(0, RESULTS, listed(1)), op(2, REGIONS, flagged(1), inner), op(3, OPERANDS, listed(1))
    )
    assert message(around(region(1, late))) == "index 1 in a table of 1"


def test_an_isolated_region_has_a_section_and_values_of_its_own():
    inner = ml.section(
        ml.IR, region(1, block(op(1, RESULTS, listed(1)), op(2, OPERANDS, listed(0))))
    )
    body = block(
        op(0, RESULTS, listed(1)),
        op(3, REGIONS, flagged(2, True), inner, inner),
        op(3, OPERANDS, listed(0)),
    )
    twice = 2 * [("m.b", (1,), ()), ("m.c", (), ("m.b",))]
    assert shown(around(region(1, body)))[1:] == [
        *[("m.a", (1,), ()), ("m.d", (), ()), *twice, ("m.d", (), ("m.a",))]
    ]
    outer = ml.section(ml.IR, region(0, block(op(1, OPERANDS, listed(0)))))
    body = block(op(0, RESULTS, listed(1)), op(3, REGIONS, flagged(1, True), outer))
    assert message(around(region(1, body))) == "index 0 in a table of 0"


def test_a_region_without_blocks_has_no_values():
    assert shown(around(number(0), region(1, block(op(1, RESULTS, listed(1)))))) == [
        *[("m.a", (), ()), ("m.b", (1,), ())]
    ]


def place(content, tail):
    """Of the byte that ``tail`` starts at."""
    return file(content).index(tail)


def test_values_that_the_bytes_left_could_not_make():
    content = around(region(4, b"")[:1] + number(4) + b"\xf1\xf1\xf1")
    assert message(content) == f"byte {place(content, bytes([0xF1] * 3))}: 4 values in 3 bytes"
    assert shown(around(region(1, block()))) == [("m.a", (), ())]  # as many as there are bytes


def test_more_values_than_a_region_says():
    content = around(region(1, block(op(0, RESULTS, listed(1, 90)))))
    end = len(file(content))
    assert message(content) == f"byte {end}: more values than the region has"


@pytest.mark.parametrize(
    "content",
    [
        around(region(1, block(op(0, ORDERS), arguments=b""))),
        around(region(1, block(arguments=number(1) + flagged(0) + b"\1"))),
    ],
)
def test_orders_of_uses_are_unknown(content):
    expected = f"byte {len(file(content))}: use-list orders are not supported"
    assert message(content) == expected


def test_regions_that_are_nested_too_deep():
    content = block(op(0))
    for _ in range(2000):
        content = block(op(0, REGIONS, flagged(1), region(0, content)))
    assert message(content) == "regions are nested too deep"


def test_a_file_without_a_program():
    assert message(b"", program=False) == "it holds no program"


def test_a_damaged_program_is_told_with_its_asset(tmp_path):
    asset = Asset(tmp_path / "m.aimodel", file(b"", program=False), {})
    with pytest.raises(DkmError) as caught:
        open_program(asset)
    assert str(caught.value) == (
        f"{tmp_path}/m.aimodel: its program is damaged or of an unknown kind: it holds no program"
    )
