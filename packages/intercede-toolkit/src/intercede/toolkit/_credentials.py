"""Where credentials come from, and how long they are good for.

Providers are the consumer's: `StaticCredentials` for what is at hand, `FileCredentials` for what somebody else keeps fresh in files. The
cache is a backend's: it asks its provider when what it has nears its end, once for any number of waiting tasks.

No secret appears in a message, and no message repeats what a file contains.
"""

from __future__ import annotations

import base64
import copy
import json
import math
import os
import stat
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

import anyio
import anyio.to_thread
from attrs import field, frozen

from intercede.core import (
    AuthenticationError,
    BearerToken,
    Credential,
    CredentialProvider,
    CredentialRequirements,
    CredentialSet,
    InterCEdeError,
    Password,
    SSHKey,
    X509Proxy,
)

from ._redaction import redact

__all__ = ["CredentialCache", "CredentialParser", "FileCredentials", "StaticCredentials"]

#: The longest proxy chains have some ten kilobytes.
_FILE_MAX: Final = 2**20
#: A file server that does not answer must not hold up everything else.
_READ_TIMEOUT_S: Final = 30.0
#: Changed this shortly before it was read, a file may change again without any of its times telling: they tick no faster.
_TICK_NS: Final = 2 * 10**9
_READ_ATTEMPTS: Final = 5

CredentialParser = Callable[[bytes], Credential]
"""What a file contains, as a credential. Raises ValueError, without repeating any of it, if it is something else."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class StaticCredentials:
    """Hands out what it was given, as long as it has not expired.

    Args:
        credentials: At most one of each kind.
        clock: What time it is, UTC.

    Raises:
        ValueError: Two are of the same kind.
    """

    def __init__(self, *credentials: Credential, clock: Callable[[], datetime] = _utc_now) -> None:
        self._credentials = CredentialSet(credentials)
        self._clock = clock

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    async def get(self, requirements: CredentialRequirements) -> CredentialSet:
        """The credentials required.

        Raises:
            AuthenticationError: One was not given, or has expired.
        """
        found = []
        for kind in _in_order(requirements):
            credential = self._credentials.get(kind)
            if credential is None:
                raise _lacking(kind, requirements, f"give StaticCredentials one {kind.__name__}")
            _refuse_expired(credential, requirements, self._clock(), "give a new one")
            found.append(credential)
        return CredentialSet(found)


class FileCredentials:
    """Reads each kind of credential from a file, again whenever the file has changed.

    A file must be ours, readable by nobody else, and at most 1 MiB; a link to such a file will do. What is known of its contents:

    - `BearerToken`: the token, with blanks around it; it expires when its `exp` claim says, if it is a JWT (nothing is verified).
    - `X509Proxy`: PEM with certificates and key. When it expires is not read: give a parser for that.
    - `SSHKey`: the private key, not encrypted.
    - `Password`: its first and only line.

    Args:
        files: By kind: the path, "~" meaning the home directory.
        parsers: By kind: what to make of the contents, instead of the above, or for kinds of a plugin's.
        clock: What time it is, UTC.

    Raises:
        ValueError: A kind of credential for which there is no parser.
    """

    def __init__(
        self,
        files: Mapping[type[Credential], str | os.PathLike[str]],
        *,
        parsers: Mapping[type[Credential], CredentialParser] | None = None,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        known = {**_PARSERS, **(parsers or {})}
        for kind in files:
            if kind not in known:
                raise ValueError(f"no parser for {kind.__name__}: give one in `parsers`")
        self._sources = {
            kind: _Source(Path(path).expanduser(), kind, known[kind])
            for kind, path in files.items()
        }
        self._clock = clock

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    async def get(self, requirements: CredentialRequirements) -> CredentialSet:
        """The credentials required, as their files are now.

        Raises:
            AuthenticationError: A file is missing, is not safe, does not hold what it should, or what it holds has expired; names it.
        """
        found = []
        for kind in _in_order(requirements):
            source = self._sources.get(kind)
            if source is None:
                remedy = f"give FileCredentials the path of a file for {kind.__name__}"
                raise _lacking(kind, requirements, remedy)
            credential = await self._read(source, requirements)
            remedy = f"renew {source.path}"
            _refuse_expired(credential, requirements, self._clock(), remedy)
            found.append(credential)
        return CredentialSet(found)

    async def _read(self, source: _Source, requirements: CredentialRequirements) -> Credential:
        try:
            with anyio.fail_after(_READ_TIMEOUT_S):
                return await anyio.to_thread.run_sync(source.read, abandon_on_cancel=True)
        except TimeoutError:
            error = AuthenticationError(
                f"{source.path} could not be read within {_READ_TIMEOUT_S:g} s",
                remedy="see whether its file system answers",
            )
        except AuthenticationError as unusable:
            error = unusable
        raise error.at(requirements.resource, "credentials") from None


@frozen
class _Identity:
    """Differs whenever the contents may. The time of change cannot be set back, the others can."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        return cls(
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )


