"""A plugin is a configuration class and what makes an object of it; a provider is a class with one method."""

from collections.abc import Sequence
from typing import Self, assert_type

from attrs import field, frozen

from intercede.core import (
    BearerToken,
    BulkResult,
    CopyVars,
    CredentialProvider,
    CredentialRequirements,
    CredentialSet,
    JobBackend,
    JobID,
    StatusMap,
    Submission,
    SubmissionSpec,
    registry,
)


@frozen
class Config:
    url: str = field(metadata=registry.describe("Where it is"))


class Backend:
    def __init__(self, config: Config, name: str, credentials: CredentialProvider | None) -> None:
        self.config = config

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None: ...

    async def aclose(self) -> None: ...

    async def submit(
        self, spec: SubmissionSpec, copies: int | Sequence[CopyVars] = 1
    ) -> Submission:
        return Submission("s", [])

    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        return BulkResult({})


plugin = registry.BackendPlugin(Config, Backend)
as_the_contract_sees_it: JobBackend = Backend(Config("u"), "n", None)


class Provider:
    async def get(self, requirements: CredentialRequirements) -> CredentialSet:
        return CredentialSet([BearerToken(value="x")])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None: ...


async def ask(provider: CredentialProvider) -> None:
    found = await provider.get(CredentialRequirements("r", [BearerToken]))
    assert_type(found.get(BearerToken), BearerToken | None)


asking = ask(Provider())
