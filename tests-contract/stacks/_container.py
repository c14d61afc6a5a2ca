"""One container of a stack, as it is to be started."""

from __future__ import annotations

from attrs import field, frozen

from ._manifest import Stack

__all__ = ["Container", "name_of"]


def name_of(stack: Stack, role: str = "") -> str:
    """The name of a stack's container: the stack itself, or something beside it."""
    return f"intercede-{stack.id}" + (f"-{role}" if role else "")


@frozen
class Container:
    """What to start.

    Attributes:
        name: Its name.
        files: What is put into it beneath /stack before it starts: contents by relative path, readable by root only.
        public: The same, readable by all.
        publish: The port that is published on 127.0.0.1 under a number that is free; None: none.
        ready: A command of its shell that succeeds when it is ready; empty: there is none.
        options: More options of `run`.
    """

    name: str
    files: dict[str, str] = field(repr=False, factory=dict)
    public: dict[str, str] = field(factory=dict)
    publish: int | None = None
    ready: str = ""
    options: tuple[str, ...] = ()
