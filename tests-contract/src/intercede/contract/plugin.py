"""The pytest plugin: gathers the verdicts of the suite's tests and shows them, rule by rule, at the end.

It is loaded in every run of pytest where this distribution is installed, and must be felt in none: it imports nothing heavy, does
nothing until a test of the suite has reported, and leaves its options out where the project has options of these names. A test's verdict
travels in its report's properties: so a run that is spread over processes (pytest-xdist) is summed up where the reports meet, and pytest's
own JUnit XML has them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Generator, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final, cast

import pytest

from ._guard import contract_of, standard_tests
from ._report import Outcome, Report, rules_named
from ._rules import RULES, RULES_ATTRIBUTE, Verdict
from ._workers import WORKER_PROPERTY, Workers

__all__ = [
    "NAME",
    "RESOURCE_PROPERTY",
    "RULE_PROPERTY",
    "VERDICT_PROPERTY",
    "Verdicts",
    "pytest_configure",
    "pytest_load_initial_conftests",
]

#: Under which the plugin is registered, however it came to be loaded.
NAME: Final = "intercede.contract.plugin"
RESOURCE_PROPERTY: Final = "contract_resource"
RULE_PROPERTY: Final = "contract_rule"
VERDICT_PROPERTY: Final = "contract_verdict"
CONTRACT_PROPERTY: Final = "contract_class"
_WORDS_PROPERTY: Final = "contract_words"
_REASON_PROPERTY: Final = "contract_reason"
_GATHERER: Final = "intercede.contract.verdicts"
_OUTCOME: Final = pytest.StashKey[Outcome]()

_OPTIONS: Final = {
    "--require": {
        "dest": "contract_require",
        "metavar": "RULES",
        "default": "",
        "help": "families and rules, as in L,S,T4: fail if one of them was not seen to hold",
    },
    "--report-json": {
        "dest": "contract_json",
        "metavar": "FILE",
        "default": "",
        "help": "write rules and verdicts to this file",
    },
}


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(parser: pytest.Parser) -> Generator[None, None, None]:
    """Add the options, after those of the project, whose names come first."""
    yield
    group = parser.getgroup("intercede contract")
    for name, settings in _OPTIONS.items():
        try:
            group.addoption(name, **cast("dict[str, Any]", settings))
        except (ValueError, argparse.ArgumentError):
            continue


def pytest_configure(config: pytest.Config) -> None:
    """Begin to gather, unless somebody does so already."""
    if config.pluginmanager.has_plugin(_GATHERER):
        return
    try:
        required = rules_named(config.getoption("contract_require", ""))
    except ValueError as error:
        raise pytest.UsageError(f"--require: {error}") from None
    config.pluginmanager.register(Verdicts(config, required), _GATHERER)


class Verdicts:
    """Decides what each test says of its rules, and sums it up.

    Attributes:
        report: What was found so far.
    """

    def __init__(self, config: pytest.Config, required: tuple[str, ...] = ()) -> None:
        self.report = Report(required)
        self._json = config.getoption("contract_json", "")
        self._workers = Workers()
        self._sums_up = not hasattr(config, "workerinput")

    # -------------------------------------------------------------- where the tests run

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Decide; explain a failure; and at the end of the test let its report carry what it came to."""
        report = yield
        cls = getattr(item, "cls", None)
        rules = getattr(getattr(item, "function", None), RULES_ATTRIBUTE, ())
        reasons: Mapping[str, Any] = getattr(cls, "reasons_by_rule", {})
        if cls is None or not (rules or reasons):
            return report
        if rules:
            self._decide(item, report, rules, reasons)
        if report.when == "setup":
            report.user_properties = [*item.user_properties, (WORKER_PROPERTY, os.getpid())]
        if report.when == "teardown":
            outcome = item.stash.get(_OUTCOME, Outcome(rules, Verdict.SKIPPED, "it did not run"))
            properties = list(_properties(cls, outcome, reasons))
            item.user_properties += properties
            report.user_properties = [*item.user_properties]
        return report

    def _decide(
        self,
        item: pytest.Item,
        report: pytest.TestReport,
        rules: tuple[str, ...],
        reasons: Mapping[str, Any],
    ) -> None:
        verdict, words = _decided(report)
        name = getattr(item, "originalname", item.name)
        if verdict is Verdict.SKIPPED and name in reasons:
            words = reasons[name][1]
        elif verdict is Verdict.SKIPPED:
            words = f"{name} was skipped without a stated reason ({words})"
            _fail(report, f'{words}; state one, as in `reasons = {{"{name}": "<why>"}}`')
            verdict = Verdict.FAILED
        required = ", ".join(rule for rule in rules if rule in self.report.required)
        if required and verdict not in (None, Verdict.PASSED, Verdict.FAILED):
            words = f"required ({required}), and was {verdict}: {words}"
            _fail(report, words)
            verdict = Verdict.FAILED
        if report.failed:
            report.sections.append(("contract", _explained(item, rules, words)))
        before = item.stash.get(_OUTCOME, None)
        if verdict and (before is None or before.verdict is not Verdict.FAILED):
            item.stash[_OUTCOME] = Outcome(rules, verdict, words)

    # -------------------------------------------------------------- where the reports meet

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note where a test begins, and what it came to."""
        if report.when == "setup":
            self._workers.note(report)
        if report.when != "teardown":
            return
        found: dict[str, list[str]] = {}
        for key, value in report.user_properties:
            found.setdefault(key, []).append(str(value))
        if RESOURCE_PROPERTY not in found:
            return
        outcome = Outcome(
            tuple(found.get(RULE_PROPERTY, ())),
            Verdict(found[VERDICT_PROPERTY][0]),
            found.get(_WORDS_PROPERTY, [""])[0],
        )
        reasons = dict(map(_reason_of, found.get(_REASON_PROPERTY, ())))
        test = report.nodeid.rpartition("::")[2]
        resource = found[RESOURCE_PROPERTY][0]
        self.report.add(resource, test, outcome, reasons)
        if resource not in self.report.standard:
            self.report.standard[resource] = _standard(found[CONTRACT_PROPERTY][0])

    def pytest_keyboard_interrupt(self) -> None:
        """Wait for what other processes have to clear up."""
        self._workers.clear_up()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the report, and fail the run for a required rule that was not seen to hold."""
        if not self._sums_up:
            return
        if self._json:
            Path(self._json).write_text(self.report.as_json(), "utf-8")
        if self.report.wanting and session.exitstatus in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the table, what the undecided rules need, and which required ones do not hold."""
        for resource in self.report.resources:
            terminalreporter.write_sep("=", f"contract: rule by verdict: {resource}")
            for line in self.report.table(resource):
                terminalreporter.write_line(line)
        if self.report.wanting:
            terminalreporter.write_sep("=", "contract: required, and not seen to hold")
            for rule, words in self.report.wanting.items():
                terminalreporter.write_line(f"{rule:<3} {words}", red=True)


def _decided(report: pytest.TestReport) -> tuple[Verdict | None, str]:
    """What this part of a test says, and why; nothing, if set-up or clearing up just went well."""
    if report.failed:
        return Verdict.FAILED, _seen(report)
    if hasattr(report, "wasxfail"):
        return Verdict.SKIPPED, f"expected to fail: {report.wasxfail}".rstrip(": ")
    if not report.skipped:
        return (Verdict.PASSED if report.when == "call" else None), ""
    longrepr: Any = report.longrepr
    reason = str(longrepr[2] if isinstance(longrepr, tuple) else longrepr)
    reason = reason.removeprefix("Skipped: ")
    for verdict in (Verdict.NOT_OFFERED, Verdict.NOT_OBSERVED):
        if reason.startswith(verdict):
            return verdict, reason.removeprefix(f"{verdict}: ")
    return Verdict.SKIPPED, reason


def _seen(report: pytest.TestReport) -> str:
    """The first words of the failure."""
    crash = getattr(report.longrepr, "reprcrash", None)
    words = str(crash.message if crash is not None else report.longrepr)
    return words.strip().split("\n", 1)[0][:500]


def _fail(report: pytest.TestReport, words: str) -> None:
    report.outcome = "failed"
    report.longrepr = words
    report.__dict__.pop("wasxfail", None)


def _explained(item: pytest.Item, rules: tuple[str, ...], seen: str) -> str:
    """What a stranger needs in order to understand a failure."""
    sentence = getattr(item, "originalname", item.name).removeprefix("test_").replace("_", " ")
    lines = [f"{rule}: {RULES[rule]}" for rule in rules]
    lines += [f"expected: {sentence}", f"seen: {seen}"]
    funcargs = getattr(item, "funcargs", {})
    heard = funcargs.get("bench") or getattr(item, "instance", None)
    if crossed := getattr(heard, "crossed", ()):
        lines += ["the last commands that crossed the transport:", *crossed]
    return "\n".join(lines)


def _properties(
    cls: type, outcome: Outcome, reasons: Mapping[str, tuple[tuple[str, ...], str]]
) -> Iterator[tuple[str, str]]:
    yield RESOURCE_PROPERTY, cls.__name__
    contract = contract_of(cls)
    yield CONTRACT_PROPERTY, f"{contract.__module__}:{contract.__qualname__}"
    for rule in outcome.rules:
        yield RULE_PROPERTY, rule
    yield VERDICT_PROPERTY, str(outcome.verdict)
    if outcome.words:
        yield _WORDS_PROPERTY, outcome.words
    for rules, why in reasons.values():
        yield _REASON_PROPERTY, f"{','.join(rules)} {why}"


def _standard(contract: str) -> Mapping[str, tuple[str, ...]]:
    """The tests of a contract of ours, which ran in some process; of a project's own none are known in this one."""
    module, _, name = contract.partition(":")
    found = (
        getattr(import_module(module), name) if module.startswith("intercede.contract") else None
    )
    return {} if found is None else standard_tests(found)


def _reason_of(text: str) -> tuple[str, Outcome]:
    """A stated reason as it travels: rules, test, what became of it, why."""
    rules, _, why = text.partition(" ")
    test = why.partition(":")[0].partition(" ")[0]
    return test, Outcome(tuple(rules.split(",")), Verdict.SKIPPED, why)
