"""Every public name, given what it cannot take: DkmError, in one line, and nothing is written.

A name that is added to ``dkm_deploy`` must be listed here, with what is wrong to give it.
"""

from __future__ import annotations

import inspect

import pytest

import dkm_deploy as dkm
from tests.wrong_arguments import CALLS, MADE_BY_OTHERS, RECORDS, right_arguments


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    return right_arguments(tmp_path_factory.mktemp("right"))


def _cases(table):
    return [(name, argument) for name, wrong in table.items() for argument in wrong]


def test_every_public_name_is_tried():
    assert {*CALLS, *RECORDS, *MADE_BY_OTHERS} == set(dkm.__all__)


@pytest.mark.parametrize("name", CALLS)
def test_every_argument_is_tried(name):
    free = {"force", "console", "dynamic_shapes", "target_options"}
    taken = set(inspect.signature(getattr(dkm, name)).parameters) - free
    assert taken == set(CALLS[name])


@pytest.mark.parametrize(("name", "argument"), _cases(CALLS))
def test_a_function_refuses_in_one_line(right, name, argument):
    before = sorted(right.folder.rglob("*"))
    for value in CALLS[name][argument]:
        arguments = right.of(name) | {argument: value}
        _refuses(lambda: getattr(dkm, name)(**arguments), f"{name}({argument}={value!r:.60})")  # noqa: B023
    assert sorted(right.folder.rglob("*")) == before


@pytest.mark.parametrize(("name", "argument"), _cases(RECORDS))
def test_a_record_refuses_in_one_line(right, name, argument):
    for value in RECORDS[name][argument]:
        arguments = right.of(name) | {argument: value}
        _refuses(lambda: getattr(dkm, name)(**arguments), f"{name}({argument}={value!r:.60})")  # noqa: B023


def _refuses(call, what):
    try:
        call()
    except dkm.DkmError as error:
        told = str(error)
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    else:
        raise AssertionError(f"{what}: taken")
    assert "\n" not in told, what
    assert 10 < len(told) < 400, what
