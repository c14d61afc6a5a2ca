"""How many sessions, and which parts of a file: without a connection."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercede.transport.ssh._blocks import Block, Blocks
from intercede.transport.ssh._limiter import Limiter


class Host:
    """Grants so many sessions, and frees one a little late."""

    def __init__(self, most: int, late_s: float) -> None:
        self.most = most
        self.late_s = late_s
        self.open = 0
        self.peak = 0
        self.refusals = 0

    def grants(self) -> bool:
        if self.open >= self.most:
            self.refusals += 1
            return False
        self.open += 1
        self.peak = max(self.peak, self.open)
        return True

    def freed(self) -> None:
        self.open -= 1


async def use(host: Host, limiter: Limiter, tasks: int, turns: int) -> None:
    loop = asyncio.get_running_loop()

    async def task() -> None:
        for _ in range(turns):
            while True:
                await limiter.acquire()
                await asyncio.sleep(0)
                if host.grants():
                    break
                limiter.refused()
                await asyncio.sleep(0.001)
            limiter.granted()
            await asyncio.sleep(random.uniform(0, 0.002))
            loop.call_later(host.late_s, host.freed)
            limiter.closed()

    await asyncio.gather(*(task() for _ in range(tasks)))


@pytest.mark.parametrize("late_s", [0.0, 0.001])
@pytest.mark.parametrize("most", [1, 2, 5, 10, 30])
async def test_it_finds_out_how_many_the_host_grants(most: int, late_s: float) -> None:
    host, limiter = Host(most, late_s), Limiter(20)
    await use(host, limiter, tasks=40, turns=10)
    assert limiter.taken == 0
    # Each that is freed late costs one for a while; on a busy machine, two.
    assert max(1, min(most, 20) - 2) <= limiter.limit <= min(most + 1, 20)


async def test_it_begins_low() -> None:
    limiter = Limiter(10)
    for _ in range(2):
        await limiter.acquire()
    assert not limiter.free


async def test_a_task_that_is_cancelled_while_it_waits_keeps_no_slot() -> None:
    limiter = Limiter(1)
    await limiter.acquire()
    waiting = [asyncio.ensure_future(limiter.acquire()) for _ in range(10)]
    await asyncio.sleep(0)
    for number, task in enumerate(waiting):
        if number % 2:
            task.cancel()
    limiter.release()
    waiting[0].cancel()  # in the moment in which it got it
    await asyncio.sleep(0.01)
    got = [task for task in waiting if task.done() and not task.cancelled()]
    assert len(got) == 1
    for _ in range(4):
        limiter.release()
        await asyncio.sleep(0)
    assert limiter.taken == 0
    await limiter.acquire()


async def test_who_asks_to_be_first_is_before_all_who_wait() -> None:
    limiter = Limiter(1)
    order: list[str] = []

    async def one(name: str, *, first: bool = False) -> None:
        await limiter.acquire(first=first)
        order.append(name)
        limiter.release()

    await limiter.acquire()
    tasks = [asyncio.ensure_future(one("a")), asyncio.ensure_future(one("b"))]
    await asyncio.sleep(0)
    tasks.append(asyncio.ensure_future(one("urgent", first=True)))
    await asyncio.sleep(0)
    limiter.release()
    await asyncio.gather(*tasks)
    assert order == ["urgent", "a", "b"]


@given(st.integers(0, 5000), st.integers(1, 700), st.randoms(use_true_random=False))
def test_every_part_of_a_file_is_copied_whatever_is_lost(
    size: int, block: int, chance: random.Random
) -> None:
    blocks = Blocks(size, block)
    copied = bytearray(size)
    under_way: list[Block] = []
    while not blocks.complete:
        act = chance.choice(["take", "take", "confirm", "lose"])
        if act == "take" and (taken := blocks.take()):
            assert taken.size <= block
            under_way.append(taken)
        elif act == "confirm" and under_way:
            done = under_way.pop(chance.randrange(len(under_way)))
            copied[done.offset : done.offset + done.size] = b"x" * done.size
            blocks.confirm(done)
        elif act == "lose" and chance.random() < 0.3:
            blocks.give_back()
            under_way.clear()
    assert copied == b"x" * size
    assert blocks.take() is None
