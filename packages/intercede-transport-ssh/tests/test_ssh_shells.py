"""Every byte through a real sshd and every login shell, however noisy its profile.

Each example is one command with many cases in it, so that thousands of cases take seconds.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stacks.sshd import Sshd

from intercede.core import Command, ResourceError, registry
from intercede.transport.ssh import SSHTransport

Opened = Callable[..., SSHTransport]

BOURNE = """\
echo "Welcome to this host"
printf 'no end of line'
echo oops >&2
alias ls='echo no'; alias sh='echo no'; alias exec='echo no'; alias dd='echo no'
set -e -o noclobber
umask 000
cd /
"""
CSH = """\
echo "Welcome to this host"
/bin/sh -c 'echo oops >&2'
alias ls 'echo no'
alias sh 'echo no'
alias dd 'echo no'
set noclobber
umask 000
cd /
"""
#: The account's own shell comes first; the others are what it becomes.
SHELLS = ["bash", "dash", "csh", "tcsh", "busybox sh", "ksh", "zsh"]
PRESENT = [shell for shell in SHELLS if shutil.which(shell.split()[0])]

BYTES = st.binary(max_size=30).map(lambda raw: raw.replace(b"\0", b""))
NAMES = BYTES.map(lambda raw: raw.replace(b"/", b"")).filter(
    lambda raw: raw not in (b"", b".", b"..")
)
CASES = st.lists(st.tuples(BYTES, BYTES, NAMES), min_size=50, max_size=60)

#: FOLDER [ARGUMENT VALUE NAME ...]: says each argument and each value of a variable, and makes a file of each name.
SCRIPT = r"""
cd "$1" || exit
shift
while [ $# -gt 2 ]; do
  printf '%s\0' "$1"
  CASE=$2 sh -c 'printf "%s\0" "$CASE"'
  : >"./$3"
  shift 3
done
"""


@pytest.fixture(scope="module", params=PRESENT)
def noisy(request: pytest.FixtureRequest) -> Iterator[Sshd]:
    """An sshd whose login shell is this one, with a profile that does what it can."""
    forced = f'ForceCommand exec {request.param} -c "$SSH_ORIGINAL_COMMAND"'
    with Sshd([forced]) as sshd:
        for name in (".bashrc", ".profile", ".zshenv", ".kshrc"):
            (sshd.home / name).write_text(BOURNE)
        (sshd.home / ".cshrc").write_text(CSH)
        yield sshd


def test_two_thousand_cases_arrive_byte_for_byte(noisy: Sshd, tmp_path: Path) -> None:
    loop = asyncio.new_event_loop()
    transport = registry.transport(noisy.config, noisy.credentials())
    count = 0

    @settings(
        max_examples=10,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(CASES)
    def check(cases: list[tuple[bytes, bytes, bytes]]) -> None:
        nonlocal count
        folder = tmp_path / str(count)
        folder.mkdir()
        words = [os.fsdecode(word) for case in cases for word in case]
        command = Command(["sh", "-c", SCRIPT, "cases", str(folder), *words])
        result = loop.run_until_complete(transport.run(command))
        said = result.stdout.split(b"\0")[:-1]
        assert said == [word for case in cases for word in case[:2]]
        assert result.stderr == b""
        assert {os.fsencode(path.name) for path in folder.iterdir()} == {case[2] for case in cases}
        count += len(cases)

    try:
        check()
    finally:
        loop.run_until_complete(transport.aclose())
        loop.close()
    assert count * len(PRESENT) >= 2000


async def test_the_profile_changes_nothing(noisy: Sshd, opened: Opened, tmp_path: Path) -> None:
    transport = opened(noisy)
    said = await transport.run(Command(["pwd"]))
    assert (said.stdout, said.stderr) == (os.fsencode(noisy.home) + b"\n", b"")
    said = await transport.run(Command(["sh", "-c", "false; echo x >&2; exit 3"]))
    assert (said.returncode, said.stdout, said.stderr) == (3, b"", b"x\n")
    file = tmp_path / "there"
    file.write_text("before")
    said = await transport.run(Command(["sh", "-c", 'echo after >"$1"', "sh", str(file)]))
    assert (said.returncode, file.read_text()) == (0, "after\n")
    await transport.put(file, str(tmp_path / "copy"))
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
    every = os.fsdecode(bytes(range(1, 256)))
    said = await transport.run(Command(["printf", "%s", every], stdin=b""))
    assert said.stdout == bytes(range(1, 256))


async def test_a_profile_that_prints_without_end_is_told(opened: Opened) -> None:
    with Sshd() as sshd:
        (sshd.home / ".bashrc").write_text("yes Welcome | head -c 100000000\n")
        (sshd.home / ".cshrc").write_text("yes Welcome | head -c 100000000\n")
        with pytest.raises(ResourceError, match="login profile prints without end") as caught:
            await opened(sshd).run(Command(["true"]))
    assert "Welcome" in caught.value.said


async def test_a_profile_that_prints_much_is_no_error(opened: Opened) -> None:
    with Sshd() as sshd:
        text = "yes Welcome | head -c 500000; yes oops | head -c 500000 >&2\n"
        (sshd.home / ".bashrc").write_text(text)
        said = await opened(sshd).run(Command(["echo", "well"]))
    assert (said.stdout, said.stderr) == (b"well\n", b"")
