"""One event loop in one thread, for the calls of any number of others.

The thread is a daemon, and the loop is wound up by `atexit`: at exit the interpreter first waits for all threads that are no daemons, and
none of them may lose its backends before it has ended.

A child after `fork` has no such thread, and what its parent's loop holds is the parent's. The child begins anew, and keeps the parent's
things untouched: to let go of them could speak on the parent's connections.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import time
import warnings
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple, ParamSpec, Self, TypeVar

import anyio
import anyio.abc

from intercede.core import ClosedError

from ._calls import Call

__all__ = ["SHARED", "Loop", "refuse_inside_a_loop"]

P = ParamSpec("P")
T = TypeVar("T")
Closer = Callable[[], Awaitable[None]]

#: How long an interrupted call may take to end before its caller goes on. What a transport does then is bounded by less.
_BROKEN_OFF_S: Final = 10.0
#: How long a loop may take to end with all that is open in it.
_END_S: Final = 10.0

_log: Final = logging.getLogger(__name__)


class _Running(NamedTuple):
    """A loop with its thread.

    Attributes:
        loop: The loop.
        calls: The tasks in it.
        stop: Makes it wind up.
        thread: Its thread.
    """

    loop: asyncio.AbstractEventLoop
    calls: anyio.abc.TaskGroup
    stop: anyio.Event
    thread: threading.Thread


class Loop:
    """An event loop in a thread of its own, for backends that shall not share one with the rest of the process.

    The thread starts with the first call. It ends with `close`, at the latest when the interpreter exits. Safe from many threads.
    """

    def __init__(self) -> None:
        self._closed = False
        self._begin_anew()
        _loops.add(self)

    def _begin_anew(self) -> None:
        self._starting: Future[_Running] | None = None
        self._calls: set[Call[Any]] = set()
        self._open: dict[object, Closer] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a coroutine function in the loop, with the caller's context variables, and wait for it.

        When the caller is interrupted, by Ctrl-C or whatever else a signal handler raises, the call is cancelled and has 10 s to end;
        the next interruption does not wait for that.

        Raises:
            RuntimeError: Inside a running event loop, which this would block.
            ClosedError: The loop was closed, before or meanwhile.
        """
        refuse_inside_a_loop(f"Loop.call({function!r})")
        return self._done(Call(partial(function, *args, **kwargs), breakable=True))

    def finish(self, function: Callable[[], Awaitable[T]]) -> T:
        """Like `call`, for what must not be broken off: when the caller is interrupted, it is waited for all the same, but not cancelled."""
        refuse_inside_a_loop(f"Loop.finish({function!r})")
        return self._done(Call(function, breakable=False))

    def close(self) -> None:
        """Break off all calls, close all that is open, end the thread; in 10 s at most. Idempotent.

        Raises:
            RuntimeError: Inside a running event loop.
        """
        refuse_inside_a_loop("Loop.close")
        if (thread := self._stop()) is not None:
            thread.join(_END_S)

    def _stop(self) -> threading.Thread | None:
        """Like `close`, without waiting: the thread that is to end, if there is one."""
        with _lock:
            self._closed = True
            starting = self._starting
        if starting is None:
            return None
        running = starting.result()
        with suppress(RuntimeError):  # it has ended
            running.loop.call_soon_threadsafe(running.stop.set)
        return running.thread

    # ---------------------------------------------------------------- what shall not stay open

    def keep(self, key: object, close: Closer) -> None:
        """Close something with the loop, unless `release` or `abandon` come first."""
        if not self._closed:
            self._open[key] = close

    def release(self, key: object) -> None:
        """It is closed."""
        self._open.pop(key, None)

    def abandon(self, key: object, name: str) -> None:
        """Close, without waiting, what nobody can use any more. Called by the garbage collector, so in any thread, and in a child."""
        if self._closed or key not in self._open or self._starting is None:
            return
        running = self._starting.result()
        with suppress(RuntimeError):  # it has ended
            running.loop.call_soon_threadsafe(self._close_abandoned, running, key)
        warnings.warn(f"{name} was not closed", ResourceWarning, stacklevel=2)

    def _close_abandoned(self, running: _Running, key: object) -> None:
        if not running.stop.is_set() and (close := self._open.pop(key, None)) is not None:
            running.calls.start_soon(_close_quietly, close)

    # ---------------------------------------------------------------- a call, in the caller's thread

    def _done(self, call: Call[T]) -> T:
        try:
            running = self._accept(call)
            try:
                running.loop.call_soon_threadsafe(call.begin, running.calls)
            except RuntimeError:  # the loop has just ended
                call.ended.cancel()
            return call.ended.result()
        except CancelledError:
            if self._closed:
                raise _closed("its event loop was closed meanwhile") from None
            raise
        except BaseException:
            if call in self._calls and not call.ended.done():
                self._break_off(call)
            raise
        finally:
            del call  # its error refers to this frame, and it to its error

    def _accept(self, call: Call[Any]) -> _Running:
        """Remember the call until it has ended; what is accepted will be ended by the loop, whatever happens."""
        with _lock:
            if self._closed:
                raise _closed("its event loop was closed")
            running = self._started()
            self._calls.add(call)
        call.ended.add_done_callback(lambda _: self._calls.discard(call))
        return running

    def _break_off(self, call: Call[Any]) -> None:
        assert self._starting is not None
        with suppress(RuntimeError):  # the loop has just ended
            self._starting.result().loop.call_soon_threadsafe(call.cancel)
        with suppress(CancelledError, TimeoutError):
            call.ended.exception(_BROKEN_OFF_S)  # `wait` does not see that a future was cancelled

    def _started(self) -> _Running:
        if self._starting is None:
            starting: Future[_Running] = Future()
            self._starting = starting
            thread = threading.Thread(
                target=self._serve, args=(starting,), name="intercede.sync", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:  # no more threads
                starting.set_exception(error)
        try:
            return self._starting.result()
        except Exception:
            self._starting = None  # the next call tries again
            raise

    # ---------------------------------------------------------------- the loop's thread

    def _serve(self, starting: Future[_Running]) -> None:
        try:
            anyio.run(self._main, starting, backend="asyncio")
        except BaseException as error:
            if not starting.done():
                starting.set_exception(error)
            elif not self._closed:
                raise
            else:
                _log.debug("the event loop did not end cleanly", exc_info=True)
        finally:
            for call in list(self._calls):
                call.ended.cancel()

    async def _main(self, starting: Future[_Running]) -> None:
        stop = anyio.Event()
        async with anyio.create_task_group() as calls:
            starting.set_result(
                _Running(asyncio.get_running_loop(), calls, stop, threading.current_thread())
            )
            await stop.wait()
            calls.cancel_scope.cancel()
        with anyio.move_on_after(_END_S):
            async with anyio.create_task_group() as closing:
                for close in list(self._open.values()):
                    closing.start_soon(_close_quietly, close)
        self._open.clear()


async def _close_quietly(close: Closer) -> None:
    """Nobody is left to be told what goes wrong."""
    try:
        await close()
    except Exception:
        _log.debug("something did not close", exc_info=True)


def refuse_inside_a_loop(who: str) -> None:
    """Return if the caller's thread runs no event loop.

    Raises:
        RuntimeError: It does.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        f"{who}: called synchronously inside a running event loop, which it would block; await the"
        " backend of intercede.core.registry there, or call this one in a thread"
        " (anyio.to_thread.run_sync)"
    )


def _closed(message: str) -> ClosedError:
    """What a caller is told. To a daemon thread at exit nobody listens: it waits for the end, where the interpreter would stop it anyhow."""
    if _exiting.is_set() and threading.current_thread().daemon:
        threading.Event().wait()
    return ClosedError(message)


# ---------------------------------------------------------------- exit and fork

_exiting: Final = threading.Event()
#: Held while a loop starts, and by `fork`: a child of a thread in the middle of an import could never do this import itself.
_lock: Final = threading.RLock()
_loops: Final[weakref.WeakSet[Loop]] = weakref.WeakSet()
#: What a child must not let go of.
_parents: Final[list[object]] = []

#: The loop of all backends that are given no other.
SHARED: Final = Loop()


def _at_exit() -> None:
    _exiting.set()
    deadline = time.monotonic() + _END_S
    with suppress(KeyboardInterrupt):  # whoever is in a hurry
        for thread in [loop._stop() for loop in list(_loops)]:
            if thread is not None:
                thread.join(max(0.0, deadline - time.monotonic()))


def _after_fork() -> None:
    for loop in list(_loops):
        _parents.append(vars(loop).copy())
        loop._begin_anew()
    _lock.release()  # held by the thread that forked, which is the child's only one


# Registered when this is imported: whatever a program registers later comes before it, and still finds its backends open.
atexit.register(_at_exit)
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_after_fork)
