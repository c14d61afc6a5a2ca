"""Ending a command that is not wanted any more, with its whole group, and getting its session back.

sshd passes signals on to the group of a command, but not to root's, and not when the command itself has ended and its children have not.
So the group is ended once more through a session of its own, which also waits for it. A host that does not let go of a session within a
bounded time is left: the connection is replaced, and what is still to be ended is ended at the next occasion.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import anyio

from intercede.core import InterCEdeError

from ._connecting import Connecting
from ._framing import Remote
from ._link import Link, LinkLost
from ._session import Session
from ._waiting import reached

__all__ = ["Ending"]

#: How long all of it may take, at most.
_ALL_S: Final = 5.0
#: How long a login profile is waited for: until it has ended, it is not known whom to end.
_BEGIN_S: Final = 2.0
#: How long a command has after sshd's TERM, before it is told again in another way.
_TERM_S: Final = 0.2
#: How long a session may be waited for in which to do so.
_SESSION_S: Final = 1.0
#: How long the host may take to let go of a session, before the connection is replaced.
_CLOSE_S: Final = 1.0
#: How many are remembered for later, at most.
_LATER_MAX: Final = 10_000

#: `PID START ...`: TERM for each group, a second for the process that it is named for to clean up, KILL. A number that has been given to a
#: later process is left alone. (`kill -TERM -PID` is what dash, bash and BusyBox all
#: take for a group.)
_END: Final = """\
# Whether the process lives: not ended, nor ended and not yet collected.
lives() {
  if ! read -r stat 2>/dev/null <"/proc/$1/stat"; then
    [ ! -d /proc/self ] && kill -s 0 "$1" 2>/dev/null
    return
  fi
  stat=${stat##*) }
  case $stat in Z* | X*) return 1 ;; esac
}
# Whether the group is the one that was meant, or what is left of it.
ours() {
  if [ -n "$2" ] && read -r stat 2>/dev/null <"/proc/$1/stat"; then
    set -- "$1" "$2" ${stat##*) }
    [ "$2" = "${22}" ]
  fi
}
each() {
  signal=$1; shift
  while [ $# -gt 1 ]; do
    ours "$1" "$2" && { kill "-$signal" "-$1" || kill "-$signal" "$1"; } 2>/dev/null
    shift 2
  done
}
any() {
  while [ $# -gt 1 ]; do
    ours "$1" "$2" && lives "$1" && return
    shift 2
  done
  return 1
}
each TERM "$@"
for turn in 1 2 3 4 5 6 7 8 9 10; do
  any "$@" || break
  sleep 0.1 2>/dev/null || sleep 1
done
each KILL "$@"
exit 0
"""


class Ending:
    """Ends commands.

    Args:
        connecting: The connection.
    """

    def __init__(self, connecting: Connecting) -> None:
        self._connecting = connecting
        self._later: dict[int, Remote] = {}
        self._lock = anyio.Lock()

    async def end(self, link: Link, session: Session) -> None:
        """End a command that was left early, or let go of one that has ended. Bounded in time; never raises."""
        if session.closed.is_set() and session.complete:
            return
        with anyio.move_on_after(_ALL_S):
            if not session.complete and session.handed:
                await self._end(link, session)
            else:
                _let_go(session)
            await reached(session.closed, _CLOSE_S)
        if not session.closed.is_set():
            link.retire()

    def end_at_once(self, session: Session) -> None:
        """The same without waiting, for the last moment of a connection."""
        if session.handed and not session.complete:
            _send(session, "KILL")

    async def resume(self, link: Link) -> None:
        """End what an earlier connection could not."""
        if self._later and not self._lock.locked():
            with anyio.move_on_after(_ALL_S):
                await self._end_remembered(link)

    async def _end(self, link: Link, session: Session) -> None:
        await reached(session.begun, _BEGIN_S)
        _send(session, "TERM")
        exited = await reached(session.exited, _TERM_S)
        if not exited and session.remote is None:
            _send(session, "KILL")
        _let_go(session)
        if session.remote is None or session.lost:
            return
        self._remember(session.remote)
        # A command that is still there may hold the very session in which to end it.
        if (exited or link.limiter.free) and await self._end_remembered(link):
            return
        link.retire()
        with suppress(InterCEdeError):
            await self._end_remembered(await self._connecting.link())

    def _remember(self, remote: Remote) -> None:
        if len(self._later) < _LATER_MAX:
            self._later[remote.pid] = remote

    async def _end_remembered(self, link: Link) -> bool:
        """One session for all who are to be ended at the same time. False if there was none."""
        async with self._lock:
            todo = dict(self._later)
            if not todo:
                return True
            words = [word for one in todo.values() for word in (str(one.pid), one.start)]
            sessions: list[Session] = []
            try:
                with anyio.fail_after(_SESSION_S):
                    await link.start(
                        ("sh", "-c", _END, "end", *words), 0, sessions.append, first=True
                    )
                await sessions[0].feed(b"", None)
                await sessions[0].wait()
            except (InterCEdeError, LinkLost, TimeoutError):
                return False  # it stays to be done
            finally:
                for session in sessions:
                    _let_go(session)
            self._later = {pid: one for pid, one in self._later.items() if todo.get(pid) != one}
            return True


def _send(session: Session, name: str) -> None:
    if session.channel is not None and not session.exited.is_set():
        session.channel.send_signal(name)


def _let_go(session: Session) -> None:
    if session.channel is not None and not session.closed.is_set():
        session.channel.abort()
