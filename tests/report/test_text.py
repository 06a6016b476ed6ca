from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkm_deploy.errors import printable
from dkm_deploy.report import text


@pytest.mark.parametrize(
    ("write", "values", "expected"),
    [
        (text.count_text, (1_234_567,), "1,234,567"),
        (text.figure, (1.2345e-6,), "1.23e-06"),
        (text.figure, (0.5,), "0.500"),
        (text.figure, (123.4,), "123"),
        (text.figure, (0.0,), "0"),
        (text.score_text, (97.2222,), "97.22"),
        (text.score_text, (12_345.678,), "12,345.68"),
        (text.score_text, (-97.2222,), "-97.22"),
        (text.score_text, (1.0,), "1.000"),
        (text.score_text, (0.01234,), "0.01234"),
        (text.score_text, (0.0,), "0.00"),
        (text.fixed_text, (2.0547, 2), "2.05"),
        (text.ratio, (12.345,), "12.3x"),
        (text.times, (1.0549,), "1.05x"),
        (text.percent, (0.99166,), "99.17%"),
        (text.percent, (1, 1), "100.0%"),
        (text.shape, ((64, 32, 3, 3),), "64 x 32 x 3 x 3"),
        (text.shape, ((),), "scalar"),
        (text.plural, (1, "check"), "1 check"),
        (text.plural, (0, "check"), "0 checks"),
    ],
)
def test_figures_are_written_as_the_views_promise(
    write: Callable[..., str], values: tuple[object, ...], expected: str
) -> None:
    assert write(*values) == expected


def test_a_missing_figure_is_a_dash() -> None:
    shown = [
        text.count_text(None),
        text.figure(None),
        text.score_text(None),
        text.fixed_text(None, 2),
    ]
    assert {*shown, text.ratio(None), text.percent(None)} == {"-"}


def test_agreement_just_short_of_all_keeps_its_digits() -> None:
    assert text.percent(0.9999) == "99.99%"


@given(st.text(st.characters()))
def test_text_from_outside_is_one_printable_line_that_utf8_holds(name: str) -> None:
    shown = printable(name)
    assert shown.isprintable()
    assert shown.encode("utf-8").decode("utf-8") == shown


def test_terminal_codes_are_spelled_out() -> None:
    assert printable("a\x1b[2J\nb \udcff") == "a\\x1b[2J b \\udcff"
