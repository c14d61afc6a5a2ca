"""JSON both ways, strictly: nothing is converted silently, and an error names the path of the key.

What is written: every data class as an object with all its fields, enumerations as their values, moments as ISO 8601 in UTC, bytes as
base64. What is read: the same; keys that are not known are refused, keys with a default may be left out. Text that stands for
undecodable bytes (PEP 383) survives, since JSON escapes it.

cattrs takes 70 ms to import, and json, base64 and difflib 10 ms together, hence inside functions.
"""

from __future__ import annotations

import math
import re
from collections import abc
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

import attrs

from ._errors import ConfigurationError, SpecRefused
from ._jobs import BulkResult, as_utc
from ._spec import OutputMember, SubmissionSpec

if TYPE_CHECKING:
    from pathlib import Path

    from cattrs import Converter

__all__ = ["from_json", "structure", "to_json", "unstructure"]

T = TypeVar("T")


def to_json(value: object) -> str:
    """One line of JSON for any data class of `intercede.core`, or a sequence or mapping of them.

    Secrets of `CopyVars` are written too: what holds them must be kept like a secret.

    Raises:
        ValueError: A number is infinite or not a number, which JSON cannot say.
    """
    import json

    return json.dumps(unstructure(value), separators=(",", ":"), allow_nan=False)


def from_json(kind: type[T], text: str | bytes) -> T:
    """The data class that `to_json` wrote.

    Raises:
        ConfigurationError: Not JSON, or not of this form; names the path of the key.
    """
    import json

    try:
        data = json.loads(text, object_pairs_hook=_object, parse_constant=_refused_constant)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"not JSON: {error}") from None
    return structure(kind, data)


def unstructure(value: object) -> Any:
    """Plain dicts, lists, strings and numbers, as JSON or TOML have them."""
    return _converter().unstructure(value)


def structure(kind: type[T], data: object, *, path: str = "") -> T:
    """A value of `kind` from plain data.

    Args:
        kind: A data class of `intercede.core`, a plugin's configuration class, or a type made of them.
        data: What JSON or TOML gave.
        path: Where `data` stands in a larger document, for messages.

    Raises:
        ConfigurationError: Names the key, its value, and near matches for a key that is not known.
    """
    try:
        return _converter().structure(data, kind)
    except Exception as error:
        raise _explained(error, kind, data, path) from None


# ---------------------------------------------------------------- what JSON allows and we do not


