"""Mechanics that every backend needs, each once."""

from ._credentials import (
    CredentialCache,
    CredentialParser,
    FileCredentials,
    StaticCredentials,
)
from ._destination import Destination
from ._ids import JobParts, new_submission, parse_id, submission_time
from ._lifetime import Lifetime
from ._private import sweep
from ._redaction import RedactingFilter, redact
from ._runner import KILLED, MARKER, ExitRecord, copy_variables, parse_exit, runner_script
from ._shell import Frames, Script, print_data, quote, quote_pattern
from ._sink import CommittedOutput, FileSink, LimitExceeded, Limits, file_paths
from ._tar import (
    TAR_END,
    ArchiveEnd,
    MemberEnd,
    TarData,
    TarError,
    TarEvent,
    TarKind,
    TarMember,
    TarReader,
    TarTrailing,
    tar_header,
    tar_padding,
)
from ._waiting import sole, to_its_end

__all__ = [
    "KILLED",
    "MARKER",
    "TAR_END",
    "ArchiveEnd",
    "CommittedOutput",
    "CredentialCache",
    "CredentialParser",
    "Destination",
    "ExitRecord",
    "FileCredentials",
    "FileSink",
    "Frames",
    "JobParts",
    "Lifetime",
    "LimitExceeded",
    "Limits",
    "MemberEnd",
    "RedactingFilter",
    "Script",
    "StaticCredentials",
    "TarData",
    "TarError",
    "TarEvent",
    "TarKind",
    "TarMember",
    "TarReader",
    "TarTrailing",
    "copy_variables",
    "file_paths",
    "new_submission",
    "parse_exit",
    "parse_id",
    "print_data",
    "quote",
    "quote_pattern",
    "redact",
    "runner_script",
    "sole",
    "submission_time",
    "sweep",
    "tar_header",
    "tar_padding",
    "to_its_end",
]
