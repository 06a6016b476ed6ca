from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from dkm_deploy.formats.ledger import Ledger, LedgerEntry
from dkm_deploy.palette import Palette
from dkm_deploy.report.terminal import report as terminal

Values = dict[str, Any]

SIZES = [9_216, 512, 1_234_567, 128, 700, 333, 64, 32, 31, 30, 29, 28, 27]
NAME = "encoder.layers.11.attention.output.projection.weight"


def console(width: int, *, tty: bool) -> Console:
    return Console(file=StringIO(), width=width, force_terminal=tty, color_system=None)


def printed(target: Console) -> str:
    assert isinstance(target.file, StringIO)
    return target.file.getvalue()


def shown(report: Values, width: int, *, tty: bool) -> str:
    target = console(width, tty=tty)
    terminal.show(report, target)
    return printed(target)


@pytest.fixture
def ledger() -> Ledger:
    entries = [LedgerEntry("graph", f"{NAME}.{i}", size) for i, size in enumerate(SIZES)]
    entries += [LedgerEntry("indices", NAME, 1_024), LedgerEntry("lut", NAME, 64)]
    return Ledger(Path("out/model.onnx"), tuple(entries))


@pytest.fixture
def palettes() -> dict[str, Palette]:
    indices = np.arange(4_096, dtype=np.uint8).reshape(64, 64) % 3
    return {NAME: Palette(indices, np.zeros((8, 1, 4, 1), np.float16))}


@pytest.mark.parametrize("fixture", ["demo", "failed"])
@pytest.mark.parametrize("width", [80, 120])
def test_a_report_fits_the_terminal(
    fixture: str, width: int, request: pytest.FixtureRequest
) -> None:
    text = shown(request.getfixturevalue(fixture), width, tty=True)
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [30, 80, 120])
def test_no_figure_is_cut_at_any_width(demo: Values, failed: Values, width: int) -> None:
    text = shown(demo, width, tty=True)
    for figure in ("97.22", "99.17%", "5.72e-06", "331,816", "25,208", "13.2x", "2.05"):
        assert figure in text.split()
    assert "1,238,667" in shown(failed, width, tty=True).split()


def test_in_a_log_file_a_row_is_one_line_without_codes(failed: Values) -> None:
    text = shown(failed, 40, tty=False)
    lines = text.splitlines()
    name = '<script>alert("1")</script>[red]\\x1b[2J &amp;.onnx'
    rows = [line for line in lines if line.startswith(name) and "failed" in line]
    assert [row.split()[-1] for row in rows] == ["failed"]
    assert "ONNX Runtime 1.31.1 (CPU)" in rows[0]
    assert "skipped  parity    model.aimodel: no runtime here runs '.aimodel' files" in text
    assert "3 checks failed, 1 check skipped: 2 files against PyTorch on 1 input." in lines


def test_names_can_neither_style_nor_command_the_terminal(failed: Values) -> None:
    for tty in (True, False):
        text = shown(failed, 200, tty=tty)
        assert "\x1b" not in text
        assert "[red]\\x1b[2J" in text


def test_the_runtime_is_named_at_any_width(demo: Values) -> None:
    for width in (80, 120):
        text = shown(demo, width, tty=True)
        assert text.count("ONNX Runtime 1.31.1 (CPU)") == 1
        assert text.count("reference evaluator (dkm-deploy 0.1.0)") == 1


def test_the_runtime_has_a_column_where_the_table_fits_with_it(demo: Values) -> None:
    fits = len(shown(demo, 80, tty=False).splitlines()[0])
    assert "run by ONNX Runtime" not in shown(demo, fits, tty=True)
    assert "run by ONNX Runtime" in shown(demo, fits - 1, tty=True)


def test_every_file_is_told_of_and_every_check(demo: Values) -> None:
    onnx, coreml = demo["models"][4:]
    onnx["checks"], coreml["path"] = [], None  # nothing was asked of one; a device gave the other
    text = shown(demo, 200, tty=True)
    assert "13.2x under the original" in text
    assert "\nmodel.mlpackage, run by" not in text
    assert "passed  parity" in text


def test_names_of_checks_are_never_broken(demo: Values) -> None:
    demo["models"][4]["checks"][0]["name"] = "an-uncommonly-long-name"
    rows = shown(demo, 30, tty=True).splitlines()
    assert any(row.startswith("passed  an-uncommonly-long-name  3 of 3") for row in rows)


def test_figures_without_a_value_are_dashes(failed: Values) -> None:
    text = shown(failed, 200, tty=True)
    row = next(line for line in text.splitlines() if line.startswith("model.aimodel"))
    assert row.split()[1:] == ["-", "-", "-", "1,238,667", "-", "2.05", "-", "incomplete"]
    assert not {"None", "nan", "null"} & set(text.split())


def test_the_ledger_adds_up_by_kind_and_by_entry(
    ledger: Ledger, palettes: dict[str, Palette]
) -> None:
    target = console(80, tty=False)
    terminal.show_ledger(ledger, palettes, target)
    title, *tables, bits, _ = printed(target).replace("─", "").split("\n")
    kinds, entries = "\n".join(tables).split("Entry")
    total = ledger.total_bytes
    assert title == f"out/model.onnx: {total:,} bytes"
    assert [sum(sizes(kinds)[:-1]), sizes(kinds)[-1]] == [total, total]
    assert [sum(sizes(entries)[:-1]), sizes(entries)[-1]] == [total, total]
    assert "5 smaller" in entries
    assert bits == "4,096 palettized weights, 2.12 bits each with their LUTs"


def sizes(table: str) -> list[int]:
    """The bytes column: the word before the one that ends in %."""
    rows = [line.split() for line in table.splitlines() if "%" in line]
    at = [next(i for i, cell in enumerate(row) if cell.endswith("%")) for row in rows]
    return [int(row[i - 1].replace(",", "")) for row, i in zip(rows, at, strict=True)]


def test_an_empty_file_has_a_ledger_too() -> None:
    target = console(80, tty=False)
    terminal.show_ledger(Ledger(Path("empty.onnx"), ()), {}, target)
    assert "empty.onnx: 0 bytes" in printed(target)
    assert "palettized" not in printed(target)


def test_a_file_of_one_byte_is_all_of_it() -> None:
    target = console(80, tty=False)
    terminal.show_ledger(Ledger(Path("a.onnx"), (LedgerEntry("graph", "a", 1),)), {}, target)
    assert printed(target).count("100.0%") == 4


def test_palettes_are_shown_with_layout_and_use(palettes: dict[str, Palette]) -> None:
    target = console(80, tty=False)
    terminal.show_palettes(palettes, target)
    row = next(line for line in printed(target).splitlines() if line.startswith(NAME))
    assert " ".join(row.split()) == f"{NAME} 64 x 64 2 1 8 3 of 4 float16"


def test_a_long_name_folds_and_loses_nothing(palettes: dict[str, Palette]) -> None:
    target = console(80, tty=True)
    terminal.show_palettes(palettes, target)
    lines = printed(target).splitlines()
    assert max(map(len, lines)) <= 80
    assert NAME in "".join(line.split(" ")[0] for line in lines)


def test_a_file_without_palettes_says_so() -> None:
    target = console(80, tty=False)
    terminal.show_palettes({}, target)
    assert printed(target) == "No palettes: every weight is dense.\n"
