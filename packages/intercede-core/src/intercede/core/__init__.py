"""The contract between a workload management system and the resources where its jobs run.

Protocols, data types, errors and the plugin registry. No I/O; importing it brings in neither asyncio nor anyio.

    from intercede.core import SubmissionSpec, registry

    async with registry.backend({"transport": "local", "scheduler": "direct"}) as ce:
        submission = await ce.submit(SubmissionSpec("hello.sh"), copies=3)
"""

from typing import TYPE_CHECKING

from ._errors import (
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    ConnectionLost,
    HostKeyError,
    InterCEdeError,
    OperationTimeout,
    PartialFailure,
    PluginBroken,
    PluginConflict,
    PluginError,
    PluginNonConforming,
    PluginNotFound,
    ResourceError,
    SpecRefused,
    SubmitUncertain,
    TransportError,
    Unreachable,
)
from ._jobs import (
    BulkResult,
    Failure,
    FailureCode,
    JobID,
    JobStatus,
    StatusMap,
    distinct_ids,
)
from ._protocols import (
    Cancellable,
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
from ._spec import (
    CopyVars,
    FileRef,
    JobHandle,
    OutputMember,
    OutputSpec,
    Resources,
    Submission,
    SubmissionSpec,
    expand_copies,
)

if TYPE_CHECKING:
    from . import registry
    from ._collaborators import (
        Command,
        CommandResult,
        Facts,
        NativeJob,
        Process,
        Results,
        Scheduler,
        StagedBatch,
        Transport,
    )
    from ._credentials import (
        BearerToken,
        Credential,
        CredentialProvider,
        CredentialRequirements,
        CredentialSet,
        Password,
        SSHKey,
        X509Proxy,
    )
    from ._json import from_json, structure, to_json, unstructure
    from ._results import Diagnostics, DryRun, JobCounts, JobDetails, JobOutput, OpOutcome

__all__ = [
    "AuthenticationError",
    "BearerToken",
    "BulkResult",
    "Cancellable",
    "ClosedError",
    "Command",
    "CommandResult",
    "ConfigurationError",
    "ConnectionLost",
    "CopyVars",
    "Credential",
    "CredentialProvider",
    "CredentialRequirements",
    "CredentialSet",
    "Diagnostics",
    "Discoverable",
    "DryRun",
    "Facts",
    "Failure",
    "FailureCode",
    "FileRef",
    "HostKeyError",
    "InterCEdeError",
    "JobBackend",
    "JobCounts",
    "JobDetails",
    "JobHandle",
    "JobID",
    "JobOutput",
    "JobStatus",
    "LoadReporter",
    "Managed",
    "Monitor",
    "NativeJob",
    "OpOutcome",
    "OperationTimeout",
    "OutputMember",
    "OutputRetriever",
    "OutputSpec",
    "PartialFailure",
    "Password",
    "PluginBroken",
    "PluginConflict",
    "PluginError",
    "PluginNonConforming",
    "PluginNotFound",
    "Process",
    "Purgeable",
    "ResourceError",
    "Resources",
    "Results",
    "SSHKey",
    "Scheduler",
    "SpecRefused",
    "StagedBatch",
    "StatusMap",
    "Submission",
    "SubmissionSpec",
    "SubmitUncertain",
    "Submitter",
    "SupportsDetails",
    "SupportsDryRun",
    "SupportsLiveDiagnostics",
    "Transport",
    "TransportError",
    "Unreachable",
    "X509Proxy",
    "distinct_ids",
    "expand_copies",
    "from_json",
    "registry",
    "structure",
    "to_json",
    "unstructure",
]


#: What not everybody needs is imported when it is first asked for: it is a third of the import's time.
_LATER = {
    "Command": "_collaborators",
    "CommandResult": "_collaborators",
    "Facts": "_collaborators",
    "NativeJob": "_collaborators",
    "Process": "_collaborators",
    "Results": "_collaborators",
    "Scheduler": "_collaborators",
    "StagedBatch": "_collaborators",
    "Transport": "_collaborators",
    "BearerToken": "_credentials",
    "Credential": "_credentials",
    "CredentialProvider": "_credentials",
    "CredentialRequirements": "_credentials",
    "CredentialSet": "_credentials",
    "Password": "_credentials",
    "SSHKey": "_credentials",
    "X509Proxy": "_credentials",
    "from_json": "_json",
    "structure": "_json",
    "to_json": "_json",
    "unstructure": "_json",
    "Diagnostics": "_results",
    "DryRun": "_results",
    "JobCounts": "_results",
    "JobDetails": "_results",
    "JobOutput": "_results",
    "OpOutcome": "_results",
}


if not TYPE_CHECKING:  # else every misspelt name would be right to the type checker

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name == "registry":
            return import_module(".registry", __name__)
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f".{_LATER[name]}", __name__), name)