@frozen
class _Reading:
    identity: _Identity
    read_ns: int
    credential: Credential = field(repr=False)

    def is_of(self, identity: _Identity) -> bool:
        return identity == self.identity and self.read_ns - identity.changed_ns > _TICK_NS


class _Source:
    """One file. Blocking; two threads at once at worst read it twice."""

    def __init__(self, path: Path, kind: type[Credential], parse: CredentialParser) -> None:
        self.path = path
        self._kind = kind
        self._parse = parse
        self._last: _Reading | None = None

    def read(self) -> Credential:
        try:
            return self._read()
        except OSError as error:
            raise AuthenticationError(
                f"{self._kind.__name__} from {self.path}: {error.strerror}",
                remedy="put a file there that only you can read",
            ) from None

    def _read(self) -> Credential:
        last = self._last
        if last is not None and last.is_of(_Identity.of(self.path.stat())):
            return last.credential
        identity, contents = self._contents()
        try:
            credential = self._parse(contents)
        except ValueError as error:
            # Python's own errors repeat what they were given, and a decoder's has all of it attached.
            reason = redact(str(error), [contents])
            raise self._unusable(reason, f"put a {self._kind.__name__} there") from None
        if type(credential) is not self._kind:
            kind = type(credential).__name__
            raise self._unusable(f"its parser made a {kind}", "give a parser that makes this kind")
        self._last = _Reading(identity, time.time_ns(), credential)
        return credential

    def _contents(self) -> tuple[_Identity, bytes]:
        for _ in range(_READ_ATTEMPTS):
            # Neither a FIFO nor a terminal may make us wait, or become ours.
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            descriptor = os.open(self.path, flags)
            try:
                before = os.fstat(descriptor)
                self._refuse_unsafe(before)
                contents = _read_all(descriptor, _FILE_MAX + 1)
                after = os.fstat(descriptor)
            finally:
                os.close(descriptor)
            if len(contents) > _FILE_MAX:
                raise self._unusable(f"it has more than {_FILE_MAX} bytes", "see what it is")
            identity = _Identity.of(before)
            if identity == _Identity.of(after) and len(contents) == after.st_size:
                return identity, contents
        raise self._unusable("it changes while it is read", "replace it by renaming a new file")

    def _refuse_unsafe(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise self._unusable("it is not a regular file", "put a file there")
        if status.st_uid != os.geteuid():
            raise self._unusable(
                f"it belongs to user {status.st_uid}, not to us ({os.geteuid()})",
                f"copy it to a file of your own, then chmod 600 {self.path}",
            )
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise self._unusable(
                f"it is open to others (mode {mode:04o})", f"chmod 600 {self.path}"
            )

    def _unusable(self, reason: str, remedy: str) -> AuthenticationError:
        return AuthenticationError(
            f"{self._kind.__name__} from {self.path}: {reason}", remedy=remedy
        )


def _read_all(descriptor: int, at_most: int) -> bytes:
    contents = bytearray()
    while len(contents) < at_most:
        piece = os.read(descriptor, at_most - len(contents))
        if not piece:
            break
        contents += piece
    return bytes(contents)


def _parse_token(contents: bytes) -> BearerToken:
    token = contents.strip()
    # RFC 6750, "b68token", and somewhat more: whatever an HTTP header can carry as one word.
    if not token or any(not 0x21 <= byte <= 0x7E for byte in token):
        raise ValueError("it is not one token")
    text = token.decode("ascii")
    return BearerToken(value=text, expires_at=_token_expiry(text))


def _token_expiry(token: str) -> datetime | None:
    """The `exp` claim of a JWT (RFC 7519), not verified; None if there is none to be had."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return None
    moment = claims.get("exp") if isinstance(claims, dict) else None
    if isinstance(moment, bool) or not isinstance(moment, (int, float)):
        return None
    try:
        if not math.isfinite(moment):
            return None
        return datetime.fromtimestamp(moment, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _parse_proxy(contents: bytes) -> X509Proxy:
    if b"-----BEGIN CERTIFICATE-----" not in contents or b" KEY-----" not in contents:
        raise ValueError("it has no certificate with a key in PEM form")
    return X509Proxy(pem=contents)


def _parse_key(contents: bytes) -> SSHKey:
    if b"PRIVATE KEY-----" not in contents:
        raise ValueError("it is not a private key in OpenSSH or PEM form")
    return SSHKey(private=contents)


def _parse_password(contents: bytes) -> Password:
    try:
        text = contents.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("it is not text") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text or "\n" in text or "\0" in text:
        raise ValueError("it is not one line")
    return Password(value=text)


_PARSERS: Final[Mapping[type[Credential], CredentialParser]] = {
    BearerToken: _parse_token,
    X509Proxy: _parse_proxy,
    SSHKey: _parse_key,
    Password: _parse_password,
}


class _Flight:
    """One question to the provider, under way; exactly one of the two is set when it has been answered, none if nobody waits for it."""

    def __init__(self) -> None:
        self.over = anyio.Event()
        self.answer: CredentialSet | None = None
        self.error: InterCEdeError | None = None


class CredentialCache:
    """A backend's credentials, kept until they near their end.

    The provider is asked in the task of the first who needs an answer; others wait for the same. If that first task is cancelled, the
    next one asks. So nothing runs between calls, and there is nothing to close.

    Credentials that live shorter than the margin are handed out nevertheless, and asked for anew each time.

    Args:
        provider: Whom to ask; None: nobody was given.
        requirements: What to ask for.
        margin_s: How many seconds before their end credentials are no longer handed out of the cache.
        timeout_s: How long the provider may take.
        clock: What time it is, UTC.
    """

    def __init__(
        self,
        provider: CredentialProvider | None,
        requirements: CredentialRequirements,
        *,
        margin_s: float = 300.0,
        timeout_s: float = 60.0,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._provider = provider
        self._requirements = requirements
        self._margin = timedelta(seconds=margin_s)
        self._timeout_s = timeout_s
        self._clock = clock
        self._kept: CredentialSet | None = None
        self._flight: _Flight | None = None

    async def get(self) -> CredentialSet:
        """The credentials required, out of the cache if they are fresh.

        Raises:
            AuthenticationError: One of the kinds cannot be had; names the kind and the remedy. It is not kept: the next call asks again.
            InterCEdeError: Whatever else of this kind the provider raises.
        """
        while True:
            if self._kept is not None and self._is_fresh(self._kept):
                return self._kept
            flight = self._flight
            if flight is None:
                return await self._ask()
            await flight.over.wait()
            if flight.answer is not None:
                return flight.answer
            if flight.error is not None:
                # An error collects the traceback of each task that raises it: each gets its own.
                raise copy.copy(flight.error) from flight.error

    def invalidate(self) -> None:
        """Forget what is kept, since the resource did not accept it; what is being asked for now is not kept either."""
        self._kept = None
        self._flight = None

    def _is_fresh(self, credentials: CredentialSet) -> bool:
        expires_at = credentials.expires_at
        return expires_at is None or self._clock() < expires_at - self._margin

    async def _ask(self) -> CredentialSet:
        flight = self._flight = _Flight()
        try:
            answer = flight.answer = await self._ask_provider()
            if self._flight is flight:
                self._kept = answer
            return answer
        except InterCEdeError as error:
            flight.error = error
            raise
        finally:
            if self._flight is flight:
                self._flight = None
            flight.over.set()

    async def _ask_provider(self) -> CredentialSet:
        requirements = self._requirements
        if not requirements.kinds:
            return CredentialSet()
        if self._provider is None:
            kind = _in_order(requirements)[0]
            raise _lacking(kind, requirements, "pass a credential provider to the registry")

        answer: CredentialSet | None = None
        try:
            with anyio.move_on_after(self._timeout_s):
                answer = await self._provider.get(requirements)
        except InterCEdeError:
            raise
        except Exception as error:
            raise AuthenticationError(
                f"the credential provider failed: {type(error).__name__}",
                resource=requirements.resource,
                operation="credentials",
                remedy="its own error is attached",
            ) from error
        if answer is None:
            raise AuthenticationError(
                f"the credential provider gave no answer within {self._timeout_s:g} s",
                resource=requirements.resource,
                operation="credentials",
                remedy="see what it waits for",
            )
        for kind in _in_order(requirements):
            credential = answer.get(kind)
            if credential is None:
                raise _lacking(kind, requirements, f"use a provider that has a {kind.__name__}")
            _refuse_expired(credential, requirements, self._clock(), "renew it")
        return answer


def _in_order(requirements: CredentialRequirements) -> list[type[Credential]]:
    """The kinds, in the same order every time, so that the same lack gives the same message."""
    return sorted(requirements.kinds, key=lambda kind: kind.__name__)


def _lacking(
    kind: type[Credential], requirements: CredentialRequirements, remedy: str
) -> AuthenticationError:
    return AuthenticationError(
        f"it needs credentials of the kind {kind.__name__}, and there are none",
        resource=requirements.resource,
        operation="credentials",
        remedy=remedy,
    )


def _refuse_expired(
    credential: Credential, requirements: CredentialRequirements, now: datetime, remedy: str
) -> None:
    if credential.expires_at is None or now < credential.expires_at:
        return
    raise AuthenticationError(
        f"the {type(credential).__name__} expired at {credential.expires_at:%Y-%m-%d %H:%M:%S} UTC",
        resource=requirements.resource,
        operation="credentials",
        remedy=remedy,
    )
