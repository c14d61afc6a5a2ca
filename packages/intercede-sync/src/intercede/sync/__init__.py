"""The contract for code without an event loop.

    from intercede.core import SubmissionSpec
    from intercede.sync import Cancellable, backend

    with backend({"transport": "local", "scheduler": "direct"}) as ce:
        submission = ce.submit(SubmissionSpec("hello.sh"), copies=3)
        assert isinstance(ce, Cancellable)
        ce.kill([handle.id for handle in submission.handles])

The protocols have the names of those of `intercede.core`, from which they are generated; data types and errors are those of
`intercede.core` themselves. Everything may be used from many threads, and nothing inside a running event loop.
"""

from ._facade import synchronous
from ._loop import Loop
from ._making import backend
from ._protocols import (
    Cancellable,
    CredentialProvider,
    Discoverable,
    JobBackend,
    LoadReporter,
    Managed,
    Monitor,
    OutputRetriever,
    Purgeable,
    Submitter,
    SupportsDetails,
    SupportsDryRun,
    SupportsLiveDiagnostics,
)

__all__ = [
    "Cancellable",
    "CredentialProvider",
    "Discoverable",
    "JobBackend",
    "LoadReporter",
    "Loop",
    "Managed",
    "Monitor",
    "OutputRetriever",
    "Purgeable",
    "Submitter",
    "SupportsDetails",
    "SupportsDryRun",
    "SupportsLiveDiagnostics",
    "backend",
    "synchronous",
]
