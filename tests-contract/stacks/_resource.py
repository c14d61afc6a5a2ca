"""A stack as the suite's rules for backends see it, whichever way the commands go there.

It also runs inside a container, where nothing is known of engines and ways.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from intercede.contract import Faults, Probe, Resource
from intercede.core import CredentialProvider

from ._manifest import Stack

__all__ = ["ROOT", "composed"]

#: Where the suite's sandboxes are, in the home of the account.
ROOT: Final = "contract"


def composed(
    stack: Stack,
    transport: Mapping[str, Any],
    root: str,
    probe: Probe,
    faults: Faults,
    credentials: Callable[[], CredentialProvider] | None = None,
) -> Resource:
    """A transport with the stack's scheduler.

    Args:
        stack: Whose.
        transport: Its configuration.
        root: Where the sandboxes are on the host.
        probe: Looks at the host.
        faults: Makes it misbehave.
        credentials: Makes a provider.
    """
    shared = {"transport": transport, "scheduler": stack.scheduler, "root": root}
    alone = {**shared, "root": f"{root}/{{unique}}"}
    return Resource(
        config=shared,
        seconds=stack.seconds,
        other_process=True,
        narrow={**alone, "scheduler": stack.narrow} if stack.narrow else None,
        limited={
            "bytes": {**alone, "output_max_bytes": 100_000},
            "files": {**alone, "output_max_files": 20},
            "seconds": {**alone, "output_max_s": 0.2},
        },
        probe=probe,
        faults=faults,
        credentials=credentials,
    )
