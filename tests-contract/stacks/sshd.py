"""This machine's own OpenSSH server, for tests: on a free port of 127.0.0.1, with keys made for the occasion.

It serves the account that runs the tests and no other, as root or not, and keeps all of its files in one temporary folder. What a test
does to it (stop, freeze, cut) reaches every process that serves a connection, and never the machine's other sshds.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from intercede.core import SSHKey
from intercede.toolkit import StaticCredentials

__all__ = ["Sshd", "free_port"]

#: What every sshd of ours is told; a test's own lines come first, and in sshd_config(5) the first word counts.
_LINES: Final = """\
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
PrintMotd no
UseDNS no
MaxStartups 200
LogLevel VERBOSE
"""
_READY_S: Final = 20.0
_PAUSE_S: Final = 0.01
#: The environment of the tests must not decide what a command over SSH finds.
_ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


class Sshd:
    """An sshd, to be used in `with`, or started and stopped by hand.

    Args:
        lines: Further lines of sshd_config(5), which win over ours, as in `["MaxSessions 1"]`.
        sftp: Whether it has the SFTP subsystem.

    Attributes:
        folder: Where its files are: `host_key`, `user_key`, `known_hosts`, `authorized_keys`, `log`, with `.pub` beside the keys.
        home: What its sessions have as HOME, with a blank in its name: no profile of the account is read, unless a test writes one there.
        port: Where it listens, also after a restart.
        user: Whom it lets in.
    """

    def __init__(self, lines: Sequence[str] = (), *, sftp: bool = True) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="intercede-sshd-"))
        self.home = self.folder / "home of tests"
        self.home.mkdir(mode=0o700)
        self.port = free_port()
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self._lines = [*lines, *(["Subsystem sftp internal-sftp"] if sftp else [])]
        self._daemon: subprocess.Popen[bytes] | None = None
        self._frozen: set[int] = set()
        #: Everything that ever descended from it and was seen, by when it started: what is left of it goes at the end.
        self._seen: dict[int, str] = {}
        for name in ("host_key", "user_key"):
            self.make_key(name)
        shutil.copy(self.folder / "user_key.pub", self.folder / "authorized_keys")
        self.know()

    # -------------------------------------------------------------- for clients

    @property
    def config(self) -> dict[str, Any]:
        """What `registry.transport` is given."""
        return {
            "type": "ssh",
            "host": "127.0.0.1",
            "port": self.port,
            "user": self.user,
            "known_hosts": str(self.folder / "known_hosts"),
        }

    def credentials(self) -> StaticCredentials:
        """A provider that has the key."""
        return StaticCredentials(SSHKey(private=(self.folder / "user_key").read_bytes()))

    @property
    def host_key(self) -> str:
        """Its public key, as a line of known_hosts has it after the names."""
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    @property
    def log(self) -> str:
        """What it logged."""
        with suppress(FileNotFoundError):
            return (self.folder / "log").read_text(errors="replace")
        return ""

    # -------------------------------------------------------------- its files

    def make_key(self, name: str, *, kind: str = "ed25519", passphrase: str = "") -> Path:
        """Make a pair of keys in its folder, instead of one of that name. A new host key counts from the next start."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", name, "-f", str(path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return path

    def know(self) -> None:
        """Write `known_hosts` anew, for the present host key."""
        line = f"[127.0.0.1]:{self.port} {self.host_key}\n"
        (self.folder / "known_hosts").write_text(line)

    # -------------------------------------------------------------- its life

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def start(self) -> None:
        """Start it and wait until it answers."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # its compiled-in place for nothing
        folder = self.folder
        config = folder / "sshd_config"
        config.write_text(
            "\n".join(self._lines)
            + f"\n{_LINES}Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nPidFile none\n"
            f'SetEnv "HOME={self.home}"\n'
        )
        command = [_sshd(), "-D", "-f", str(config), "-E", str(folder / "log")]
        self._daemon = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=_ENVIRONMENT,
        )
        self._await_banner()

    def stop(self) -> None:
        """End the daemon and every connection, as a host that goes down; commands may live on until `close`."""
        self.thaw()
        if self._daemon is None:
            return
        # Stopped first, so that there are no more connections; killed it would not be their parent any more.
        self._daemon.send_signal(signal.SIGSTOP)
        connections = self.connections
        self._daemon.kill()
        self._daemon.wait()
        for pid in connections:
            _send(pid, signal.SIGKILL)
        _wait(lambda: not any(map(_name, connections)))
        self._daemon = None

    def restart(self) -> None:
        """`stop` and `start`, on the same port, with the same keys."""
        self.stop()
        self.start()

    def cut(self) -> None:
        """End every connection; the daemon and the commands live on."""
        connections = self.connections
        for pid in connections:
            _send(pid, signal.SIGKILL)
        _wait(lambda: not any(map(_name, connections)))

    def freeze(self) -> None:
        """SIGSTOP for the daemon and everything beneath it: connections are accepted by the kernel, and nobody answers."""
        while more := self._descendants() - self._frozen:
            for pid in more:
                _send(pid, signal.SIGSTOP)
            self._frozen |= more

    def thaw(self) -> None:
        """SIGCONT for what was frozen."""
        for pid in self._frozen:
            _send(pid, signal.SIGCONT)
        self._frozen.clear()

    def close(self) -> None:
        """End it with all it ever started, as far as it was seen, and remove its folder."""
        self._descendants()
        self.stop()
        for pid, start in self._seen.items():
            if _start(pid) == start:
                _send(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    # -------------------------------------------------------------- its processes

    @property
    def connections(self) -> list[int]:
        """The processes that serve connections (as root there are two for each)."""
        own = {self._daemon.pid} if self._daemon is not None else set()
        return [pid for pid in self._descendants() - own if _name(pid).startswith("sshd")]

    def accepted(self) -> int:
        """How many connections were let in since it was made, as its log tells."""
        return len(re.findall(r"Accepted \S+ for ", self.log))

    def _descendants(self) -> set[int]:
        """The daemon and everything beneath it."""
        if self._daemon is None:
            return set()
        found = {self._daemon.pid}
        for pid in _in_order_of_descent(self._daemon.pid):
            found.add(pid)
            self._seen[pid] = _start(pid)
        return found

    def _await_banner(self) -> None:
        assert self._daemon is not None
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            if self._daemon.poll() is not None:
                break
            with (
                suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), 1) as client,
            ):
                client.settimeout(5)
                if client.recv(4) == b"SSH-":
                    return
            time.sleep(_PAUSE_S)
        raise RuntimeError(f"sshd does not answer on port {self.port}:\n{self.log}")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, outside the range from which the kernel takes those of clients."""
    own = os.getpid() % 500
    for port in range(10_000 + 40 * own, 32_000):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port
    raise RuntimeError("no port is free")


_given: set[int] = set()


def _sshd() -> str:
    # It refuses to start unless it is called by its full path.
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise RuntimeError("there is no sshd on this machine: install openssh-server")
    return found


def _wait(over: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _READY_S
    while not over():
        if time.monotonic() > deadline:
            raise RuntimeError("sshd's processes do not end")
        time.sleep(_PAUSE_S)


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _stat(pid: int) -> tuple[str, list[str]]:
    """A process's name and what follows it in proc(5); nothing if it is not there, or a corpse."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "", []
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return ("", []) if fields[0] in "ZX" else (head.partition("(")[2], fields)


def _name(pid: int) -> str:
    return _stat(pid)[0]


def _start(pid: int) -> str:
    fields = _stat(pid)[1]
    return fields[19] if fields else ""


def _in_order_of_descent(ancestor: int) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))[1]
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    waiting = [ancestor]
    while waiting:
        for child in children.get(waiting.pop(), []):
            yield child
            waiting.append(child)
