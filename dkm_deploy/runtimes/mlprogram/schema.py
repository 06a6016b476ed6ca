"""What the operations of each opset take: parameters, element types, and which must be constant.

``operations.txt`` holds the definitions of coremltools 9.0, an operation and the opset since which
it has this form on a line: parameter=types, with ! behind the name of one that must be constant.
Types are element types, or a letter with its types behind the semicolon: what has the same letter
has the same type. A * stands for what has no element type of its own, such as a list.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from dkm_deploy.errors import DkmError

_IOS = {5: 15, 6: 16, 7: 17, 8: 18, 9: 26}


@dataclass(frozen=True)
class Parameter:
    """What one input of an operation may be.

    Attributes:
        dtypes: names of the element types that it may have; empty if it may be anything.
        letter: shared by the parameters that must have the same type; empty if it stands alone.
        constant: whether it must be known before the program runs.
    """

    dtypes: frozenset[str]
    letter: str
    constant: bool


Schema = Mapping[str, Parameter]


def schema(operation: str, opset: int) -> Schema:
    """The parameters of an operation by name; none if coremltools does not define it.

    Raises:
        DkmError: the operation came with a later opset.
    """
    every = _forms().get(operation, {})
    forms = {since: form for since, form in every.items() if since <= opset}
    if every and not forms:
        raise DkmError(
            f"the opset CoreML{opset} has no such operation; it came with iOS {_IOS[min(every)]}"
        )
    return forms[max(forms)] if forms else {}


def check_types(form: Schema, types: Mapping[str, str]) -> None:
    """Raise DkmError if inputs are unknown or not of the types that an operation takes.

    Args:
        form: the operation's parameters.
        types: name of the element type by input, as far as it is known.
    """
    letters: dict[str, str] = {}
    for name, found in types.items():
        if name not in form:
            raise DkmError(f"input {name} is unknown in this opset")
        wanted = form[name]
        if wanted.dtypes and found not in wanted.dtypes:
            raise DkmError(f"input {name} is {found}; it takes {', '.join(sorted(wanted.dtypes))}")
        other = letters.setdefault(wanted.letter, name)
        if wanted.letter and types[other] != found:
            raise DkmError(f"input {name} is {found} and {other} {types[other]}; they must be one")


def check_constant(form: Schema, computed: Collection[str]) -> None:
    """Raise DkmError if one of the ``computed`` parameters must be a constant."""
    for name in computed:
        if name in form and form[name].constant:
            raise DkmError(f"input {name} must be a constant, but the program computes it")


@cache
def _forms() -> dict[str, dict[int, Schema]]:
    forms: dict[str, dict[int, Schema]] = {}
    text = files(__package__).joinpath("operations.txt").read_text("utf-8")
    for line in text.splitlines():
        head, _, tail = line.partition(";")
        operation, since, *parameters = head.split()
        letters = dict(each.split("=") for each in tail.split())
        forms.setdefault(operation, {})[int(since)] = dict(
            _parameter(each, letters) for each in parameters
        )
    return forms


def _parameter(text: str, letters: Mapping[str, str]) -> tuple[str, Parameter]:
    name, _, kinds = text.partition("=")
    letter = kinds if kinds in letters else ""
    dtypes = frozenset() if kinds == "*" else frozenset(letters.get(kinds, kinds).split(","))
    return name.removesuffix("!"), Parameter(dtypes, letter, name.endswith("!"))
