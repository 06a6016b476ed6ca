"""Links in a folder that lead out of it."""

from __future__ import annotations

import pytest

from tests.damage import harmless, refusal
from tests.damaged_files.acts import ACTS


@pytest.mark.parametrize("name", ["m.mlpackage", "golden"])
def test_no_link_leads_out_of_a_folder(copied, tmp_path, name):
    """Each part in turn is a link to the same part elsewhere, which would read as well."""
    path, elsewhere = copied(name), tmp_path / "beside" / name
    parts = sorted(path.rglob("*"))
    assert len(parts) > 5
    for part in parts:
        hidden = part.rename(path.parent / "hidden")
        part.symlink_to(elsewhere / part.relative_to(path))
        for act in ACTS[name]:
            with harmless(path.parent):
                assert refusal(lambda act=act: act(path)), part
        part.unlink()
        hidden.rename(part)
    assert refusal(lambda: ACTS[name][0](path)) is None
