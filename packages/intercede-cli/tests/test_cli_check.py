"""`check`: which steps, what is said of each, and that nothing is left, over a fake resource with faults."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Final

import pytest
from attrs import evolve

from intercede.core import (
    BulkResult,
    Diagnostics,
    JobCounts,
    JobDetails,
    JobID,
    JobStatus,
    OpOutcome,
    Unreachable,
)
from intercede.fake import FakeBackend

Run = Callable[..., "CompletedProcess[str]"]
Configure = Callable[[str], None]

#: In their order.
STEPS: Final = [
    "configuration",
    "connect",
    "authenticate",
    "queue",
    "submit",
    "find",
    "status",
    "diagnostics",
    "counts",
    "kill",
    "finish",
    "fetch",
    "purge",
    "clean",
]
#: A fake second is a real one: a job that sleeps is still there when it is looked at.
REAL: Final = "speed = 1.0"


@pytest.fixture
def checked(intercede: Run, configure: Configure) -> Callable[..., dict[str, Any]]:
    """Check a fake with these keys; returns what was found, the steps by their names."""

    def run(keys: str = "", *words: str) -> dict[str, Any]:
        configure(keys if "speed" in keys else f"{REAL}\n{keys}")
        ended = intercede("check", "--json", "--timeout", "10", *words)
        assert ended.stderr == ""
        document = json.loads(ended.stdout)
        assert document["exit_code"] == ended.returncode
        (check,) = document["checks"]
        assert [step["step"] for step in check["steps"]] == STEPS
        check["steps"] = {step["step"]: step for step in check["steps"]}
        # What the steps say is left is what there is.
        if '"find"' not in keys:
            found = intercede("find", "--resource", "fake", check["tag"])
            assert found.stdout.split() == check["left"]
        return dict(check)

    return run


Checked = Callable[..., dict[str, Any]]


def results(check: Mapping[str, Any]) -> dict[str, str]:
    return {name: step["result"] for name, step in check["steps"].items()}


def failed(check: Mapping[str, Any]) -> list[str]:
    return [name for name, result in results(check).items() if result == "failed"]


def fault(operation: str, kind: str, more: str = "") -> str:
    return f'faults = [{{operation = "{operation}", kind = "{kind}"{more}}}]'


# ---------------------------------------------------------------- all is well


def test_a_resource_that_can_do_everything_passes_every_step(checked: Checked) -> None:
    check = checked()

    assert results(check) == dict.fromkeys(STEPS, "ok")
    assert (check["exit_code"], check["left"]) == (0, [])


def test_each_step_has_its_time(checked: Checked) -> None:
    check = checked(fault("diagnostics", "slow", ", seconds = 0.3"))

    seconds = {name: step["seconds"] for name, step in check["steps"].items()}
    assert seconds["diagnostics"] >= 0.3
    # Logging in is part of the first call.
    assert [name for name in STEPS if seconds[name] is None] == ["authenticate"]


@pytest.mark.parametrize(
    ("ability", "steps"),
    [
        ("fetch_output", ["fetch"]),
        ("kill", ["kill"]),
        ("purge", ["purge", "clean"]),
        ("counts", ["counts"]),
        ("diagnostics", ["diagnostics"]),
        ("find", ["find"]),
        ("details", []),
        ("dry_run", []),
    ],
)
def test_what_a_resource_lacks_is_not_offered_and_never_passed(
    checked: Checked, ability: str, steps: list[str]
) -> None:
    # Where nothing can be killed, a minute passes.
    check = checked(f'without = ["{ability}"]\nspeed = {40.0 if ability == "kill" else 1.0}')

    assert results(check) == {**dict.fromkeys(STEPS, "ok"), **dict.fromkeys(steps, "not offered")}
    assert check["exit_code"] == 0


def test_what_stays_where_nothing_can_be_purged_is_named(checked: Checked) -> None:
    check = checked('without = ["purge"]')

    assert len(check["left"]) == 2
    assert check["steps"]["clean"]["note"] == "2 jobs stay there: it has no purge"


def test_a_resource_that_has_nothing_but_status_is_checked_as_far_as_it_goes(
    checked: Checked,
) -> None:
    check = checked(
        'without = ["fetch_output", "kill", "purge", "counts", "diagnostics", "details", "find",'
        ' "dry_run"]\nspeed = 40.0'
    )

    ok = ["configuration", "connect", "authenticate", "queue", "submit", "status", "finish"]
    assert [name for name, result in results(check).items() if result == "ok"] == ok
    assert "not reached" not in results(check).values()
    assert check["exit_code"] == 0


def test_one_slot_is_enough(checked: Checked) -> None:
    assert set(results(checked("slots = 1")).values()) == {"ok"}


# ---------------------------------------------------------------- something fails


@pytest.mark.parametrize(
    ("kind", "step", "error", "remedy"),
    [
        ("unreachable", "connect", "Unreachable", "try again later"),
        ("host-key", "connect", "HostKeyError", "ask the site for its key"),
        ("lost-before-effect", "connect", "ConnectionLost", "try again"),
        ("authentication", "authenticate", "AuthenticationError", "renew them"),
        ("resource-error", "queue", "ResourceError", "see what it said"),
    ],
)
def test_what_keeps_it_from_the_resource_has_its_step_and_the_error_s_own_remedy(
    checked: Checked, kind: str, step: str, error: str, remedy: str
) -> None:
    check = checked(fault("find", kind))

    place = STEPS.index(step)
    before, behind = dict.fromkeys(STEPS[:place], "ok"), dict.fromkeys(STEPS[place:], "not reached")
    assert results(check) == {**before, **behind, step: "failed"}
    cause = check["steps"][step]["cause"]
    assert (cause["error"]["type"], cause["remedy"]) == (error, remedy)
    assert (check["exit_code"], cause["exit_code"]) == (3, 3)


def test_what_is_not_reached_says_for_want_of_what(checked: Checked) -> None:
    check = checked(fault("find", "unreachable"))

    assert check["steps"]["fetch"]["note"] == "needs connect"
    assert check["steps"]["fetch"]["seconds"] is None


@pytest.mark.parametrize(
    ("operation", "step"),
    [
        ("dry_run", "queue"),
        ("submit", "submit"),
        ("details", "status"),
        ("diagnostics", "diagnostics"),
        ("kill", "kill"),
        ("fetch_output", "fetch"),
        ("purge", "purge"),
    ],
)
def test_an_operation_that_fails_is_told_in_its_own_words_and_nothing_is_left(
    checked: Checked, operation: str, step: str
) -> None:
    check = checked(fault(operation, "resource-error"))

    assert failed(check) == [step]
    cause = check["steps"][step]["cause"]
    assert cause["message"] == "it refused the request"
    assert cause["remedy"] == "see what it said"
    assert cause["said"] == "fake: error: not today"
    assert (check["exit_code"], check["left"]) == (3, [])


@pytest.mark.parametrize("kind", ["lost-after-effect", "timeout-after-effect", "staged-only"])
def test_a_submit_whose_end_is_not_known_is_cleared_up_all_the_same(
    checked: Checked, kind: str
) -> None:
    check = checked(fault("submit", kind))

    assert failed(check) == ["submit"]
    assert check["steps"]["submit"]["cause"]["error"]["type"] == "SubmitUncertain"
    assert check["steps"]["clean"]["result"] == "ok"
    assert check["steps"]["clean"]["note"] == "1 jobs of failed steps were removed"
    assert (check["exit_code"], check["left"]) == (3, [])


@pytest.mark.parametrize(
    ("operation", "step", "code", "words"),
    [
        ("submit", "submit", "refused", "the job was not submitted: refused: no"),
        ("details", "status", "no-such-job", "the job: no-such-job: no"),
        ("diagnostics", "diagnostics", "failed", "the running job's output: failed: no"),
        ("kill", "kill", "refused", "the job was not killed: refused: no"),
        ("fetch_output", "fetch", "limit", "the output was not fetched: limit: no"),
        ("purge", "purge", "failed", "1 jobs were not removed: failed: no"),
    ],
)
def test_what_fails_for_one_job_has_a_remedy_too(
    checked: Checked, operation: str, step: str, code: str, words: str
) -> None:
    more = f', copies = [0], code = "{code}", message = "no", times = 1'
    check = checked(fault(operation, "item", more))

    cause = check["steps"][step]["cause"]
    assert failed(check)[0] == step
    assert cause["message"].replace("2 jobs", "1 jobs") == words
    assert cause["remedy"]
    assert cause["error"] is None
    assert (check["exit_code"], check["left"]) == (1, [])


def test_a_job_that_cannot_be_removed_is_named(checked: Checked, intercede: Run) -> None:
    check = checked(fault("purge", "item", ', code = "refused", message = "no", times = 0'))

    assert failed(check) == ["purge", "clean"]
    assert len(check["left"]) == 2
    shown = intercede("check", "fake", "--timeout", "10").stdout
    assert (
        "\nfake: left: 2 jobs; end them with intercede kill, then intercede purge: fake/" in shown
    )


def test_a_job_that_waits_for_too_long_is_a_finding_with_the_scheduler_s_reason(
    checked: Checked,
) -> None:
    check = checked("queue_delay_s = 1000.0", "--timeout", "1")

    assert failed(check) == ["status"]
    cause = check["steps"]["status"]["cause"]
    assert cause["message"].startswith("the job is not running after 1 s: pending (")
    assert cause["remedy"].startswith("see what that reason means at this resource")
    assert [results(check)[name] for name in ("kill", "purge", "clean")] == ["ok"] * 3
    assert (check["exit_code"], check["left"]) == (1, [])


@pytest.mark.parametrize(
    ("operation", "step"), [("find", "connect"), ("submit", "submit"), ("fetch_output", "fetch")]
)
def test_an_answer_that_does_not_come_is_waited_for_no_longer_than_the_time_out(
    checked: Checked, monkeypatch: pytest.MonkeyPatch, operation: str, step: str
) -> None:
    monkeypatch.setattr("intercede.cli._line._ANSWER_S", 0.0)

    check = checked(fault(operation, "slow", ", seconds = 1000.0"), "--timeout", "1")

    assert failed(check) == [step]
    cause = check["steps"][step]["cause"]
    assert cause["message"] == "there was no answer within 1 s"
    assert cause["remedy"].endswith("give it longer with --timeout")
    assert 1 <= check["steps"][step]["seconds"] < 5
    assert (check["exit_code"], check["left"]) == (3, [])


# ---------------------------------------------------------------- a resource that does not do what it says


def test_output_that_differs_is_a_failed_fetch(
    checked: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = FakeBackend.fetch_output

    async def fetch_output(self: FakeBackend, ids: Sequence[JobID], dest: Path) -> Any:
        outputs = await honest(self, ids, dest)
        for output in outputs.values():
            output.files["result.txt"].write_text("else")
        return outputs

    monkeypatch.setattr(FakeBackend, "fetch_output", fetch_output)
    check = checked()

    assert failed(check) == ["fetch"]
    cause = check["steps"]["fetch"]["cause"]
    assert cause["message"].startswith("result.txt came back with b'else' instead of b'intercede-")
    assert cause["remedy"].startswith("see whether the nodes and the host share the file system")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stdout": None}, "stdout did not come back"),
        ({"files": {}}, "result.txt did not come back"),
    ],
)
def test_output_that_is_not_there_is_a_failed_fetch(
    checked: Checked, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    honest = FakeBackend.fetch_output

    async def fetch_output(self: FakeBackend, ids: Sequence[JobID], dest: Path) -> Any:
        outputs = await honest(self, ids, dest)
        return BulkResult({job: evolve(output, **change) for job, output in outputs.items()})

    monkeypatch.setattr(FakeBackend, "fetch_output", fetch_output)
    check = checked()

    assert failed(check) == ["fetch"]
    assert check["steps"]["fetch"]["cause"]["message"] == words


def test_files_that_nobody_wrote_are_a_failed_fetch(
    checked: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = FakeBackend.fetch_output

    async def fetch_output(self: FakeBackend, ids: Sequence[JobID], dest: Path) -> Any:
        outputs = await honest(self, ids, dest)
        more = {"payload.sh": dest / "payload.sh"}
        return BulkResult(
            {job: evolve(one, files={**one.files, **more}) for job, one in outputs.items()}
        )

    monkeypatch.setattr(FakeBackend, "fetch_output", fetch_output)
    check = checked()

    assert failed(check) == ["fetch"]
    assert check["steps"]["fetch"]["cause"]["message"].endswith("did not write: payload.sh")


def test_a_kill_that_ends_nothing_is_seen(
    checked: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = FakeBackend.kill
    calls: list[Sequence[JobID]] = []

    async def kill(self: FakeBackend, ids: Sequence[JobID]) -> Any:
        calls.append(ids)
        if len(calls) > 1:
            return await honest(self, ids)
        return BulkResult({job: OpOutcome(True) for job in ids})

    monkeypatch.setattr(FakeBackend, "kill", kill)
    check = checked("", "--timeout", "1")

    assert failed(check) == ["kill"]
    message = check["steps"]["kill"]["cause"]["message"]
    assert message == "the job is not ended by the kill after 1 s: running"


def test_a_purge_that_removes_nothing_is_seen(
    checked: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def purge(self: FakeBackend, ids: Sequence[JobID]) -> Any:
        return BulkResult({job: OpOutcome(True) for job in ids})

    monkeypatch.setattr(FakeBackend, "purge", purge)
    check = checked()

    assert failed(check) == ["clean"]
    assert (
        check["steps"]["clean"]["cause"]["message"]
        == "2 jobs were there although they had been purged"
    )
    assert len(check["left"]) == 2


def test_what_may_be_left_is_named_also_when_the_host_is_gone(
    intercede: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes away before the kill and does not come back."""
    honest = FakeBackend.find
    gone = False

    async def kill(self: FakeBackend, ids: Sequence[JobID]) -> Any:
        nonlocal gone
        gone = True
        raise Unreachable("nobody answers")

    async def find(self: FakeBackend, tag: str) -> Any:
        if gone:
            raise Unreachable("nobody answers")
        return await honest(self, tag)

    monkeypatch.setattr(FakeBackend, "kill", kill)
    monkeypatch.setattr(FakeBackend, "find", find)
    configure(REAL)
    ended = intercede("check", "fake")

    assert ended.returncode == 3
    assert "\nfake: clean failed: nobody answers\n" in ended.stdout
    assert re.search(r"\nfake: left: 2 jobs; .*:( fake/\w+/0){2}\n$", ended.stdout)


