"""What a field must be, checked where a value enters.

Validators for attrs classes. Their messages name the field and never show a text or bytes, which may be a secret.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, TypeVar

from attrs import Attribute

__all__ = [
    "Validator",
    "flag",
    "instance",
    "many",
    "optional",
    "table",
    "text",
    "whole_number",
]

T = TypeVar("T")
V = TypeVar("V")

Validator: TypeAlias = Callable[[Any, "Attribute[Any]", Any], None]


def instance(kind: type, *, empty: bool = True) -> Validator:
    """The value is of this class; with `empty=False` it also has a length above 0."""

    def check(_: object, attribute: Attribute[Any], value: Any) -> None:
        if not isinstance(value, kind):
            raise TypeError(f"{attribute.name} must be {kind.__name__}, not {type(value).__name__}")
        if not empty and not value:
            raise ValueError(f"{attribute.name} must not be empty")

    return check


text = instance(str)
flag = instance(bool)


def whole_number(least: int | None = None, most: int | None = None) -> Validator:
    """The value is an int, and no bool, within the range."""

    def check(_: object, attribute: Attribute[Any], value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{attribute.name} must be int, not {type(value).__name__}")
        if least is not None and value < least:
            raise ValueError(f"{attribute.name} must be {least} or more, not {value}")
        if most is not None and value > most:
            raise ValueError(f"{attribute.name} must be {most} or less")

    return check


def optional(inner: Validator) -> Validator:
    """The value is None, or what `inner` accepts."""

    def check(owner: object, attribute: Attribute[Any], value: object) -> None:
        if value is not None:
            inner(owner, attribute, value)

    return check


def many(kind: type, values: Iterable[T], name: str) -> tuple[T, ...]:
    """The values as a tuple.

    Raises:
        TypeError: They are one string (which would be taken letter by letter), or one of them is not of this class.
    """
    if isinstance(values, (str, bytes)):
        raise TypeError(f"{name} must be a sequence, not one string: write [{values!r}]")
    items = tuple(values)
    for item in items:
        if not isinstance(item, kind):
            raise TypeError(
                f"{name} must hold {kind.__name__}, not {type(item).__name__}: {item!r}"
            )
    return items


def table(kind: type[V], values: Mapping[str, V], name: str) -> dict[str, V]:
    """A copy of a mapping from text.

    Raises:
        TypeError: It is no mapping, a key is no str, or a value is not of this class.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"{name} must be a mapping, not {type(values).__name__}")
    copied = dict(values)
    for key, value in copied.items():
        if not isinstance(key, str):
            raise TypeError(f"the keys of {name} must be str, not {type(key).__name__}")
        if not isinstance(value, kind):
            raise TypeError(f"{name}[{key}] must be {kind.__name__}, not {type(value).__name__}")
    return copied
