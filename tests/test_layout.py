"""The layout: folders small enough to take in, and a docstring that says what each is for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST = 13
# One file a family of operations, each entered with the same decorator.
WIDE = {"dkm_deploy/runtimes/mlprogram/kernels"}

PACKAGES = sorted(
    str(init.parent.relative_to(ROOT))
    for root in ("dkm_deploy", "converters")
    for init in (ROOT / root).rglob("__init__.py")
)


@pytest.mark.parametrize("package", [name for name in PACKAGES if name not in WIDE])
def test_no_folder_has_more_modules_than_one_takes_in(package):
    modules = [p.name for p in (ROOT / package).glob("*.py") if p.name != "__init__.py"]
    assert len(modules) <= MOST, (
        f"{package}: put some of {sorted(modules)} in a folder of their own"
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_says_what_it_is_for(package):
    tree = ast.parse((ROOT / package / "__init__.py").read_text("utf-8"))
    assert ast.get_docstring(tree), f"{package}/__init__.py has no docstring"


def test_every_folder_of_modules_is_a_package():
    folders = {
        p.parent for name in ("dkm_deploy", "converters") for p in (ROOT / name).rglob("*.py")
    }
    assert [f for f in sorted(folders) if not (f / "__init__.py").is_file()] == []
