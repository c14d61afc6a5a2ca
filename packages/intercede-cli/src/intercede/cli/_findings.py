"""What checks have found: a table with what went wrong beneath it, or one JSON document."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from ._screen import Screen
from ._steps import Cause, Course, Result

__all__ = ["report"]


def report(courses: Sequence[Course], screen: Screen) -> int:
    """Show what came of the checks, all of which are complete.

    Returns:
        The exit code: the worst of any resource.
    """
    code = max(course.exit_code for course in courses)
    if screen.as_json:
        screen.document({"exit_code": code, "checks": [_as_document(one) for one in courses]})
        return code
    rows = [
        (course.resource, step, result.outcome, _time(result), result.note)
        for course in courses
        for step, result in course.results.items()
    ]
    screen.table(("resource", "step", "result", "time", "note"), rows)
    for course in courses:
        for step, result in course.results.items():
            if result.cause is not None:
                _explain(f"{course.resource}: {step} {result.outcome}", result.cause, screen)
        if course.leaves_something:
            screen.line(left_text(course))
    return code


def left_text(course: Course) -> str:
    """What is still there, and how to be rid of it."""
    if not course.left:
        words = f"intercede find --resource {shlex.quote(course.resource)} {course.tag}"
        return f"{course.resource}: left: what was submitted may be there; see {words}"
    ids = " ".join(map(shlex.quote, course.left))
    return (
        f"{course.resource}: left: {len(course.left)} jobs;"
        f" end them with intercede kill, then intercede purge: {ids}"
    )


def _time(result: Result) -> str:
    return "" if result.seconds is None else f"{result.seconds:.1f} s"


def _explain(what: str, cause: Cause, screen: Screen) -> None:
    screen.line(f"{what}: {cause.text}")
    if cause.remedy:
        screen.line(f"  remedy: {cause.remedy}")
    for line in cause.said.splitlines():
        screen.line(f"  it said: {line}")


def _as_document(course: Course) -> dict[str, object]:
    return {
        "resource": course.resource,
        "tag": course.tag,
        "exit_code": course.exit_code,
        "left": list(course.left),
        "steps": [
            {
                "step": step,
                "result": result.outcome,
                "seconds": None if result.seconds is None else round(result.seconds, 3),
                "note": result.note,
                "cause": None if result.cause is None else _cause_document(result.cause),
            }
            for step, result in course.results.items()
        ],
    }


def _cause_document(cause: Cause) -> dict[str, object]:
    return {
        "message": cause.text,
        "remedy": cause.remedy,
        "said": cause.said,
        "exit_code": int(cause.exit_code),
        "error": cause.error,
    }