def test_a_tag_that_leads_elsewhere_is_seen(
    checked: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = FakeBackend.find

    async def find(self: FakeBackend, tag: str) -> Any:
        handles = await honest(self, tag)
        return [evolve(handle, submission="other") for handle in handles[:1]]

    monkeypatch.setattr(FakeBackend, "find", find)
    check = checked()

    assert "find" in failed(check)
    message = check["steps"]["find"]["cause"]["message"]
    assert message == "the tag of the two jobs leads to 0 of them and to 1 others"


@pytest.mark.parametrize(
    ("ability", "answer", "words"),
    [
        (
            "diagnostics",
            lambda ids: BulkResult({job: Diagnostics(stderr_tail=b"oh") for job in ids}),
            "and what can be read of it is b''",
        ),
        ("counts", lambda: JobCounts(0, 0), "no unfinished job is counted, though one runs"),
    ],
)
def test_an_answer_that_leaves_the_running_job_out_is_asked_for_again_and_then_a_finding(
    checked: Checked,
    monkeypatch: pytest.MonkeyPatch,
    ability: str,
    answer: Callable[..., Any],
    words: str,
) -> None:
    calls: list[object] = []

    async def method(self: FakeBackend, *arguments: Any) -> Any:
        calls.append(arguments)
        return answer(*arguments)

    monkeypatch.setattr(FakeBackend, ability, method)
    check = checked("", "--timeout", "1")

    assert failed(check) == [ability]
    assert words in check["steps"][ability]["cause"]["message"]
    assert len(calls) > 3


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.FINISHED_UNKNOWN])
def test_a_job_that_does_not_end_well_is_a_failed_finish(
    checked: Checked, monkeypatch: pytest.MonkeyPatch, status: JobStatus
) -> None:
    honest = FakeBackend.details

    async def details(self: FakeBackend, ids: Sequence[JobID]) -> Any:
        return BulkResult(
            {
                job: evolve(one, status=status, exit_code=None, reason="who knows")
                if one.status is JobStatus.SUCCESSFUL
                else one
                for job, one in (await honest(self, ids)).items()
            }
        )

    monkeypatch.setattr(FakeBackend, "details", details)
    check = checked()

    assert failed(check) == ["finish"]
    cause = check["steps"]["finish"]["cause"]
    assert cause["message"] == f"the job that should end well has not: {status} (who knows)"
    assert ("look for what ends jobs" in cause["remedy"]) == (status is JobStatus.FAILED)
    assert cause["said"].startswith("submitted ")  # the fake's log


