"""What another process is given: the configuration, and the means to make credentials."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from intercede.contract import Resource
from intercede.contract._bench import Bench
from intercede.core import CredentialProvider, Password
from intercede.toolkit import FileCredentials, StaticCredentials

CONFIG = {"type": "fake", "site": "other-process"}
ASKED = """
from intercede.core import CredentialRequirements, Password
found = await credentials.get(CredentialRequirements("r", frozenset({Password})))
print(found.get(Password).value, end="")
"""


async def said(
    credentials: Callable[[], CredentialProvider] | None, program: str, scratch: Path
) -> str:
    resource = Resource(config=CONFIG, other_process=True, credentials=credentials)
    async with Bench(resource, CONFIG, scratch) as bench:
        return await bench.in_another_process(program)


async def test_another_process_makes_a_provider_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("opensesame\n")
    file.chmod(0o600)
    credentials = partial(FileCredentials, {Password: file})
    assert await said(credentials, ASKED, tmp_path) == "opensesame"


async def test_without_credentials_it_has_none(tmp_path: Path) -> None:
    assert await said(None, "print(credentials)", tmp_path) == "None\n"


async def test_what_a_provider_is_made_of_is_in_nobodys_argv(tmp_path: Path) -> None:
    credentials = partial(StaticCredentials, Password(value="opensesame"))
    program = 'print("emasesnepo"[::-1] in Path("/proc/self/cmdline").read_text())'
    assert await said(credentials, program, tmp_path) == "False\n"


async def test_credentials_that_cannot_be_handed_on_are_not_observed(tmp_path: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match="credentials that another process can make"):
        await said(lambda: StaticCredentials(), "print()", tmp_path)  # noqa: PLW0108  # cannot be pickled
