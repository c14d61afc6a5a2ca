"""Rules S1 to S9: what is submitted arrives as it was given, once, or is refused."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from intercede.core import (
    CopyVars,
    Discoverable,
    FailureCode,
    FileRef,
    InterCEdeError,
    JobHandle,
    JobStatus,
    LoadReporter,
    OutputMember,
    OutputSpec,
    Resources,
    SpecRefused,
    SubmissionSpec,
    SubmitUncertain,
    SupportsDryRun,
    from_json,
    to_json,
)

from ._bench import Bench, Rules
from ._payload import PAYLOAD
from ._status import ID_FORM
from ._verdict import not_observed, rule

__all__ = ["SubmitRules"]

#: What has come to harm on its way through a shell, a submit file or a template.
AWKWARD: Final = (
    "",
    " ",
    "a b",
    "-n",
    "--",
    "*",
    "~",
    "$HOME",
    "$(touch pwned)",
    "`touch pwned`",
    "a'b",
    'a"b',
    "a\\b\\",
    "\\n",
    "%s%n",
    "!!",
    "a;b|c&d>e<f",
    "line\nbreak",
    "ends\n",
    "\n",
    "\t",
    "\r\n",
    "#",
    "=",
    "x=y",
    "{a,b}",
    "ünï-çødé ☃",
    "EOF",
    "'",
    '"',
    "\\",
    "a,b",
    "$$(x)",
    "@copy@",
    os.fsdecode(bytes(range(1, 256))),
)
#: As above, without what no file system takes, or the contract refuses.
AWKWARD_NAMES: Final = (
    "a b",
    "-n",
    "--",
    "*",
    "~",
    "$HOME",
    "$(touch pwned)",
    "a'b",
    'a"b',
    "a\\b",
    "line\nbreak",
    "ends\n",
    "#",
    "ünï-çødé ☃",
    ".hidden",
    "[x]",
    "...",
    "deep/er/-still",
    os.fsdecode(b"\xff\xfe"),
    "x" * 255,
)


def _refusals() -> dict[str, Callable[[Bench], SubmissionSpec]]:
    """By the field that must be named: specifications that this resource cannot honour."""

    def resources(name: str) -> Callable[[Bench], SubmissionSpec]:
        return lambda bench: bench.spec(
            resources=Resources(**{name: bench.resource.absurd[name]})  # type: ignore[arg-type]  # the table's types are those of the field
        )

    found: dict[str, Callable[[Bench], SubmissionSpec]] = {
        f"resources.{name}": resources(name)
        for name in ("cpus", "memory_mb", "nodes", "gpus", "queue")
    }
    found["executable missing"] = lambda bench: bench.spec(executable=bench.scratch / "absent.sh")
    found["executable a directory"] = lambda bench: bench.spec(executable=bench.scratch)
    found["inputs missing"] = lambda bench: bench.spec(
        inputs=[FileRef("here", content=b""), FileRef("x", source=str(bench.scratch / "absent"))]
    )
    found["inputs a FIFO"] = lambda bench: bench.spec(inputs=[FileRef("x", source=_fifo(bench))])
    found["inputs url"] = lambda bench: bench.spec(
        inputs=[FileRef("x", url="https://data.example.org/x")]
    )
    found["outputs destination"] = lambda bench: bench.spec(
        outputs=OutputSpec([OutputMember("x", "https://data.example.org/x")])
    )
    found["container"] = lambda bench: bench.spec(container="docker://example.org/absent:1")
    return found


def _fifo(bench: Bench) -> str:
    path = bench.scratch / "fifo"
    if not path.exists():
        os.mkfifo(path)
    return str(path)


_REFUSALS: Final = _refusals()


class SubmitRules(Rules):
    """S: submit."""

    # -------------------------------------------------------------- S1, S2

    @rule("S1")
    async def test_every_copy_has_one_handle_in_order(self, bench: Bench) -> None:
        before = datetime.now(UTC)
        submission = await bench.submit(bench.spec(), 12)
        assert submission.failures == {}
        assert [handle.copy for handle in submission.handles] == list(range(12))
        assert len({handle.id for handle in submission.handles}) == 12
        assert {handle.submission for handle in submission.handles} == {submission.id}
        assert {handle.tag for handle in submission.handles} == {bench.tag}
        for handle in submission.handles:
            resource, own, copy, *_ = handle.id.split("/")
            assert (resource, own, copy) == (handle.resource, submission.id, str(handle.copy))
            assert ID_FORM.fullmatch(handle.id) and len(handle.id) <= 255
            # A fake's clock runs ahead; any other may be wrong by an hour.
            ahead = abs(handle.submitted_at - before)
            assert ahead < timedelta(hours=1) * max(bench.resource.clock, 1)

    @rule("S1")
    async def test_two_submits_never_share_a_submission(self, bench: Bench) -> None:
        first, second = await asyncio.gather(bench.submit(bench.spec()), bench.submit(bench.spec()))
        assert first.id != second.id

    @rule("S1", "S4")
    async def test_each_copy_gets_its_own_variables(self, bench: Bench) -> None:
        ids = await bench.finish(
            "env", "NUMBER", "env", "SHARED", "env", "NOWHERE",
            copies=[CopyVars({"NUMBER": str(number), **({"SHARED": "mine"} if number == 2 else {})}) for number in range(4)],
            environment={"SHARED": "all", "NUMBER": "none"},
        )  # fmt: skip
        outputs = await bench.fetch(ids)
        texts = [_stdout(outputs[job].stdout) for job in ids]
        assert texts == [
            f"={number}\0={'mine' if number == 2 else 'all'}\0unset\0".encode()
            for number in range(4)
        ]

    @rule("S2")
    async def test_handles_survive_json(self, bench: Bench) -> None:
        submission = await bench.submit(bench.spec(), 2)
        for handle in submission.handles:
            assert from_json(JobHandle, to_json(handle)) == handle

    @rule("S2")
    async def test_another_backend_that_knows_only_the_ids_can_poll_and_fetch(
        self, bench: Bench
    ) -> None:
        ids = await bench.start("echo", "same", copies=2)
        other = await bench.opened()
        seen = await bench.until(ids, JobStatus.SUCCESSFUL, backend=other)
        assert len(seen) == 2

    @rule("S2")
    async def test_another_process_that_knows_only_the_ids_can_poll_and_fetch(
        self, bench: Bench
    ) -> None:
        ids = await bench.finish("echo", "from afar", copies=2)
        program = """