@pytest.mark.parametrize("ability", ["status", "diagnostics", "counts"])
def test_a_job_that_is_ended_while_it_is_looked_at_is_told_as_that_wherever_it_is_noticed(
    checked: Checked, monkeypatch: pytest.MonkeyPatch, ability: str
) -> None:
    """Somebody ends it just before this is asked, and the answer has nothing of it any more."""
    honest = FakeBackend.details
    empty: dict[str, Callable[..., Any]] = {
        "diagnostics": lambda ids: BulkResult({job: Diagnostics() for job in ids}),
        "counts": lambda: JobCounts(0, 0),
    }
    dead = ability == "status"

    async def details(self: FakeBackend, ids: Sequence[JobID]) -> Any:
        answer = await honest(self, ids)
        if not dead:
            return answer
        end = JobDetails(JobStatus.FAILED, signal=9)
        return BulkResult(
            {job: end if one.status is JobStatus.RUNNING else one for job, one in answer.items()}
        )

    async def asked(self: FakeBackend, *arguments: Any) -> Any:
        nonlocal dead
        dead = bool(arguments) or bool(self.site.counts("fake").running)
        return empty[ability](*arguments)

    monkeypatch.setattr(FakeBackend, "details", details)
    if ability in empty:
        monkeypatch.setattr(FakeBackend, ability, asked)
    check = checked()

    assert failed(check)[0] == ability
    cause = check["steps"][ability]["cause"]
    assert "has ended" in cause["message"]
    assert cause["message"].endswith("and not by us: failed, signal 9")
    assert cause["remedy"].startswith("look for what ends jobs there")
    assert check["steps"]["kill"]["result"] == "not reached"