class _Twice:
    """Stands where an object had a key twice: of two values neither is the right one."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table: dict[str, object] = {}
    for key, value in pairs:
        table[key] = _Twice() if key in table else value
    return table


def _refused_constant(name: str) -> object:
    raise ValueError(f"{name} is no number")


# ---------------------------------------------------------------- reading and writing values


@cache
def _converter() -> Converter:
    from pathlib import Path

    from cattrs import Converter

    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    for kind in (str, int, bool, Enum):
        converter.register_structure_hook(kind, _plain)
        converter.register_unstructure_hook(kind, _as_plain)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(bytes, _from_base64)
    converter.register_unstructure_hook(bytes, _to_base64)
    converter.register_structure_hook(datetime, _from_iso)
    converter.register_unstructure_hook(datetime, datetime.isoformat)
    converter.register_structure_hook(Path, _path)
    converter.register_unstructure_hook(Path, str)
    converter.register_structure_hook_func(_is_literal, _literal)

    converter.register_structure_hook_factory(_is_list, _list_reader)
    converter.register_unstructure_hook_factory(_is_list, _list_writer)
    converter.register_structure_hook_factory(_is_mapping, _mapping_reader)
    converter.register_unstructure_hook_factory(_is_mapping, _mapping_writer)
    converter.register_structure_hook_factory(attrs.has, _class_reader)
    converter.register_unstructure_hook_factory(_is_bulk_result, _bulk_result_writer)
    return converter


#: What is written as a list, and what is made of one.
_LISTS: dict[object, Callable[[list[Any]], Any]] = {
    tuple: tuple,
    list: list,
    set: set,
    frozenset: frozenset,
    abc.Sequence: tuple,
    abc.Set: frozenset,
}

_MAPPINGS = (dict, abc.Mapping, abc.MutableMapping)


def _origin(kind: Any) -> Any:
    return get_origin(kind) or kind


def _is_list(kind: Any) -> bool:
    fixed = get_origin(kind) is tuple and get_args(kind)[1:] != (Ellipsis,)
    return not fixed and _origin(kind) in _LISTS


def _is_mapping(kind: Any) -> bool:
    return _origin(kind) in _MAPPINGS


def _is_bulk_result(kind: Any) -> bool:
    return _origin(kind) is BulkResult


def _is_literal(kind: Any) -> bool:
    return get_origin(kind) is Literal


def _list_reader(kind: Any, converter: Converter) -> Callable[[object, Any], object]:
    """`arguments = "abc"` is a mistake, not three arguments."""
    element = (*get_args(kind), Any)[0]
    make = _LISTS[_origin(kind)]

    def read(value: object, _: Any) -> object:
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"expected a list, found {_kind_of(value)}")
        return make([_item(converter, item, element, at) for at, item in enumerate(value)])

    return read


def _mapping_reader(kind: Any, converter: Converter) -> Callable[[object, Any], object]:
    key_type, value_type = get_args(kind) or (str, Any)

    def read(value: object, _: Any) -> object:
        if not isinstance(value, Mapping):
            raise TypeError(f"expected a table, found {_kind_of(value)}")
        return {
            _item(converter, _key(key, key_type), key_type, key): _item(
                converter, item, value_type, key
            )
            for key, item in value.items()
        }

    return read


def _item(converter: Converter, value: object, kind: Any, at: Any) -> Any:
    from cattrs.errors import IterableValidationError, IterableValidationNote

    try:
        return converter.structure(value, kind)
    except Exception as error:
        error.add_note(IterableValidationNote(f"at {at}", at, kind))
        raise IterableValidationError("while reading a list or table", [error], kind) from None


def _key(key: object, kind: Any) -> object:
    """JSON has only text as keys."""
    number = kind is int and isinstance(key, str) and re.fullmatch(r"0|[1-9][0-9]{0,17}", key)
    return int(number[0]) if number else key


def _class_reader(kind: Any, converter: Converter) -> Callable[[object, Any], object]:
    from cattrs.gen import make_dict_structure_fn

    from_dict = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True)

    def read(value: object, _: Any) -> object:
        if kind is OutputMember and isinstance(value, str):
            return OutputMember(value)
        if not isinstance(value, Mapping):
            raise TypeError(f"expected a table, found {_kind_of(value)}")
        return from_dict(dict(value), kind)

    return read


def _list_writer(_: Any, converter: Converter) -> Callable[[Any], list[object]]:
    def write(values: Any) -> list[object]:
        items = [converter.unstructure(value) for value in values]
        return sorted(items) if isinstance(values, abc.Set) else items  # sets have no order to keep

    return write


def _mapping_writer(_: Any, converter: Converter) -> Callable[[Any], dict[str, object]]:
    def write(values: Any) -> dict[str, object]:
        return {str(key): converter.unstructure(value) for key, value in values.items()}

    return write


def _bulk_result_writer(_: Any, converter: Converter) -> Callable[[Any], dict[str, object]]:
    def write(result: Any) -> dict[str, object]:
        return {
            "entries": converter.unstructure(dict(result)),
            "failures": converter.unstructure(result.failures),
        }

    return write


def _plain(value: object, kind: Any) -> object:
    return _member(value, kind) if issubclass(kind, Enum) else _exact(value, kind)


def _as_plain(value: object) -> object:
    return value.value if isinstance(value, Enum) else value


def _exact(value: object, kind: type[T]) -> T:
    if type(value) is not kind:
        raise TypeError(f"expected {_NAMES.get(kind, kind.__name__)}, found {_kind_of(value)}")
    return value


def _number(value: object, _: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"expected a number, found {_kind_of(value)}")
    if not abs(value) < math.inf:
        raise ValueError("expected a finite number")
    return float(value)


def _member(value: object, kind: type[Enum]) -> Enum:
    """A member of an enumeration, by its value."""
    return kind(_one_of(value, [member.value for member in kind]))


def _literal(value: object, kind: Any) -> object:
    return _one_of(value, list(get_args(kind)))


def _one_of(value: object, allowed: list[object]) -> object:
    if not any(type(value) is type(other) and value == other for other in allowed):
        raise ValueError(f"expected one of {', '.join(map(str, allowed))}")
    return value


def _path(value: object, _: Any) -> Path:
    from pathlib import Path

    return Path(_exact(value, str))


def _to_base64(value: bytes) -> str:
    import base64

    return base64.b64encode(value).decode()


def _from_base64(value: object, _: Any) -> bytes:
    import base64

    if not isinstance(value, str):
        raise TypeError(f"expected base64 text, found {_kind_of(value)}")
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise ValueError(f"not base64: {error}") from None


def _from_iso(value: object, _: Any) -> datetime:
    if isinstance(value, datetime):  # TOML has dates of its own
        return as_utc(value)
    if not isinstance(value, str):
        raise TypeError(f"expected an ISO 8601 time, found {_kind_of(value)}")
    return as_utc(datetime.fromisoformat(value))


_NAMES: dict[type, str] = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
    type(None): "nothing",
    _Twice: "two values",
}


def _kind_of(value: object) -> str:
    return _NAMES.get(type(value), type(value).__name__)


# ---------------------------------------------------------------- saying what is wrong, and where


def _explained(error: Exception, kind: Any, data: object, path: str) -> ConfigurationError:
    """The first thing that is wrong, with the path to it."""
    from cattrs.errors import BaseValidationError, ForbiddenExtraKeysError

    owner: Any = kind
    step: str | int | None = None
    hidden = False
    while isinstance(error, BaseValidationError):
        owner = _origin(error.cl)
        error = _foremost(error.exceptions)
        step = _step(error)
        if step is None:  # it is the object itself that is wrong, not one of its values
            break
        if isinstance(error, KeyError) and isinstance(data, Mapping) and step not in data:
            return ConfigurationError("missing", path=_joined(path, step))
        path, data = _joined(path, step), _value_at(data, step)
        hidden = hidden or _hides(owner, step)

    if isinstance(error, ForbiddenExtraKeysError):
        return _unknown_key(sorted(map(str, error.extra_fields))[0], _field_names(error.cl), path)
    if isinstance(error, SpecRefused):
        return _refused(error, owner, path)
    message = _message(error)
    if step is None and attrs.has(owner):
        culprit = _culprit(owner, data, error)
        path, data = _joined(path, culprit), _value_at(data, culprit) if culprit else None
        hidden = hidden or _hides(owner, culprit)
        message = "not acceptable" if hidden else message  # a class's own words may show the value
    return ConfigurationError(message, path=path, value=None if hidden else data)


def _foremost(errors: Sequence[Exception]) -> Exception:
    """A key that is not known explains best why another is missing."""
    from cattrs.errors import ForbiddenExtraKeysError

    unknown = (error for error in errors if isinstance(error, ForbiddenExtraKeysError))
    return next(unknown, errors[0])


def _step(error: Exception) -> str | int | None:
    from cattrs.errors import AttributeValidationNote, IterableValidationNote

    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return note.name
        if isinstance(note, IterableValidationNote):
            return note.index
    return None


def _refused(error: SpecRefused, owner: Any, path: str) -> ConfigurationError:
    """The class says which of its fields it is, and where it stands itself: `resources.cpus`, `inputs[name].source`."""
    own = error.field.rpartition(".")[2] if _origin(owner) is not SubmissionSpec else error.field
    known = own.partition("[")[0].partition(".")[0] in _field_names(owner)
    return ConfigurationError(
        error.message.removeprefix(f"{error.field}: "),
        path=_joined(path, own) if known else path,
        remedy=error.remedy,
    )


def _culprit(owner: Any, data: object, error: Exception) -> str:
    """The field whose converter or validator said so: the one that says it again, alone. "" if it is none of them."""
    blank = owner.__new__(owner)
    for attribute in attrs.fields(attrs.resolve_types(owner)):
        if not isinstance(data, Mapping) or attribute.name not in data:
            continue
        try:
            value = _converter().structure(data[attribute.name], attribute.type)
            if attribute.converter is not None:
                value = attribute.converter(value)
            if attribute.validator is not None:
                attribute.validator(blank, attribute, value)
        except Exception as again:
            if type(again) is type(error) and _message(again) == _message(error):
                return str(attribute.name)
    return ""


def _hides(owner: Any, name: object) -> bool:
    """True for a field that its class leaves out of its repr: what stands there may be a secret."""
    return attrs.has(owner) and any(
        attribute.name == name and attribute.repr is False for attribute in attrs.fields(owner)
    )


def _message(error: Exception) -> str:
    """Its words. The validators of attrs put more than those into `args`."""
    said: object = error.args[0] if error.args else ""
    return said if isinstance(said, str) and said else str(error) or type(error).__name__


def _unknown_key(key: str, known: list[str], path: str) -> ConfigurationError:
    import difflib

    near = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    return ConfigurationError(
        "no such key",
        path=_joined(path, key),
        candidates=near or known,
        remedy=f"did you mean {near[0]!r}?" if near else "",
    )


def _field_names(kind: Any) -> list[str]:
    return [attribute.name for attribute in attrs.fields(kind) if attribute.init]


def _joined(path: str, step: str | int) -> str:
    if isinstance(step, int):
        return f"{path}[{step}]"
    return f"{path}.{step}" if path and step else path or step


def _value_at(data: object, step: str | int) -> object:
    if isinstance(data, Mapping):
        return data.get(step)
    if isinstance(data, (list, tuple)) and isinstance(step, int) and step < len(data):
        return data[step]
    return None
