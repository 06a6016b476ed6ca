"""Tables: what folds on a narrow terminal, what never does, and text from outside."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dkm_deploy.post_training.palettize_file import PalettizedFile
from dkm_deploy.report.terminal.palettized_file import show_rewritten
from dkm_deploy.report.terminal.table import print_table, safe, status_text, table, word

REASON = (
    "shared with layers.0.attention.output.projection.weight, which is left dense by the recipe"
)


def printed(rows: Table, width: int, *, tty: bool = True) -> list[str]:
    """The lines of a table without its head."""
    target = StringIO()
    print_table(rows, Console(file=target, width=width, force_terminal=tty, color_system=None))
    return target.getvalue().splitlines()[2:-1]


def rows_of(name: str) -> Table:
    rows = table("Palette", "Shape", word("Becomes"))
    rows.add_row(safe(name), "64 x 32 x 3 x 3", "4 bits, 16 channels a LUT")
    return rows


@pytest.mark.parametrize("name", ["w", "encoder.layers.11.attention.output.projection.weight"])
def test_figures_and_words_never_fold(name: str) -> None:
    first, *rest = printed(rows_of(name), 20)
    assert first.endswith(" 64 x 32 x 3 x 3  4 bits, 16 channels a LUT")
    assert all(set(line[12:]) <= {" "} for line in rest)


def test_a_table_of_short_names_is_as_wide_as_it_needs_to_be() -> None:
    assert printed(rows_of("w"), 20) == printed(rows_of("w"), 20, tty=False)


def test_a_long_name_folds_to_twelve_and_no_further() -> None:
    name = "encoder.layers.11.weight"
    narrowest = len("encoder.laye  64 x 32 x 3 x 3  4 bits, 16 channels a LUT")
    for width in (20, narrowest):
        lines = printed(rows_of(name), width)
        assert [line[:12] for line in lines] == ["encoder.laye", "rs.11.weight"]
    assert printed(rows_of(name), narrowest + 2)[0].startswith("encoder.layers  64 x")


@pytest.mark.parametrize("name", ["fc.bias", "encoder.layers.11.attention.output.projection.bias"])
def test_reasons_fold_beside_names_of_any_length_and_lose_nothing(name: str) -> None:
    result = PalettizedFile(Path("a.onnx"), {}, {name: REASON}, (), 2, 1, {})
    target = StringIO()
    show_rewritten(result, Console(file=target, width=40, force_terminal=True, color_system=None))
    _, head, _, *lines, _, _ = target.getvalue().splitlines()
    assert max(map(len, lines)) <= 40
    at = head.index("Reason")
    for told, part in ((name, slice(at)), (REASON, slice(at, None))):
        assert "".join(line[part] for line in lines).replace(" ", "") == told.replace(" ", "")


def test_text_from_outside_has_no_style_of_its_own() -> None:
    assert (safe("a[red]\n").plain, safe("a").style) == ("a[red] ", "")
    assert safe("a", "bold").style == "bold"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("passed", Text("passed", "green")),
        ("failed", Text("failed", "bold red")),
        ("skipped", Text("skipped", "yellow")),
        ("novel", Text("novel", "")),
        (None, Text("-", "")),
    ],
)
def test_a_status_has_its_colour(value: str | None, expected: Text) -> None:
    assert (status_text(value).plain, status_text(value).style) == (expected.plain, expected.style)
