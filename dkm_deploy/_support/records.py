"""Records from JSON and TOML: plain values become frozen dataclasses, as their type hints declare.

cattrs goes through the fields and their types. What it does by itself is lax (it makes 3 of "3",
and a list of a text), so each kind of value has a hook here that takes that kind alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum, EnumType
from functools import cache, partial
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from cattrs import Converter
from cattrs.errors import (
    AttributeValidationNote,
    BaseValidationError,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn, make_mapping_structure_fn, override

from dkm_deploy._support.argument_checks import short
from dkm_deploy.errors import DkmError

_T = TypeVar("_T")
_Hook = Callable[[Any, Any], Any]

_WORDS = {int: "an integer", float: "a number", str: "text", bool: "true or false", Any: "a value"}


@dataclass(frozen=True)
class WrittenAs:
    """Metadata of ``Annotated``: how a file writes a value that Python holds otherwise.

    Attributes:
        parse: makes the value of what the file has; raises DkmError for what it cannot mean.
        wanted: what the file may have, for the message.
    """

    parse: Callable[[Any], Any]
    wanted: str


class _UnfitError(Exception):
    """A value is not what is wanted; both for the message."""

    def __init__(self, value: object, wanted: str) -> None:
        super().__init__(value, wanted)
        self.value, self.wanted = value, wanted


def parse_json(text: str | bytes) -> Any:
    """The plain values of a JSON text, or of its bytes. Raises DkmError for what is no JSON."""
    try:
        return json.loads(text)
    # Not only json's own: numbers of thousands of digits, and lists without end.
    except (ValueError, RecursionError) as error:
        raise DkmError(f"not JSON: {error}") from error


def from_plain(value: Any, kind: type[_T], what: str = "", *, more_keys: bool = False) -> _T:
    """A record from plain values, checked by the type hints of its fields.

    These may be int, float, str, bool, Any, ``Literal``, enums, other records, tuples, sequences
    and mappings of all these, ``| None``, and ``Annotated`` with :class:`WrittenAs`. An integer is
    taken for a float, a list for a tuple, and nothing else for what it is not; ``__post_init__``
    checks what types cannot say.

    Args:
        value: as JSON and TOML are read: dict, list, str, int, float, bool, None.
        kind: a frozen dataclass, or a dict of such.
        what: of a file the value is, for the message; empty if it is all of it.
        more_keys: whether keys that a record does not have are left out, not refused: for what
            programs write, so that a later version may add some.

    Raises:
        DkmError: a key is unknown or missing, or a value is not of its type. The message is one
            line with the path of the key, the value and what is wanted.
    """
    try:
        return _converter(more_keys).structure(value, kind)
    except (BaseValidationError, _UnfitError, DkmError) as error:
        raise DkmError(_message(error, what)) from None  # it has all that cattrs says


def from_json(text: str | bytes, kind: type[_T], what: str = "", *, more_keys: bool = False) -> _T:
    """A record from a JSON text; see :func:`from_plain`. Raises DkmError also if it is no JSON."""
    try:
        value = parse_json(text)
    except DkmError as error:
        raise DkmError(f"{what}: {error}" if what else str(error)) from error
    return from_plain(value, kind, what, more_keys=more_keys)


@cache
def _converter(more_keys: bool) -> Converter:
    converter = Converter(detailed_validation=True)
    for kind in (int, float, str, bool):
        converter.register_structure_hook(kind, _plain_value)
    converter.register_structure_hook_func(_is_choice, _choice)
    converter.register_structure_hook_func(_is_list, partial(_list, converter))
    converter.register_structure_hook_factory(_is_mapping, partial(_mapping_hook, converter))
    converter.register_structure_hook_factory(
        is_dataclass, partial(_record_hook, converter, more_keys)
    )
    converter.register_structure_hook_func(_is_written, _written_value)
    return converter


def _plain_value(value: Any, kind: Any) -> Any:
    if isinstance(kind, EnumType):  # a StrEnum comes here as a class of str
        return _choice(value, kind)
    if type(value) is int and kind is float:
        try:
            return float(value)
        except OverflowError:
            raise _UnfitError(value, "a number that a float holds") from None
    if type(value) is not kind:  # a bool is no int
        raise _UnfitError(value, _words(kind))
    return value


def _choice(value: Any, kind: Any) -> Any:
    for known in _choices(kind):
        if type(value) is type(known) and value == known:
            return kind(value) if isinstance(kind, EnumType) else value
    raise _UnfitError(value, _words(kind))


def _list(converter: Converter, value: Any, kind: Any) -> tuple[Any, ...]:
    kinds = get_args(kind)
    fixed = get_origin(kind) is tuple and kinds[-1] is not Ellipsis
    if not isinstance(value, list) or (fixed and len(value) != len(kinds)):
        raise _UnfitError(value, _words(kind))
    found = []
    for place, item in enumerate(value):
        own = kinds[place] if fixed else kinds[0]
        try:
            found.append(converter.structure(item, own))
        except (BaseValidationError, _UnfitError, DkmError) as error:
            error.add_note(IterableValidationNote(str(place), place, own))
            raise IterableValidationError(str(kind), [error], kind) from None
    return tuple(found)


def _mapping_hook(converter: Converter, kind: Any) -> _Hook:
    made = make_mapping_structure_fn(kind, converter, dict, detailed_validation=True)

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            raise _UnfitError(value, _words(kind))
        return made(value, kind)

    return structure


def _record_hook(converter: Converter, more_keys: bool, kind: Any) -> _Hook:
    # cattrs reads type hints without what Annotated adds to them.
    hints = get_type_hints(kind, include_extras=True)
    names = [field.name for field in fields(kind)]
    own: dict[str, Any] = {n: override(struct_hook=_hook_of(converter, hints[n])) for n in names}
    made = make_dict_structure_fn(kind, converter, **own)

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            raise _UnfitError(value, _words(kind))
        unknown = [key for key in value if key not in names]
        if unknown and not more_keys:
            raise DkmError(f"unknown key {short(unknown[0])}; known keys are {', '.join(names)}")
        return made(value, kind)

    return structure


def _hook_of(converter: Converter, hint: Any) -> _Hook:
    return lambda value, _: converter.structure(value, hint)


def _written_value(value: Any, kind: Any) -> Any:
    written = get_args(kind)[1]
    try:
        return written.parse(value)
    except DkmError:
        raise _UnfitError(value, written.wanted) from None


def _is_written(kind: Any) -> bool:
    return get_origin(kind) is Annotated and isinstance(get_args(kind)[1], WrittenAs)


def _is_choice(kind: Any) -> bool:
    return get_origin(kind) is Literal or isinstance(kind, EnumType)


def _choices(kind: Any) -> Sequence[Any]:
    if isinstance(kind, EnumType):
        members: Sequence[Enum] = list(kind)
        return [member.value for member in members]
    return get_args(kind)


def _is_list(kind: Any) -> bool:
    return get_origin(kind) in (tuple, Sequence)


def _is_mapping(kind: Any) -> bool:
    return get_origin(kind) in (dict, Mapping)


def _words(kind: Any) -> str:
    """What a value of this type is, in words."""
    kinds = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return " or ".join("null" if one is NoneType else _words(one) for one in kinds)
    if _is_choice(kind):
        known = _choices(kind)
        return ("" if len(known) == 1 else "one of ") + ", ".join(map(repr, known))
    if _is_list(kind):
        fixed = get_origin(kind) is tuple and kinds[-1] is not Ellipsis
        return f"a list of {len(kinds)}" if fixed else "a list"
    if _is_mapping(kind):
        return "a mapping"
    if is_dataclass(kind):
        return f"a mapping with the keys {', '.join(field.name for field in fields(kind))}"
    return _WORDS[kind]


def _message(error: BaseException, path: str) -> str:
    """The first thing that is wrong, in one line."""
    if isinstance(error, BaseValidationError):
        first = error.exceptions[0]
        note = _note(first)
        path = path if note is None else _join_path(path, note)
        if isinstance(first, KeyError) and isinstance(note, AttributeValidationNote):
            return f"{path} is missing; it must be {_words(note.type)}"
        return _message(first, path)
    if isinstance(error, _UnfitError):
        return f"{path or 'it'} is {_shown(error.value)}; it must be {error.wanted}"
    if isinstance(error, DkmError):  # of __post_init__
        return f"{path}: {error}" if path else str(error)
    raise error  # a fault of ours


def _note(error: BaseException) -> AttributeValidationNote | IterableValidationNote | None:
    notes = getattr(error, "__notes__", ())
    known = (AttributeValidationNote, IterableValidationNote)
    return next((note for note in notes if isinstance(note, known)), None)


def _join_path(path: str, note: AttributeValidationNote | IterableValidationNote) -> str:
    if isinstance(note, AttributeValidationNote):
        return f"{path}.{note.name}" if path else note.name
    key = note.index if isinstance(note.index, int) else short(note.index)
    return f"{path}[{key}]"


def _shown(value: Any) -> str:
    """A value in short; lists and mappings may be nested without end."""
    try:
        return short(value)
    except RecursionError:
        return f"of type {type(value).__name__}"
