"""What a run of the suite found, rule by rule, for people and for programs.

It is put together from what the tests' reports carry, so that it is the same whether the tests ran in this process or in others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from attrs import field, frozen

from ._rules import RULES, Verdict

__all__ = ["FORMAT", "Outcome", "Report", "rules_named"]

#: Counts up when a reader of the JSON would have to change.
FORMAT: Final = 1
#: The verdicts whose reasons are listed beneath the table.
_EXPLAINED: Final = (Verdict.SKIPPED, Verdict.NOT_OFFERED, Verdict.NOT_OBSERVED)


def rules_named(text: str) -> tuple[str, ...]:
    """The rules that a list of families and rules means: "L,S9" is L1 to L6 and S9.

    Raises:
        ValueError: There is no such family or rule.
    """
    found: list[str] = []
    for name in filter(None, (part.strip() for part in text.split(","))):
        rules = [rule for rule in RULES if name in (rule, rule[0])]
        if not rules:
            families = ", ".join(dict.fromkeys(rule[0] for rule in RULES))
            raise ValueError(f"{name!r} is no rule; there are the families {families}")
        found += rules
    return tuple(dict.fromkeys(found))


@frozen
class Outcome:
    """What one test came to.

    Attributes:
        rules: The rules it tests.
        verdict: What it says of them.
        words: Why, or what would be needed; of a failure, what was seen.
    """

    rules: tuple[str, ...]
    verdict: Verdict
    words: str = ""


@frozen
class Report:
    """What is known so far.

    Attributes:
        required: The rules that must be seen to hold.
        outcomes: By resource, then by test.
        reasons: By resource, then by standard test: why it does not run as it stands, as the set-up says.
        standard: By resource, all tests of its contract, with their rules.
    """

    required: tuple[str, ...] = ()
    outcomes: dict[str, dict[str, Outcome]] = field(factory=dict)
    reasons: dict[str, dict[str, Outcome]] = field(factory=dict)
    standard: dict[str, Mapping[str, tuple[str, ...]]] = field(factory=dict)

    def add(
        self, resource: str, test: str, outcome: Outcome, reasons: Mapping[str, Outcome]
    ) -> None:
        """Note what a test came to. One that tests no rule only brings the reasons of its class."""
        if reasons:
            self.reasons.setdefault(resource, {}).update(reasons)
        if outcome.rules:
            self.outcomes.setdefault(resource, {})[test] = outcome

    def not_run(self, resource: str, rule: str = "") -> list[str]:
        """The tests of its contract that have neither run nor a reason not to: deselected, or not reached. With a rule: those of it."""
        ran = {test.partition("[")[0] for test in self.outcomes[resource]}
        excused = self.reasons.get(resource, {})
        return [
            test
            for test, rules in self.standard.get(resource, {}).items()
            if test not in ran and test not in excused and (not rule or rule in rules)
        ]

    @property
    def resources(self) -> list[str]:
        """The resources that were held to anything."""
        return sorted(self.outcomes)

    def of(self, resource: str, rule: str) -> list[Outcome]:
        """What the tests of this rule came to, with those that a reason stands for."""
        places = (self.outcomes.get(resource, {}), self.reasons.get(resource, {}))
        return [outcome for place in places for outcome in place.values() if rule in outcome.rules]

    def verdict(self, resource: str, rule: str) -> Verdict | None:
        """The gravest verdict of the rule's tests; None if none has run."""
        return _gravest(self.of(resource, rule))

    @property
    def wanting(self) -> dict[str, str]:
        """The required rules that were not seen to hold everywhere they were tested, with what is to be said of each."""
        found = {}
        for rule in self.required:
            outcomes = [
                outcome for resource in self.resources for outcome in self.of(resource, rule)
            ]
            verdict = _gravest(outcomes)
            if verdict is None:
                found[rule] = "no test of it ran"
            elif verdict is not Verdict.PASSED:
                words = sorted({o.words for o in outcomes if o.verdict is verdict and o.words})
                found[rule] = ": ".join([str(verdict), *words[:1]])
        return found

    # -------------------------------------------------------------- for people

    def table(self, resource: str) -> list[str]:
        """A line per rule, and then what the undecided ones need."""
        lines = []
        for rule, meaning in RULES.items():
            outcomes = self.of(resource, rule)
            verdict = _gravest(outcomes)
            if verdict is None:
                continue
            counts = _counted(outcomes)
            if missed := len(self.not_run(resource, rule)):
                counts["not run"] = missed
            tests = ", ".join(f"{number} {name}" for name, number in counts.items())
            lines.append(f"{rule:<3} {verdict:<12}  {meaning}  ({tests})")
        for verdict in _EXPLAINED:
            found = [f"  {rule:<3} {words}" for rule, words in self._words(resource, verdict)]
            lines += ["", f"{verdict}:", *found] if found else []
        if left := len(self.not_run(resource)):
            total = len(self.standard[resource])
            rules = " ".join(rule for rule in RULES if self.not_run(resource, rule))
            lines += ["", f"not run: {left} of {total} tests; they are about {rules}"]
        return lines

    def _words(self, resource: str, verdict: Verdict) -> list[tuple[str, str]]:
        return [
            (rule, words)
            for rule in RULES
            for words in sorted(
                {o.words for o in self.of(resource, rule) if o.verdict is verdict and o.words}
            )
        ]

    # -------------------------------------------------------------- for programs

    def as_json(self) -> str:
        """All of it, as the README describes."""
        tables = {resource: self._resource(resource) for resource in self.resources}
        found = {
            "format": FORMAT,
            "required": list(self.required),
            "wanting": self.wanting,
            "resources": tables,
        }
        return json.dumps(found, indent=2) + "\n"

    def _resource(self, resource: str) -> dict[str, Any]:
        rules = {}
        for rule, meaning in RULES.items():
            outcomes = self.of(resource, rule)
            verdict = _gravest(outcomes)
            if verdict is None:
                continue
            rules[rule] = {
                "meaning": meaning,
                "verdict": str(verdict),
                "tests": _counted(outcomes),
                "needs": sorted({o.words for o in outcomes if o.verdict in _EXPLAINED}),
            }
        tests = [
            {
                "test": test,
                "rules": list(outcome.rules),
                "verdict": str(outcome.verdict),
                "words": outcome.words,
            }
            for test, outcome in sorted(self.outcomes[resource].items())
        ]
        reasons = {name: o.words for name, o in sorted(self.reasons.get(resource, {}).items())}
        not_run = self.not_run(resource)
        return {"rules": rules, "tests": tests, "reasons": reasons, "not_run": not_run}


def _gravest(outcomes: Iterable[Outcome]) -> Verdict | None:
    seen = {outcome.verdict for outcome in outcomes}
    return next((verdict for verdict in Verdict if verdict in seen), None)


def _counted(outcomes: Iterable[Outcome]) -> dict[str, int]:
    counts = Counter(outcome.verdict for outcome in outcomes)
    return {str(verdict): counts[verdict] for verdict in Verdict if counts[verdict]}