# ---------------------------------------------------------------- which resources


def test_all_resources_of_the_file_are_checked_and_nothing_else(intercede: Run, here: Path) -> None:
    (here / "intercede.toml").write_text(
        f'[resources.a]\ntype = "fake"\n{REAL}\n[resources.b]\ntype = "fake"\n{REAL}\n'
    )

    document = json.loads(intercede("check", "--json").stdout)

    assert [check["resource"] for check in document["checks"]] == ["a", "b"]


def test_without_a_file_this_machine_is_checked(intercede: Run, here: Path) -> None:
    (here / "intercede.toml").unlink()

    ended = intercede("check")

    assert ended.returncode == 0
    assert {line.split()[0] for line in ended.stdout.splitlines()[1:]} == {"local"}


def test_resources_are_checked_at_the_same_time_and_one_does_not_hide_another(
    intercede: Run, here: Path
) -> None:
    """Each waits in its first call until all of the others are there too, or the time is over."""
    names = ["a", "b", "c", "d"]
    slow = '{operation = "find", kind = "slow", seconds = 2.0}'
    bad = '{operation = "submit", kind = "resource-error"}'
    (here / "intercede.toml").write_text(
        "".join(
            f'[resources.{name}]\ntype = "fake"\n{REAL}\n'
            f"faults = [{slow}{', ' + bad if name == 'b' else ''}]\n"
            for name in names
        )
    )

    document = json.loads(intercede("check", "--json", *names).stdout)

    assert [check["resource"] for check in document["checks"]] == names
    assert [check["exit_code"] for check in document["checks"]] == [0, 3, 0, 0]
    assert document["exit_code"] == 3


