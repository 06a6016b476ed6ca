"""Public names are imported at their first use; type checkers see the same names."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import dkm_deploy as dkm

ROOT = Path(dkm.__file__).parent


def _for_type_checkers():
    """Modules by name, of the imports under ``if TYPE_CHECKING``."""
    tree = ast.parse(Path(dkm.__file__).read_text("utf-8"))
    (block,) = (
        node.body
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return {alias.name: node.module for node in block for alias in node.names}


def test_the_table_is_what_type_checkers_see():
    assert _for_type_checkers() == dkm._MODULES
    assert sorted(dkm.__all__) == sorted(dkm._MODULES)


@pytest.mark.parametrize("name", dkm.__all__)
def test_a_name_is_defined_in_its_module(name):
    value = getattr(dkm, name)
    assert not inspect.ismodule(value)
    assert value.__module__ == dkm._MODULES[name]
    assert getattr(dkm, name) is value


def test_no_module_has_a_public_name():
    """Python would put the module in the name's place once it is imported."""
    modules = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert modules & set(dkm.__all__) == set()


def test_all_names_can_be_imported_at_once():
    found = {}
    exec("from dkm_deploy import *", found)  # noqa: S102  # it is our own text
    assert {*found} - {"__builtins__"} == set(dkm.__all__)


def test_an_unknown_name_is_reported_as_python_does():
    with pytest.raises(AttributeError, match="^module 'dkm_deploy' has no attribute 'unknown'$"):
        dkm.unknown  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'unknown' from 'dkm_deploy'"):
        from dkm_deploy import unknown  # noqa: F401


def test_the_package_alone_imports_no_library():
    code = (
        "import sys; before = {*sys.modules}; import dkm_deploy;"
        "print({n.partition('.')[0] for n in {*sys.modules} - before} - sys.stdlib_module_names)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == {"dkm_deploy"}
