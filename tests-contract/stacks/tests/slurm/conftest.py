"""A scene for each test."""

from collections.abc import AsyncIterator

import pytest

from stacks.tests.slurm._scene import Scene, opened


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with opened() as scene:
        yield scene
