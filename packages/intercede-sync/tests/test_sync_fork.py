"""After `fork`: what the parent has open stays the parent's, and the child makes its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Start = Callable[[str], Any]


def test_the_child_is_told_whose_the_backend_is_and_can_make_its_own(start: Start) -> None:
    program = start("""
        ce = facade()
        ce.status([])
        if (child := os.fork()) == 0:
            try:
                ce.status([])
            except core.ClosedError as error:
                say(str(error).replace(str(os.getppid()), "PARENT"))
            ce.close()
            with sync.backend({"type": "fake"}) as own:
                say(len(own.status([])))
            sys.exit(0)
        say("child", os.waitpid(child, 0)[1])
        say(len(ce.status([])))
        ce.close()
    """)

    assert program.end() == (0, "")
    [told, *rest] = program.said
    assert told.endswith(
        "status: its connections are those of process PARENT, of which this is a fork;"
        " make a new one in this process"
    )
    assert rest == ["0", "child 0", "0", "closed"]


def test_a_backend_that_was_not_used_yet_works_on_both_sides(start: Start) -> None:
    program = start("""
        other, ce = facade(), facade()
        other.status([])  # so that the loop runs already
        if (child := os.fork()) == 0:
            say(len(ce.status([])))
            ce.close()
            sys.exit(0)
        say("child", os.waitpid(child, 0)[1])
        say(len(ce.status([])))
        ce.close()
    """)

    assert program.end() == (0, "")
    assert program.said == ["0", "closed", "child 0", "0", "closed", "closed"]


def test_a_child_that_ends_touches_nothing_of_the_parents(start: Start) -> None:
    """The parent is in the middle of a call; the child lets go of all it can, and ends as programs do."""
    program = start("""
        import gc
        class Waiting(Slow):
            def __init__(self, *words):
                super().__init__(*words)
                self.enough = None
            async def counts(self):
                say("begun")
                self.enough = anyio.Event()  # which nothing of the loop's refers to
                begun.set()
                try:
                    await self.enough.wait()
                finally:
                    say("ENDED IN THE CHILD" if os.getpid() != MAIN else "ended")
            async def find(self, tag):
                self.enough.set()
                return ()
        begun = threading.Event()
        ce = facade(Waiting)
        calling = in_thread(ce.counts)
        begun.wait()
        if (child := os.fork()) == 0:
            del ce, calling
            gc.collect()
            sys.exit(0)
        say("child", os.waitpid(child, 0)[1])
        ce.find("x")
        calling.join()
    """)

    assert program.end() == (0, "")
    assert program.said == ["begun", "child 0", "ended", "closed"]


def test_the_child_of_a_child_is_no_different(start: Start) -> None:
    program = start("""
        def generation(n):
            with facade() as ce:
                say(n, len(ce.status([])))
                if n < 3:
                    if (child := os.fork()) == 0:
                        generation(n + 1)
                        sys.exit(0)
                    say(n, "child", os.waitpid(child, 0)[1])
        generation(1)
    """)

    assert program.end() == (0, "")
    assert program.said == [
        *("1 0", "2 0", "3 0", "closed"),
        *("2 child 0", "closed"),
        *("1 child 0", "closed"),
    ]


def test_a_fork_while_other_threads_are_calling_leaves_no_lock_behind(start: Start) -> None:
    program = start("""
        ce = facade()
        over = threading.Event()
        def work():
            while not over.is_set():
                ce.status([])
        workers = [in_thread(work) for _ in range(4)]
        children = []
        for _ in range(20):
            if (child := os.fork()) == 0:
                with facade() as own:
                    own.status([])
                os._exit(0)
            children.append(child)
        say(*(os.waitpid(child, 0)[1] for child in children))
        over.set()
        for worker in workers:
            worker.join()
    """)

    assert program.end(60) == (0, "")
    assert program.said.count(" ".join(["0"] * 20)) == 1


def test_workers_of_multiprocessing_make_their_own(start: Start) -> None:
    program = start("""
        import multiprocessing
        def work(n):
            with sync.backend({"type": "fake"}) as own:
                return n + len(own.status([]))
        ce = facade()
        ce.status([])
        with multiprocessing.get_context("fork").Pool(2) as pool:
            say(pool.map(work, range(4)))
    """)

    assert program.end() == (0, "")
    assert program.said == ["[0, 1, 2, 3]", "closed"]


def test_credentials_opened_in_the_parent_are_not_used_in_the_child(start: Start) -> None:
    program = start("""
        class Provider:
            async def get(self, requirements):
                say("asked")
                return core.CredentialSet()
            async def __aenter__(self):
                return self
            async def __aexit__(self, *exc):
                say("closed in the parent" if os.getpid() == MAIN else "CLOSED IN THE CHILD")
        needs = core.CredentialRequirements("x", [core.BearerToken])
        with sync.synchronous(Provider()) as provider:
            provider.get(needs)
            if (child := os.fork()) == 0:
                try:
                    provider.get(needs)
                except core.ClosedError:
                    say("refused")
                sys.exit(0)
            say("child", os.waitpid(child, 0)[1])
    """)

    assert program.end() == (0, "")
    assert program.said == ["asked", "refused", "child 0", "closed in the parent"]
