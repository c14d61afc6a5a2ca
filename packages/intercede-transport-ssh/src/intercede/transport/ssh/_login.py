"""Who we are to a host: one method, as configured, and never another.

asyncssh would by itself use the agent, the keys in ~/.ssh and every method that the server offers. Here it is given nothing; it asks the
`Greeter` of the connection, which offers what the provider gave, once.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any, Final

import anyio
import anyio.to_thread
import asyncssh
from attrs import field, frozen

from intercede.core import (
    AuthenticationError,
    Credential,
    CredentialProvider,
    CredentialRequirements,
    Password,
    SSHKey,
)
from intercede.toolkit import CredentialCache, redact

from ._trust import Trust

__all__ = ["Greeter", "Login", "Offer"]

#: What the provider is asked for, by method.
_KINDS: Final[dict[str, type[Credential]]] = {"key": SSHKey, "password": Password}
#: What the server is asked for, by method. A password is typed where the server wants it typed, once in all.
_METHODS: Final = {
    "key": ["publickey"],
    "agent": ["publickey"],
    "password": ["password", "keyboard-interactive"],
}
_BANNER_MAX: Final = 8192
#: What to do when we are not let in. sshd does not tell why, but its log does.
_KEY_REFUSED: Final = "see that the public key is in ~/.ssh/authorized_keys of that account, or what sshd's log there says of it"
_PASSWORD_REFUSED: Final = (
    "the password was refused",
    "see that account and password are right, or what sshd's log there says of it",
)
_NO_KEYS: Final = ("it takes no keys", 'set auth to "password", or allow keys in its sshd_config')
_NO_PASSWORDS: Final = (
    "it takes no password",
    'set auth to "key" or "agent", or allow passwords in its sshd_config',
)


@frozen
class Offer:
    """What a host is offered.

    Attributes:
        auth: The method, as configured.
        keys: For "key" and "agent".
        password: For "password".
        agent: What the keys of an agent need while they are used.
        secrets: What no message may repeat.
    """

    auth: str
    keys: Sequence[asyncssh.SSHKeyPair] = field(default=(), repr=False)
    password: str | None = field(default=None, repr=False)
    agent: asyncssh.SSHAgentClient | None = field(default=None, repr=False)
    secrets: tuple[str | bytes, ...] = field(default=(), repr=False)

    @property
    def methods(self) -> list[str]:
        """What the server is asked for."""
        return _METHODS[self.auth]

    def close(self) -> None:
        """Let go of the agent."""
        if self.agent is not None:
            self.agent.close()


class Login:
    """Gets what there is to offer.

    Args:
        auth: The method, as configured.
        account: Who we are where, for messages and for the provider.
        provider: Whom to ask.
    """

    def __init__(self, auth: str, account: str, provider: CredentialProvider | None) -> None:
        self._auth = auth
        self._account = account
        kinds = [_KINDS[auth]] if auth in _KINDS else []
        self._cache = CredentialCache(provider, CredentialRequirements(account, frozenset(kinds)))

    async def offer(self) -> Offer:
        """What to offer now.

        Raises:
            AuthenticationError: It cannot be had, or is of no use.
        """
        if self._auth == "agent":
            return await self._agents()
        try:
            credentials = await self._cache.get()
        except AuthenticationError as error:
            raise self._in_our_words(error) from error.__cause__
        password = credentials.get(Password)
        if password is not None:
            return Offer("password", password=password.value, secrets=(password.value,))
        key = credentials.get(SSHKey)
        assert key is not None  # the cache sees to it
        # A key with a passphrase takes long on purpose.
        pairs = await anyio.to_thread.run_sync(self._unlocked, key)
        secrets = (key.private, key.passphrase) if key.passphrase else (key.private,)
        return Offer("key", keys=pairs, secrets=secrets)

    def refused(self) -> bool:
        """A host did not accept it. True if the provider may have something newer."""
        self._cache.invalidate()
        return self._auth in _KINDS

    def _in_our_words(self, error: AuthenticationError) -> AuthenticationError:
        """To a provider the resource is the account; its own name, and what is being done, the backend fills in."""
        if error.resource != self._account:
            return error
        told = copy.copy(error)
        told.resource = told.operation = ""
        told.message = f"{self._account}: {error.message}"
        return told

    def _unlocked(self, key: SSHKey) -> Sequence[asyncssh.SSHKeyPair]:
        try:
            private = asyncssh.import_private_key(key.private, key.passphrase)
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            raise self._unusable(*_what_is_wrong(key, error)) from None
        if key.certificate is None:
            return asyncssh.load_keypairs(private)
        try:
            return asyncssh.load_keypairs([(private, key.certificate)])
        except (asyncssh.KeyImportError, ValueError):
            raise self._unusable(
                "its certificate is none, or of another key",
                "give the certificate that was made for this key, or none",
            ) from None

    def _unusable(self, reason: str, remedy: str) -> AuthenticationError:
        return AuthenticationError(
            f"{self._account}: the provider's SSHKey is of no use: {reason}", remedy=remedy
        )

    async def _agents(self) -> Offer:
        path = os.environ.get("SSH_AUTH_SOCK", "")
        if not path:
            raise self._no_agent("SSH_AUTH_SOCK is not set")
        try:
            agent = await asyncssh.connect_agent(path)
        except (OSError, asyncssh.Error) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise self._no_agent(f"nobody answers at SSH_AUTH_SOCK={path}: {reason}") from None
        try:
            keys = await agent.get_keys()
        except ValueError as error:
            agent.close()
            raise self._no_agent(f"the agent at {path} does not tell its keys: {error}") from None
        except BaseException:
            agent.close()
            raise
        if not keys:
            agent.close()
            raise AuthenticationError(
                f"{self._account}: the SSH agent at {path} has no keys",
                remedy="give it one (ssh-add)",
            )
        return Offer("agent", keys=keys, agent=agent)

    def _no_agent(self, reason: str) -> AuthenticationError:
        return AuthenticationError(
            f"{self._account}: there is no SSH agent: {reason}",
            remedy='start one (ssh-agent), or set auth to "key" or "password"',
        )


def _what_is_wrong(key: SSHKey, error: Exception) -> tuple[str, str]:
    """The reason and the remedy. asyncssh's own words are not repeated: whoever mistook a password for a key would find it there."""
    encrypted = isinstance(error, asyncssh.KeyEncryptionError)
    if encrypted and key.passphrase:
        return "its passphrase does not fit", "correct the passphrase"
    if encrypted or "assphrase" in str(error):
        return "it needs a passphrase", "give it with the key, or a key that needs none"
    return "it is no private key that asyncssh knows", "give one as ssh-keygen makes it"


