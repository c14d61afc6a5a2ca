"""What sbatch says when Slurm has certainly not taken a job.

Everything else that goes wrong is open: a request may have arrived although its answer did not. The words are those of slurm_errno.c, the
same from 20.11 to 26.05 unless a version is named.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

from intercede.core import FailureCode

__all__ = ["ACCOUNTS", "REFUSALS", "Refusal", "find_refusal"]


@frozen
class Refusal:
    """One way to be refused.

    Attributes:
        words: What sbatch says.
        field: What is refused: a field of the specification or a key of the configuration; empty: nothing in particular.
        code: What that is.
    """

    words: str
    field: str = ""
    code: FailureCode = FailureCode.REFUSED


_FULL: Final = "copies", FailureCode.LIMIT
_NOT_NOW: Final = "", FailureCode.NOT_NOW

#: The first that is found counts: sbatch often says in one line what it is and in the next one that the whole failed.
REFUSALS: Final = (
    Refusal("Memory specification can not be satisfied", "resources.memory_mb"),
    Refusal("CPU count per node can not be satisfied", "resources.cpus"),
    Refusal("Invalid partition name specified", "resources.queue"),
    Refusal("User's group not permitted to use this partition", "resources.queue"),
    Refusal("Required partition not available (inactive or drain)", "resources.queue"),
    Refusal("Requested partition configuration not available now", "resources.queue"),
    Refusal("No partition specified or system default partition", "resources.queue"),
    Refusal(
        "Multiple partition job request not supported when a partition is set", "resources.queue"
    ),
    Refusal("Requested time limit is invalid", "resources.wall_time_s"),
    Refusal("Memory required by task is not available", "resources.memory_mb"),
    Refusal("More processors requested than permitted", "resources.cpus"),
    Refusal("CPU count specification invalid", "resources.cpus"),
    Refusal("Node count specification invalid", "resources.nodes"),
    Refusal("Requested node configuration is not available", "resources"),
    Refusal("Invalid account or account/partition combination specified", "account"),
    Refusal("Invalid qos specification", "qos"),
    Refusal("Job violates accounting/QOS policy", *_FULL),
    Refusal(
        "Requested account has breached requested QOS usage threshold", "qos", FailureCode.LIMIT
    ),
    Refusal("Invalid feature specification", "constraint"),
    Refusal("Access denied to requested reservation", "reservation"),
    Refusal("Requested reservation", "reservation"),
    Refusal("Invalid generic resource (gres) specification", "resources.gpus"),
    Refusal("Invalid GRES specification", "resources.gpus"),
    Refusal("Duplicate generic resource (gres) specification", "gres"),
    Refusal("Invalid Trackable RESource (TRES) specification", "resources.gpus"),
    Refusal("Invalid license specification", "options"),
    Refusal("Licenses currently unavailable", "options"),
    Refusal("Job dependency problem", "options"),
    Refusal("unrecognized option", "options"),
    Refusal("Invalid --", "options"),
    Refusal("Invalid job array specification", "copies"),
    Refusal("Invalid container id specified", "container"),
    Refusal("Batch job submission failed: Resource temporarily unavailable", *_FULL),
    Refusal("MaxJobCount limit reached", *_FULL),  # 26.05
    Refusal("Access/permission denied"),
    Refusal("Requested operation not supported on this system"),
    Refusal("Requested operation is presently disabled"),
    Refusal("Pathname of a file, directory or other parameter too long"),
    Refusal("I/O error writing script/environment to file"),
    Refusal("Incompatible versions of client and server code"),
    Refusal("Unspecified error"),  # the word of a site's own job_submit plugin
    Refusal("cli_filter plugin terminated with error"),
    Refusal("Unable to contact slurm controller (connect failure)", *_NOT_NOW),
    Refusal("Slurm backup controller in standby mode", *_NOT_NOW),
    Refusal("Rate limit exceeded", *_NOT_NOW),  # 23.11 and later
    Refusal("sbatch: No such file or directory", *_NOT_NOW),  # of env, busybox
    Refusal("'sbatch': No such file or directory", *_NOT_NOW),  # of env, GNU
)

#: After these the user's accounts and QOS are looked up, to tell what there is and what the limit is.
ACCOUNTS: Final = (
    "Job violates accounting/QOS policy",
    "Invalid qos specification",
    "Invalid account or account/partition combination specified",
)


def find_refusal(said: str) -> Refusal | None:
    """The refusal that these words are; None: it is not certain that the job was refused."""
    return next((refusal for refusal in REFUSALS if refusal.words in said), None)