seen = await backend.status(argv[1:])
print(json.dumps(list(seen.values())))
if isinstance(backend, OutputRetriever):
    done = await backend.fetch_output(argv[1:], Path(argv[0]))
    print(json.dumps([output.stdout.read_text() for output in done.values()]))
"""
        said = await bench.in_another_process(program, str(bench.scratch / "afar"), *ids)
        statuses, *texts = [json.loads(line) for line in said.splitlines()]
        assert statuses == ["successful", "successful"]
        assert texts in ([], [["from afar\n", "from afar\n"]])

    @rule("S2", "S7")
    async def test_another_process_finds_and_clears_by_tag_alone(self, bench: Bench) -> None:
        _ = bench.finder, bench.cancellable, bench.purger
        ids = await bench.start("sleep", bench.forever, copies=2)
        program = """
ids = [handle.id for handle in await backend.find(argv[0])]
(await backend.kill(ids)).raise_for_failures()
(await backend.purge(ids)).raise_for_failures()
print(json.dumps(ids))
"""
        said = json.loads(await bench.in_another_process(program, bench.tag))
        assert sorted(said) == sorted(ids)
        assert set((await bench.backend.status(ids)).values()) == {JobStatus.UNKNOWN}

    # -------------------------------------------------------------- S3

    @rule("S3")
    async def test_the_caller_may_delete_every_input_when_submit_returns(
        self, bench: Bench
    ) -> None:
        mine = bench.scratch / "mine"
        (mine / "tree/deep").mkdir(parents=True)
        shutil.copy(PAYLOAD, mine / "payload.sh")
        (mine / "file").write_bytes(b"file\n")
        (mine / "tree/deep/leaf").write_bytes(b"leaf\n")
        ids = await bench.start(
            "sleep", bench.a_while, "cat", "file", "cat", "t/deep/leaf", "cat", "given",
            copies=3,
            executable=mine / "payload.sh",
            inputs=[
                FileRef("file", source=str(mine / "file")),
                FileRef("t", source=str(mine / "tree")),
                FileRef("given", content=b"given\n"),
            ],
        )  # fmt: skip
        shutil.rmtree(mine)
        await bench.until(ids, JobStatus.SUCCESSFUL)
        for output in (await bench.fetch(ids)).values():
            assert _stdout(output.stdout) == b"file\nleaf\ngiven\n"

    @rule("S3")
    async def test_inputs_that_change_after_submit_arrive_as_they_were(self, bench: Bench) -> None:
        mine = bench.scratch / "input"
        mine.write_bytes(b"before")
        job = await bench.start_one(
            "sleep", bench.a_while, "cat", "input", inputs=[FileRef("input", source=str(mine))]
        )
        mine.write_bytes(b"after!")
        await bench.until([job], JobStatus.SUCCESSFUL)
        assert _stdout((await bench.fetch_one(job)).stdout) == b"before"

    # -------------------------------------------------------------- S4

    @rule("S4")
    async def test_arguments_arrive_byte_for_byte(self, bench: Bench) -> None:
        said = await bench.stdout_of("args", *AWKWARD)
        assert said.split(b"\0") == [*map(os.fsencode, AWKWARD), b""]

    @rule("S4")
    async def test_long_and_many_arguments_arrive(self, bench: Bench) -> None:
        arguments = ["x" * 100_000, *map(str, range(2_000))]
        said = await bench.stdout_of("args", *arguments)
        assert said == b"".join(os.fsencode(argument) + b"\0" for argument in arguments)

    @rule("S4")
    async def test_environment_values_arrive_byte_for_byte(self, bench: Bench) -> None:
        values = {f"V{number}": value for number, value in enumerate(AWKWARD)}
        verbs = [word for name in values for word in ("env", name)]
        said = await bench.stdout_of(*verbs, environment=values)
        assert said.split(b"\0") == [*(b"=" + os.fsencode(v) for v in AWKWARD), b""]

    @rule("S4")
    async def test_the_environment_of_a_copy_arrives_byte_for_byte(self, bench: Bench) -> None:
        copies = [CopyVars({"VALUE": value}) for value in AWKWARD[-4:]]
        ids = await bench.finish("env", "VALUE", copies=copies)
        outputs = await bench.fetch(ids)
        assert [_stdout(outputs[job].stdout) for job in ids] == [
            b"=" + os.fsencode(value) + b"\0" for value in AWKWARD[-4:]
        ]

    @rule("S4")
    async def test_names_of_inputs_arrive_byte_for_byte(self, bench: Bench) -> None:
        inputs = [
            FileRef(name, content=f"<{number}>".encode())
            for number, name in enumerate(AWKWARD_NAMES)
        ]
        verbs = [word for name in AWKWARD_NAMES for word in ("cat", name)]
        said = await bench.stdout_of(*verbs, inputs=inputs)
        assert said == b"".join(f"<{number}>".encode() for number in range(len(inputs)))

    @rule("S4")
    async def test_an_input_directory_arrives_whole(self, bench: Bench) -> None:
        tree = bench.scratch / "tree"
        (tree / "empty").mkdir(parents=True)
        (tree / "a/b").mkdir(parents=True)
        (tree / "a/b/c").write_bytes(bytes(range(256)))
        (tree / "-x y\n").write_bytes(b"odd")
        said = await bench.stdout_of(
            "cat", "t/-x y\n", "cat", "t/a/b/c", "ls", inputs=[FileRef("t", source=str(tree))]
        )
        assert said.startswith(b"odd" + bytes(range(256)))
        assert b"\nt/empty\n" in said

    @rule("S4")
    async def test_an_input_keeps_or_gets_its_execute_bit(self, bench: Bench) -> None:
        tool = bench.scratch / "tool"
        tool.write_bytes(b"#!/bin/sh\n")
        said = await bench.stdout_of(
            "mode", "plain", "mode", "tool", "mode", "made",
            inputs=[
                FileRef("plain", content=b""),
                FileRef("tool", source=str(tool), executable=True),
                FileRef("made", content=b"", executable=True),
            ],
        )  # fmt: skip
        plain, tool_mode, made = (int(line, 8) for line in said.split())
        assert (bool(plain & 0o100), bool(tool_mode & 0o100), bool(made & 0o100)) == (
            False,
            True,
            True,
        )

    @rule("S4")
    @pytest.mark.parametrize("name", ["-a b'$(exit 9)\".sh", "ünï\n☃", "$HOME", "%s"])
    async def test_an_executable_of_any_name_runs(self, bench: Bench, name: str) -> None:
        place = bench.scratch / name
        shutil.copy(PAYLOAD, place)
        job = await bench.finish_one(executable=place)
        assert (await bench.backend.status([job]))[job] == JobStatus.SUCCESSFUL

    @rule("S4")
    async def test_an_executable_without_execute_bit_runs(self, bench: Bench) -> None:
        place = bench.scratch / "payload.sh"
        shutil.copyfile(PAYLOAD, place)
        assert await bench.stdout_of("echo", "ran", executable=place) == b"ran\n"

    # -------------------------------------------------------------- S5

    @rule("S5")
    async def test_a_secret_is_a_private_file_of_its_own_copy(self, bench: Bench) -> None:
        secrets = [bytes([number]) + bytes(range(256)) for number in range(3)]
        ids = await bench.finish(
            "mode", "key", "mode", "sub/a key", "cat", "key",
            copies=[CopyVars(secrets={"key": secret, "sub/a key": b""}) for secret in secrets],
        )  # fmt: skip
        outputs = await bench.fetch(ids)
        for job, secret in zip(ids, secrets, strict=True):
            assert _stdout(outputs[job].stdout) == b"600\n600\n" + secret

    @rule("S5", "E2")
    async def test_a_secret_shows_in_no_handle_status_or_dry_run(self, bench: Bench) -> None:
        secret = f"s3cr3t{os.urandom(8).hex()}"
        copies = [CopyVars(secrets={"key": secret.encode()})]
        spec = bench.spec()
        submission = await bench.submit(spec, copies)
        ids = [handle.id for handle in submission.handles]
        await bench.until(ids)
        shown: list[object] = [submission, to_json(submission), copies]
        shown.append(await bench.backend.status(ids))
        if isinstance(bench.backend, SupportsDryRun):
            rehearsal = await bench.backend.dry_run(spec, copies)
            shown += [rehearsal, *rehearsal.files.values()]
        assert [item for item in shown if secret in repr(item)] == []

    @rule("S5", "E2")
    async def test_a_secret_passes_through_no_argv_environment_or_open_file_and_stays_in_none(
        self, bench: Bench
    ) -> None:
        probe = bench.probe
        secret = f"s3cr3t{os.urandom(8).hex()}"
        public = f"public-{os.urandom(8).hex()}"
        seen: set[str] = set()
        sees: set[str] = set()
        done = asyncio.Event()

        async def watch() -> None:
            while not done.is_set():
                seen.update(await probe.exposed(secret.encode()))
                sees.update(sees or await probe.exposed(public.encode()))
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        try:
            copies = [CopyVars(secrets={"key": secret.encode()})]
            shown = {"CONTRACT_PUBLIC": public}
            verbs = ("sleep", bench.a_while, "cat", "key")
            ids = await bench.start(*verbs, copies=copies, environment=shown)
            await bench.until(ids, JobStatus.SUCCESSFUL)
        finally:
            done.set()
            await watching
        seen.update(await probe.exposed(secret.encode()))
        assert seen == set()
        if not sees:
            not_observed("a probe that sees the environment of a running job (Probe.exposed)")

    # -------------------------------------------------------------- S6, S8

    @rule("S6")
    @pytest.mark.parametrize("what", _REFUSALS)
    async def test_what_cannot_be_honoured_is_refused_and_nothing_is_sent(
        self, bench: Bench, what: str
    ) -> None:
        field = what.split()[0]
        honoured = {"inputs url": "url", "outputs destination": "destination"}.get(what, what)
        if honoured in bench.resource.honours:
            not_observed("something this resource cannot do; it honours this")
        if field.startswith("resources.") and field[10:] not in bench.resource.absurd:
            not_observed(f"a value of {field} that it must refuse (Resource.absurd)")
        alone = await bench.renamed()
        spec = _REFUSALS[what](alone)
        with pytest.raises(SpecRefused) as caught:
            await alone.submit(spec, 2)
        assert caught.value.field.startswith(field), caught.value.field
        await _nothing_is_left(alone, caught.value)

    @rule("S6")
    async def test_no_copies_are_refused(self, bench: Bench) -> None:
        alone = await bench.renamed()
        none: list[int | list[CopyVars]] = [0, -1, []]
        for copies in none:
            with pytest.raises(SpecRefused) as caught:
                await alone.submit(alone.spec(), copies)
            assert caught.value.field == "copies"
        await _nothing_is_left(alone, caught.value)

    @rule("S6")
    async def test_a_dry_run_refuses_what_submit_refuses(self, bench: Bench) -> None:
        rehearser = bench.rehearser
        for what in ("executable missing", "inputs missing"):
            with pytest.raises(SpecRefused) as caught:
                await rehearser.dry_run(_REFUSALS[what](bench))
            assert caught.value.field.startswith(what.split()[0])

    @rule("S6")
    async def test_a_dry_run_changes_nothing(self, bench: Bench) -> None:
        alone = await bench.renamed()
        rehearsal = await alone.rehearser.dry_run(alone.spec("echo", "x"), 3)
        assert rehearsal.command or rehearsal.files
        await _nothing_is_left(alone, None)

    @rule("S8")
    async def test_a_secret_cannot_take_the_place_of_an_input_or_the_executable(
        self, bench: Bench
    ) -> None:
        alone = await bench.renamed()
        spec = alone.spec(inputs=[FileRef("given", content=b"given")])
        for name in ("given", "payload.sh", "given/below"):
            with pytest.raises(SpecRefused) as caught:
                await alone.submit(spec, [CopyVars(secrets={name: b"forged"})])
            await _nothing_is_left(alone, caught.value)

    @rule("S8")
    async def test_an_input_link_that_leads_out_does_not_carry_a_later_input_out(
        self, bench: Bench
    ) -> None:
        tree = bench.scratch / "tree"
        outside = bench.scratch / "outside"
        tree.mkdir()
        outside.mkdir()
        (tree / "link").symlink_to(outside)
        try:
            job = await bench.finish_one(
                "write", "t/link/x", "forged", inputs=[FileRef("t", source=str(tree))]
            )
        except SpecRefused as refused:
            assert refused.field.startswith("inputs")
        else:
            assert (await bench.backend.status([job]))[job].is_finished
        assert list(outside.iterdir()) == []

    # -------------------------------------------------------------- S7

    @rule("S7")
    async def test_find_returns_exactly_what_this_tag_submitted(self, bench: Bench) -> None:
        finder = bench.finder
        mine = await bench.start(copies=3)
        mine += await bench.start(copies=2)
        for other in (f"{bench.tag}x", f"x{bench.tag}", bench.tag[:-1], bench.tag.upper()):
            await bench.start(tag=other)
        await bench.start(tag=None)
        found = await finder.find(bench.tag)
        assert sorted(handle.id for handle in found) == sorted(mine)
        assert sorted(found, key=lambda handle: handle.id) == sorted(
            map(bench.handle, mine), key=lambda handle: handle.id
        )

    @rule("S7")
    async def test_find_takes_a_tag_by_the_letter(self, bench: Bench) -> None:
        finder = bench.finder
        odd = ["a b", "a  b", "*", "?", "a'b\"", "$(id)", "..", "a/b", "ünï☃", "%", "-x", "\\n"]
        tags = [f"{bench.tag}{text}" for text in odd]
        tags += [f"{text}{bench.tag}" for text in odd]
        tags += [f" {bench.tag} ", bench.tag + "x" * (255 - len(bench.tag))]
        submitted = {}
        for tag in tags:
            submitted[tag] = (await bench.submit(bench.spec(tag=tag))).handles
        for tag, handles in submitted.items():
            assert [found.id for found in await finder.find(tag)] == [h.id for h in handles], tag

    @rule("S7")
    async def test_find_also_returns_finished_jobs_until_they_are_purged(
        self, bench: Bench
    ) -> None:
        finder, purger = bench.finder, bench.purger
        kept, purged = await bench.finish(copies=2)
        (await purger.purge([purged])).raise_for_failures()
        assert [handle.id for handle in await finder.find(bench.tag)] == [kept]

    @rule("S7")
    async def test_find_of_an_unknown_tag_is_empty(self, bench: Bench) -> None:
        finder = bench.finder
        await bench.start()
        for tag in (f"{bench.tag}-nobody", "*", "x" * 255, "$(id)", "../.."):
            assert await finder.find(tag) == ()

    @rule("S7")
    async def test_another_resource_name_finds_nothing_of_ours(self, bench: Bench) -> None:
        await bench.start()
        other = await bench.renamed()
        assert await other.finder.find(bench.tag) == ()

    @rule("S7")
    async def test_find_returns_what_was_staged_and_never_submitted(self, bench: Bench) -> None:
        finder = bench.finder
        spec = bench.spec("sleep", bench.forever)
        try:
            async with bench.faults.lost_after_staging(bench.config) as lossy:
                with pytest.raises(InterCEdeError):
                    await lossy.submit(spec, 2)
        except LookupError as lacking:
            not_observed(f"a connection that breaks after staging ({lacking})")
        found = await finder.find(bench.tag)
        bench.adopt(found)
        assert [handle.copy for handle in found] == [0, 1]
        seen = await bench.backend.status([handle.id for handle in found])
        assert {failure.code for failure in seen.failures.values()} <= {FailureCode.NOT_NOW}

    # -------------------------------------------------------------- S9

    @rule("S9")
    async def test_a_submit_whose_answer_is_lost_is_not_sent_again(self, bench: Bench) -> None:
        alone = await bench.renamed()
        finder = alone.finder
        spec = alone.spec("sleep", alone.forever)
        try:
            async with alone.faults.submit_answer_lost(alone.config) as lossy:
                submission = await alone.submit(spec, 2, backend=lossy)
                handles = submission.handles
        except SubmitUncertain as uncertain:
            handles = uncertain.handles
        except LookupError as lacking:
            not_observed(f"a submit whose answer is lost ({lacking})")
        alone.adopt(handles)
        assert [handle.copy for handle in handles] == [0, 1]
        ids = [handle.id for handle in handles]
        assert sorted(handle.id for handle in await finder.find(alone.tag)) == sorted(ids)
        assert not {JobStatus.UNKNOWN} & set((await alone.backend.status(ids)).values())
        if isinstance(alone.backend, LoadReporter):
            counts = await alone.backend.counts()
            assert counts.running + counts.waiting == 2

    @rule("S9")
    async def test_each_copy_runs_once(self, bench: Bench) -> None:
        probe = bench.probe
        mark = f"once-{os.urandom(8).hex()}"
        ids = await bench.start(
            "sleep", bench.forever, copies=2, environment={"CONTRACT_ONCE": mark}
        )
        await bench.until(ids, JobStatus.RUNNING)
        most = 0
        until = asyncio.get_running_loop().time() + bench.resource.patience_s
        for _ in range(5):
            while True:
                sleeping = [line for line in await probe.processes(mark) if ": sleep " in line]
                assert len(sleeping) <= 2, sleeping
                most = max(most, len(sleeping))
                if most == 2 or asyncio.get_running_loop().time() > until:
                    break
                await asyncio.sleep(bench.resource.poll_s)
            await bench.backend.status(ids)
        if most < 2:
            not_observed("a probe that sees the processes of running jobs (Probe.processes)")


def _stdout(path: Path | None) -> bytes:
    assert path is not None
    return path.read_bytes()


async def _nothing_is_left(alone: Bench, error: InterCEdeError | None) -> None:
    """Nothing by its tag, nothing counted; and the refusal says where, and what to do."""
    if isinstance(alone.backend, Discoverable):
        assert await alone.backend.find(alone.tag) == ()
    if isinstance(alone.backend, LoadReporter):
        counts = await alone.backend.counts()
        assert (counts.running, counts.waiting) == (0, 0)
    if error is not None:
        assert str(error)