def _described(pair: asyncssh.SSHKeyPair) -> str:
    """As ssh-keygen would name the key."""
    digest = base64.b64encode(hashlib.sha256(pair.public_data).digest()).decode().rstrip("=")
    return f"{pair.get_algorithm()} SHA256:{digest}"


class Greeter(asyncssh.SSHClient):
    """What asyncssh asks while it connects, and whom it tells that the connection is lost.

    Args:
        where: The host, for people.
        trust: Which keys it may show.
        offer: What it is offered.
        on_lost: Called once when the connection is over.
    """

    def __init__(self, where: str, trust: Trust, offer: Offer, on_lost: Callable[[], None]) -> None:
        self._where = where
        self._trust = trust
        self._offer = offer
        self._on_lost = on_lost
        self._offered = False
        self._expired = False
        self._shown: asyncssh.SSHKey | None = None
        self._address = ""
        self._banner = ""

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncssh."""
        self._on_lost()

    @property
    def methods(self) -> list[str]:
        """What the server is asked for."""
        return self._offer.methods

    # -------------------------------------------------------------- who they are

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        """Asked for keys that are not known: no."""
        self._shown, self._address = key, addr
        return False

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Likewise."""
        self._shown, self._address = key, addr
        return False

    def host_key_refused(self, reason: str) -> Exception:
        """The error."""
        return self._trust.refusal(self._where, self._shown, self._address, reason)

    # -------------------------------------------------------------- who we are

    def public_key_auth_requested(self) -> Sequence[asyncssh.SSHKeyPair] | None:
        """All keys, the first time."""
        return self._offer.keys if self._first_time() else None

    def password_auth_requested(self) -> str | None:
        """The password, the first time."""
        return self._offer.password if self._first_time() else None

    def kbdint_auth_requested(self) -> str | None:
        """Yes, if the password was not sent yet."""
        return None if self._offered or self._offer.password is None else ""

    def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]
    ) -> list[str] | None:
        """The password, to the one question that hides its answer."""
        if not prompts:
            return []
        [(_, shown), *more] = prompts
        if shown or more or self._offer.password is None or not self._first_time():
            return None
        return [self._offer.password]

    def password_change_requested(self, prompt: str, lang: str) -> Any:
        """No; but it tells what is wrong."""
        self._expired = True
        return NotImplemented

    def auth_banner_received(self, msg: str, lang: str) -> None:
        """What the host wants us to read before we are let in."""
        self._banner = (self._banner + msg)[:_BANNER_MAX]

    def _first_time(self) -> bool:
        first = not self._offered
        self._offered = True
        return first

    def login_refused(self, reason: str) -> AuthenticationError:
        """The error. Names the account and the method, and no secret."""
        offer = self._offer
        said = redact(f"{reason}\n{self._banner}", offer.secrets)
        if offer.auth == "password":
            what, remedy = _PASSWORD_REFUSED
            if self._expired:
                what, remedy = "the password has expired", "renew it there"
            if not self._offered:
                what, remedy = _NO_PASSWORDS
            return self._refused(what, remedy, said)
        whose = "the agent's keys were" if offer.auth == "agent" else "the key was"
        what = f"{whose} refused ({', '.join(map(_described, offer.keys))})"
        remedy = _KEY_REFUSED
        if not self._offered:
            what, remedy = _NO_KEYS
        return self._refused(what, remedy, said)

    def _refused(self, what: str, remedy: str, said: str) -> AuthenticationError:
        return AuthenticationError(f"{self._where}: {what}", refused=True, remedy=remedy, said=said)
