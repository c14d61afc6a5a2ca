"""Staging and submitting, exactly once; and finding again what was submitted.

A submit is two execs. The first unpacks the sandbox under a name of its own and renames it when it is whole. The second claims the one
attempt and runs the scheduler's commands behind it; its session is opened while the first one still unpacks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import anyio
import anyio.to_thread
from attrs import evolve

from intercede.core import (
    Command,
    ConnectionLost,
    CopyVars,
    DryRun,
    Failure,
    JobHandle,
    OperationTimeout,
    ResourceError,
    SpecRefused,
    StagedBatch,
    Submission,
    SubmissionSpec,
    to_json,
)
from intercede.toolkit import (
    Script,
    new_submission,
    quote,
    runner_script,
    to_its_end,
)

from . import _sandbox as sandbox
from ._attempting import Attempt, clear_up
from ._attempts import make_handle, read_frames, read_natives
from ._host import Host, refused_root, shown
from ._staging import Source, collect_sources, generated_files, plain_unpack, tar_stream

__all__ = ["dry_run", "find", "submit"]

#: What the tools say where there is no room, in the C locale.
_FULL: Final = ("No space left", "quota exceeded")
#: How long a word of a dry run's command may be.
_WORD_SHOWN: Final = 300


async def _plan(
    host: Host, spec: SubmissionSpec, variants: Sequence[CopyVars]
) -> tuple[StagedBatch, Sequence[Command], list[Source], list[str]]:
    """Check everything that can be checked before anything is changed (S6); the commands are those that would submit."""
    _check_sandbox(spec, variants)
    sources, directories = await anyio.to_thread.run_sync(collect_sources, spec)
    _check_secrets(variants, spec, [source.name for source in sources], directories)
    await host.connect()
    batch = host.batch(new_submission(), spec, len(variants))
    try:
        commands = _checked(host, batch)
    except SpecRefused:
        if not await host.ask_again():
            raise
        commands = _checked(host, batch)
    return batch, commands, sources, directories


def _checked(host: Host, batch: StagedBatch) -> Sequence[Command]:
    """The commands that would submit; what depends on the number of copies is refused with them."""
    host.scheduler.check(batch.spec, host.facts)
    return host.scheduler.submit_commands(batch, host.facts)


async def submit(host: Host, spec: SubmissionSpec, variants: Sequence[CopyVars]) -> Submission:
    """Check, stage, submit; see `Submitter.submit`."""
    batch, commands, sources, directories = await _plan(host, spec, variants)
    files = _generated(host, batch, variants)
    end_mark = Script().nonce
    tarred = host.tar in sandbox.UNPACK_TAR
    stream = tar_stream(sources, directories, files, end_mark, tarred=tarred)
    unpack = sandbox.UNPACK_TAR.get(host.tar) or plain_unpack(sources, directories, files, end_mark)
    attempt = Attempt(host, batch, commands)
    # Not in a task group: with anyio 4.16 Ctrl-C may forget there that it has cancelled us (`Task.cancelling`).
    first = asyncio.ensure_future(attempt.begin())
    try:
        await _stage(host, batch, _told(stream, attempt.near), end_mark, unpack)
        attempt.staged()
        await asyncio.wait([first])
        first.result()
    except BaseException as error:
        first.cancel()
        if not attempt.is_staged:
            await clear_up(host, batch.submission)
            if isinstance(error, (ConnectionLost, OperationTimeout)):
                error.may_have_run = False  # what may have run is the staging
        raise
    finally:
        await to_its_end(asyncio.wait([first]))
    return await attempt.settle()


async def _told(
    stream: AsyncIterator[bytes], at_its_end: Callable[[], None]
) -> AsyncIterator[bytes]:
    """The stream, and who is told when all of it has been taken."""
    async for piece in stream:
        yield piece
    at_its_end()


async def dry_run(host: Host, spec: SubmissionSpec, variants: Sequence[CopyVars]) -> DryRun:
    """The same checks, and what would be sent."""
    batch, commands, sources, directories = await _plan(host, spec, variants)
    blanked = [evolve(variant, secrets=dict.fromkeys(variant.secrets, b"")) for variant in variants]
    files = _generated(host, batch, blanked)
    scripts = {
        sandbox.attempt_input(number): command.stdin
        for number, command in enumerate(commands)
        if command.stdin
    }
    return DryRun(
        command="\n".join(" ".join(_shown(word) for word in command.argv) for command in commands),
        files={name: content for name, (content, _) in files.items()} | scripts,
        details={
            "directory": batch.directory,
            "copies": str(len(variants)),
            "staged files": str(len(sources)),
            "staged directories": str(len(directories)),
            "staged bytes": str(sum(source.size for source in sources)),
        },
    )


async def find(host: Host, tag: str) -> tuple[JobHandle, ...]:
    """The jobs that submits with this tag made; see `Discoverable.find`."""
    await host.connect()
    script = host.script()
    script.add(sandbox.search_tag(host.name, tag))
    attempts = read_frames(await host.run(script))
    handles: list[JobHandle] = []
    for submission, copies in sorted(attempts.copies.items()):
        spec = attempts.specs.get(submission) or SubmissionSpec("unknown", tag=tag)
        batch = host.batch(submission, spec, attempts.totals.get(submission, 0))
        natives: Mapping[int, str | Failure] = {}
        if attempts.states.get(submission) == sandbox.ATTEMPT_DONE:
            # An answer that cannot be read leaves the jobs without native ids; a status learns more.
            with suppress(ResourceError):
                natives = read_natives(host, batch, attempts)
        for copy in sorted(copies):
            native = natives.get(copy)
            if not isinstance(native, Failure):
                handles.append(make_handle(host, batch, copy, native))
    return tuple(handles)


def _generated(
    host: Host, batch: StagedBatch, variants: Sequence[CopyVars]
) -> dict[str, tuple[bytes, int]]:
    spec = batch.spec
    meta = "\n".join(
        [
            f"{host.name} {len(variants)}",
            # The sign keeps an empty tag apart from none.
            "" if spec.tag is None else f"={spec.tag}",
            to_json(evolve(spec, inputs=())),
            "",
        ]
    )
    return generated_files(
        spec,
        variants,
        runner=runner_script(spec, directory=batch.directory, submission=batch.submission),
        meta=meta.encode("utf-8", "surrogateescape"),
        select=sandbox.select_function(spec, variants).encode("utf-8", "surrogateescape"),
    )


async def _stage(
    host: Host, batch: StagedBatch, stream: AsyncIterator[bytes], end_mark: str, unpack: str
) -> None:
    script = Script()
    script.add(sandbox.make_root(host.root))
    script.add(sandbox.stage(batch.submission, len(batch.copies), end_mark, unpack))
    command = script.command(timeout_s=host.config.transfer_timeout_s)
    answer = bytearray()
    async with host.transport.stream(command, stream) as process:
        async for chunk in process.stdout:
            answer += chunk
        result = await process.wait()
    frames = script.parse(bytes(answer))
    if "staged" in frames.lines:
        return
    for number, line in enumerate(frames.lines):
        if line.startswith("refused "):
            raise refused_root(line)
        if line.startswith("failed "):
            raise _not_staged(host, "\n".join([line[7:], *frames.lines[number + 1 :]]))
    raise ResourceError(
        "staging did not come to its end",
        said=shown(result.stderr),
    )


def _not_staged(host: Host, said: str) -> ResourceError:
    if any(words in said for words in _FULL):
        return ResourceError(
            f"the sandbox could not be made in {host.root}: its file system is full",
            said=said,
            remedy="make room there, or configure another root",
        )
    return ResourceError(
        f"the sandbox could not be made in {host.root}",
        said=said,
        remedy="see that it can be written",
    )


def _check_sandbox(spec: SubmissionSpec, variants: Sequence[CopyVars]) -> None:
    """Refuse what no batch system's sandbox can do (S6)."""
    for index, ref in enumerate(spec.inputs):
        if ref.url is not None:
            raise SpecRefused(
                f"inputs[{index}].url",
                f"{ref.url!r}: this resource fetches nothing by itself",
                remedy="give a source, or let the payload fetch it",
            )
    for index, member in enumerate(spec.outputs.members):
        if member.destination is not None:
            raise SpecRefused(
                f"outputs.members[{index}].destination",
                f"{member.destination!r}: this resource uploads nothing by itself",
                remedy="leave it out and fetch the output, or let the payload upload it",
            )


def _check_secrets(
    variants: Sequence[CopyVars],
    spec: SubmissionSpec,
    files: Iterable[str],
    directories: Iterable[str],
) -> None:
    """Refuse a secret in whose place, or on whose way, something else is staged."""
    if not any(variant.secrets for variant in variants):
        return
    names = {*files, *(ref.name for ref in spec.inputs if ref.content is not None)}
    taken = names | set(directories) | {parent for name in names for parent in _above(name)}
    for copy, variant in enumerate(variants):
        for secret in variant.secrets:
            if secret in taken or any(parent in names for parent in _above(secret)):
                raise SpecRefused(
                    f"copies[{copy}].secrets",
                    f"{secret!r} is in the way of an input or the executable",
                    remedy="give it another name",
                )


def _above(name: str) -> list[str]:
    """The directories on the way to a name."""
    parts = name.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def _shown(word: str) -> str:
    """A word of a command, for people: a program in an argument is not shown in full."""
    if len(word) <= _WORD_SHOWN:
        return quote(word)
    return f"'... ({len(word)} characters)'"
