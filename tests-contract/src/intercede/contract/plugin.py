"""The pytest plugin: gathers the verdicts of the suite's tests and shows them, rule by rule, at the end.

It is loaded in every run of pytest where this distribution is installed, and must be felt in none: it imports nothing heavy, and does
nothing until a test of the suite has reported. A test carries its rules and its resource in its report's properties, so that a run spread
over processes (pytest-xdist) is summed up where the reports meet.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from ._rules import RULES, Verdict

if TYPE_CHECKING:
    import pytest

__all__ = [
    "NAME",
    "RESOURCE_PROPERTY",
    "RULE_PROPERTY",
    "Verdicts",
    "pytest_configure",
]

#: Under which the plugin is registered, however it came to be loaded.
NAME: Final = "intercede.contract.plugin"
RULE_PROPERTY: Final = "contract_rule"
RESOURCE_PROPERTY: Final = "contract_resource"
_GATHERER: Final = "intercede.contract.verdicts"


class Verdicts:
    """What was found, by resource and rule.

    Attributes:
        counts: For each resource and rule, how many tests came to which verdict.
        needs: For each resource and rule, what the undecided tests would have needed.
    """

    def __init__(self) -> None:
        self.counts: dict[str, dict[str, Counter[Verdict]]] = {}
        self.needs: dict[str, dict[str, set[str]]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what a test came to. Set-up and teardown count only when they decide something."""
        resource = ""
        rules = []
        for key, value in report.user_properties:
            if key == RESOURCE_PROPERTY:
                resource = str(value)
            elif key == RULE_PROPERTY:
                rules.append(str(value))
        decided = _decided(report)
        if not rules or decided is None:
            return
        verdict, need = decided
        for rule in rules:
            self.counts.setdefault(resource, {}).setdefault(rule, Counter())[verdict] += 1
            if need:
                self.needs.setdefault(resource, {}).setdefault(rule, set()).add(need)

    def verdict(self, resource: str, rule: str) -> Verdict | None:
        """The gravest verdict of the rule's tests; None if none has run."""
        counts = self.counts.get(resource, {}).get(rule, Counter())
        return next((verdict for verdict in Verdict if counts[verdict]), None)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the table, and then what the undecided rules need."""
        for resource in sorted(self.counts):
            terminalreporter.write_sep("=", f"contract: rule by verdict: {resource}")
            for line in self.table(resource):
                terminalreporter.write_line(line)

    def table(self, resource: str) -> list[str]:
        """The report of one resource, line by line."""
        lines = []
        for rule, meaning in RULES.items():
            verdict = self.verdict(resource, rule)
            if verdict is None:
                continue
            counts = self.counts[resource][rule]
            tests = ", ".join(f"{counts[v]} {v}" for v in Verdict if counts[v])
            lines.append(f"{rule:<3} {verdict:<12}  {meaning}  ({tests})")
        for verdict in (Verdict.NOT_OFFERED, Verdict.NOT_OBSERVED, Verdict.SKIPPED):
            lines.extend(self._wanting(resource, verdict))
        return lines

    def _wanting(self, resource: str, verdict: Verdict) -> list[str]:
        needs = self.needs.get(resource, {})
        found = [
            f"  {rule:<3} {need.removeprefix(f'{verdict}: ')}"
            for rule in RULES
            for need in sorted(needs.get(rule, ()))
            if need.startswith(verdict)
        ]
        return ["", f"{verdict}:", *found] if found else []


def _decided(report: pytest.TestReport) -> tuple[Verdict, str] | None:
    if report.failed:
        return Verdict.FAILED, ""
    if report.skipped:
        reason = _reason(report)
        for verdict in (Verdict.NOT_OFFERED, Verdict.NOT_OBSERVED):
            if reason.startswith(verdict):
                return verdict, reason
        return Verdict.SKIPPED, f"{Verdict.SKIPPED}: {reason}"
    return (Verdict.PASSED, "") if report.when == "call" else None


def _reason(report: pytest.TestReport) -> str:
    longrepr: Any = report.longrepr
    words = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return str(words).removeprefix("Skipped: ")


def pytest_configure(config: pytest.Config) -> None:
    """Begin to gather, unless somebody does so already."""
    if not config.pluginmanager.has_plugin(_GATHERER):
        config.pluginmanager.register(Verdicts(), _GATHERER)
