"""The rules of the contract, by the letters under which tests, reports and documentation speak of them.

One table: a rule that is not here can be claimed by no test, and the report lists what stands here whether or not a test ran.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

__all__ = ["RULES", "RULES_ATTRIBUTE", "Verdict"]

#: Where a test keeps the names of its rules.
RULES_ATTRIBUTE: Final = "contract_rules"


class Verdict(StrEnum):
    """What the suite says of a rule, the gravest first. Only the last means that the rule was seen to hold."""

    FAILED = "failed"
    """At least one test of the rule failed."""
    SKIPPED = "skipped"
    """A test was left out for a reason of the set-up's own."""
    NOT_OBSERVED = "not observed"
    """It needs a probe, a fault or a configuration that this set-up lacks."""
    NOT_OFFERED = "not offered"
    """The backend lacks the ability, and says so."""
    PASSED = "passed"
    """Every test of the rule passed."""


#: Rule: what it demands.
RULES: Final[Mapping[str, str]] = {
    "L1": "construction does no I/O and needs no event loop",
    "L2": "the first use connects; aclose is idempotent; use after it raises ClosedError",
    "L3": "one backend serves many tasks",
    "L4": "a cancelled call leaves the backend usable and leaks no task, process or descriptor",
    "L5": "opened and closed in different tasks of one loop; another loop is a clear error",
    "L6": "cancelling the first waiter does not fail the others' connect",
    "S1": "handles and failures cover every copy once, in order",
    "S2": "handles survive JSON and another process",
    "S3": "the caller may delete every input when submit returns",
    "S4": "arguments, environment values and names arrive byte for byte",
    "S5": "a copy's secret is a 0600 file in that copy's sandbox, and passes nowhere else",
    "S6": "a spec that cannot be honoured is refused, naming the field, before anything is sent",
    "S7": "find returns exactly what submits with this tag made",
    "S8": "names that leave the sandbox are refused",
    "S9": "nothing is sent twice once it may have arrived",
    "T1": "every id gets an answer; an empty list does no I/O",
    "T2": "unknown, foreign, malformed or hostile ids are UNKNOWN and reach no shell",
    "T3": "exit 0 is SUCCESSFUL, other exits and signals are FAILED, our kill is CANCELLED",
    "T4": "a finished status never changes until the job is purged",
    "T5": "one bad row spoils only its own job; absence, a failed command and garbage are not-now",
    "T6": "an id that the scheduler has given to another job is not ours",
    "F1": "the manifest is complete, bytes are exact, everything lies beneath dest",
    "F2": "names, patterns, everything; what is declared and absent is listed",
    "F3": "a limit fails that job alone and leaves no debris",
    "F4": "absolute names, '..', links out, devices and FIFOs are refused per member",
    "F5": "destructive tells the truth",
    "F6": "an unfinished job gets a reason, not half a result",
    "F7": "memory does not grow with size",
    "F8": "everything never returns inputs, executable or secrets",
    "F9": "a stream that is cut anywhere is noticed",
    "K1": "pending and running jobs end CANCELLED with all their processes",
    "K2": "finished: success with a note; unknown: failure; the effect is read back",
    "P1": "purge removes exactly that job's remote state",
    "P2": "purging twice is harmless",
    "P3": "a purged job is no-such-job",
    "P4": "purge is refused while the job is unfinished",
    "C1": "running + waiting are all unfinished jobs of this resource's name, and nobody else's",
    "D1": "diagnostics while running, repeatable, bounded; before the start they say why",
    "E1": "errors are typed, and name resource, operation and remedy",
    "E2": "no secret in any text, log, argv, environment, traceback or world-readable file",
    "X1": "arguments and input arrive byte for byte, whatever the login shell",
    "X2": "exit status and signal come back",
    "X3": "the end of the input reaches the command",
    "X4": "back-pressure both ways: nobody's output or input piles up",
    "X5": "output is bounded",
    "X6": "a cancelled or timed-out command is ended at the host",
    "X7": "may_have_run is False only when nothing ran",
    "X8": "after a failure the next use connects again",
    "N1": "pure: the same input gives the same output, and no I/O",
    "N2": "what is absent stays absent",
    "N3": "garbage raises or spoils one row, and never invents",
    "N4": "long lists are split within the daemon's limits",
    "N5": "native ids are gated by native_id",
    "N6": "every sample names daemon, version and command",
}
