"""Where the payload lies: one POSIX script whose arguments are verbs, listed at its top."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["PAYLOAD"]

#: A staged executable for any resource with a POSIX shell; a fake interprets its verbs instead.
PAYLOAD: Final = Path(__file__).with_name("payload.sh")
