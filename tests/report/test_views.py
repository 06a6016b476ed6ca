"""No view changes unseen: each is compared, character by character, with what it was last time."""

from __future__ import annotations

import pytest

from tests.report.views import EXPECTED, VIEWS


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_what_it_was(name: str) -> None:
    expected = (EXPECTED / name).read_text("utf-8")
    assert VIEWS[name]().splitlines() == expected.splitlines(), (
        "if this is meant, run python -m tests.report.views and read the difference"
    )


def test_every_expected_file_belongs_to_a_view() -> None:
    assert {path.name for path in EXPECTED.iterdir()} == set(VIEWS)
