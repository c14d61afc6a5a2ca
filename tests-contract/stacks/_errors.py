"""What goes wrong with stacks, in words for the person at the keyboard."""

from __future__ import annotations

__all__ = ["StackError"]


class StackError(Exception):
    """A stack cannot be had, and why; the message is all that a user is shown."""
