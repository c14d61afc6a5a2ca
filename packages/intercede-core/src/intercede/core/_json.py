"""JSON both ways, strictly: nothing is converted silently, and an error names the path of the key.

What is written: every data class as an object with all its fields, enumerations as their values, moments as ISO 8601 in UTC, bytes as
base64. What is read: the same; keys that are not known are refused, keys with a default may be left out.

cattrs takes 70 ms to import, and json, base64 and difflib 10 ms together, hence inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

import attrs

from ._errors import ConfigurationError, SpecRefused
from ._jobs import BulkResult
from ._spec import OutputMember

if TYPE_CHECKING:
    from cattrs import Converter

__all__ = ["from_json", "structure", "to_json", "unstructure"]

T = TypeVar("T")


def to_json(value: object) -> str:
    """One line of JSON for any data class of `intercede.core`, or a sequence or mapping of them.

    Secrets of `CopyVars` are written too: what holds them must be kept like a secret.
    """
    import json

    return json.dumps(unstructure(value), separators=(",", ":"))


def from_json(kind: type[T], text: str | bytes) -> T:
    """The data class that `to_json` wrote.

    Raises:
        ConfigurationError: Not JSON, or not of this form; names the path of the key.
    """
    import json

    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"not JSON: {error}") from None
    return structure(kind, data)


def unstructure(value: object) -> Any:
    """Plain dicts, lists, strings and numbers, as JSON or TOML have them."""
    if isinstance(value, BulkResult):
        return {
            "entries": {job: unstructure(entry) for job, entry in value.items()},
            "failures": {job: unstructure(failure) for job, failure in value.failures.items()},
        }
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
        raise _explain(error, path, data) from None


@cache
def _converter() -> Converter:
    from cattrs import Converter

    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    for kind in (str, int, bool):
        converter.register_structure_hook(kind, _exactly(kind))
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(bytes, _from_base64)
    converter.register_unstructure_hook(bytes, _to_base64)
    converter.register_structure_hook(datetime, _from_iso)
    converter.register_unstructure_hook(datetime, datetime.isoformat)
    converter.register_structure_hook(Path, lambda value, _: Path(_exactly(str)(value, str)))
    converter.register_unstructure_hook(Path, str)

    _read_lists_and_tables_strictly(converter)
    return converter


def _is_variadic_tuple(kind: object) -> bool:
    return get_origin(kind) is tuple and get_args(kind)[1:] == (Ellipsis,)


def _read_lists_and_tables_strictly(converter: Converter) -> None:
    """`arguments = "abc"` is a mistake, not three arguments; and a table must be a table."""
    from cattrs.errors import IterableValidationError, IterableValidationNote
    from cattrs.gen import make_dict_structure_fn

    def list_reader(kind: Any) -> Callable[[object, Any], tuple[object, ...]]:
        element = get_args(kind)[0]

        def read(value: object, _: Any) -> tuple[object, ...]:
            if not isinstance(value, (list, tuple)):
                raise TypeError(f"expected a list, found {_kind_of(value)}")
            items = []
            for index, item in enumerate(value):
                try:
                    items.append(converter.structure(item, element))
                except Exception as error:
                    error.add_note(IterableValidationNote(f"item {index}", index, element))
                    raise IterableValidationError("while reading a list", [error], kind) from None
            return tuple(items)

        return read

    def table_reader(kind: Any) -> Callable[[object, Any], object]:
        from_dict = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True)

        def read(value: object, _: Any) -> object:
            if kind is OutputMember and isinstance(value, str):
                return OutputMember(value)
            if not isinstance(value, Mapping):
                raise TypeError(f"expected a table, found {_kind_of(value)}")
            return from_dict(dict(value), kind)

        return read

    converter.register_structure_hook_factory(_is_variadic_tuple, list_reader)
    converter.register_structure_hook_factory(attrs.has, table_reader)


def _exactly(kind: type[T]) -> Callable[[object, Any], T]:
    def hook(value: object, _: Any) -> T:
        if type(value) is not kind:
            raise TypeError(f"expected {_NAMES[kind]}, found {_kind_of(value)}")
        return value

    return hook


def _number(value: object, _: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"expected a number, found {_kind_of(value)}")
    return float(value)


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
        return value
    if not isinstance(value, str):
        raise TypeError(f"expected an ISO 8601 time, found {_kind_of(value)}")
    return datetime.fromisoformat(value)


_NAMES: dict[type, str] = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
    type(None): "nothing",
}


def _kind_of(value: object) -> str:
    return _NAMES.get(type(value), type(value).__name__)


def _explain(error: BaseException, path: str, data: object) -> ConfigurationError:
    """The first thing that is wrong, with the path to it."""
    from cattrs.errors import (
        AttributeValidationNote,
        BaseValidationError,
        ForbiddenExtraKeysError,
        IterableValidationNote,
    )

    while isinstance(error, BaseValidationError):
        error = error.exceptions[0]
        for note in getattr(error, "__notes__", ()):
            step: str | int | None = None
            if isinstance(note, AttributeValidationNote):
                step = note.name
            elif isinstance(note, IterableValidationNote):
                step = note.index
            if step is None:
                continue
            path = _join(path, step)
            data = _step_into(data, step)

    if isinstance(error, ForbiddenExtraKeysError):
        return _unknown_key(sorted(error.extra_fields)[0], _field_names(error.cl), path, data)
    if isinstance(error, SpecRefused):
        # The class knows better than the path which of its fields it is.
        return ConfigurationError(str(error), path=path)
    if isinstance(error, KeyError):
        return ConfigurationError("missing", path=path)
    return ConfigurationError(str(error) or type(error).__name__, path=path, value=data)


def _unknown_key(key: str, known: list[str], path: str, data: object) -> ConfigurationError:
    import difflib

    near = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    remedy = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
    return ConfigurationError(
        "no such key",
        path=_join(path, key),
        value=_step_into(data, key),
        candidates=near or known,
        remedy=remedy,
    )


def _field_names(kind: type) -> list[str]:
    return [attribute.name for attribute in attrs.fields(kind) if attribute.init]


def _join(path: str, step: str | int) -> str:
    if isinstance(step, int):
        return f"{path}[{step}]"
    return f"{path}.{step}" if path else step


def _step_into(data: object, step: str | int) -> object:
    if isinstance(data, Mapping):
        return data.get(step)
    if isinstance(data, (list, tuple)) and isinstance(step, int) and step < len(data):
        return data[step]
    return None