def test_a_resource_that_is_not_configured_stops_the_command_before_anything_is_done(
    intercede: Run,
) -> None:
    ended = intercede("check", "fake", "fakes")

    assert (ended.returncode, ended.stdout) == (2, "")
    assert "no resource 'fakes' in intercede.toml; did you mean 'fake'?" in ended.stderr


def test_a_wrong_table_is_the_first_step_and_the_other_resources_are_checked(
    intercede: Run, here: Path
) -> None:
    (here / "intercede.toml").write_text(
        f'[resources.a]\ntype = "fake"\nsped = 1.0\n[resources.b]\ntype = "fake"\n{REAL}\n'
    )

    ended = intercede("check", "--json")

    first, second = json.loads(ended.stdout)["checks"]
    assert ended.returncode == 2
    assert results({"steps": {step["step"]: step for step in first["steps"]}}) == {
        **dict.fromkeys(STEPS, "not reached"),
        "configuration": "failed",
    }
    assert first["steps"][0]["cause"]["error"]["candidates"] == ["speed"]
    assert second["exit_code"] == 0


@pytest.mark.parametrize("time", ["0", "-1", "x"])
def test_a_time_out_must_be_a_time(intercede: Run, time: str) -> None:
    assert intercede("check", "--timeout", time).returncode == 2


# ---------------------------------------------------------------- what people see


def test_people_see_a_table_and_beneath_it_what_failed_why_and_what_to_do(
    intercede: Run, configure: Configure
) -> None:
    configure(f"{REAL}\n{fault('submit', 'resource-error')}")

    ended = intercede("check", "fake")

    lines = ended.stdout.splitlines()
    assert lines[0].split() == ["resource", "step", "result", "time", "note"]
    assert [line.split()[1] for line in lines[1:15]] == STEPS
    assert lines[15:] == [
        "fake: submit failed: it refused the request",
        "  remedy: see what it said",
        "  it said: fake: error: not today",
    ]
    assert "intercede: fake: submit\n" in ended.stderr


def test_the_words_of_a_resource_cannot_steer_the_terminal(
    intercede: Run, configure: Configure
) -> None:
    words = ', message = "a\\u001b[2J"'
    configure(f"{REAL}\n{fault('submit', 'resource-error', words)}")

    shown = intercede("check", "fake").stdout

    assert "\x1b" not in shown
    assert "it said: a\\x1b[2J" in shown
