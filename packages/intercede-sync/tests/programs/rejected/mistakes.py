"""What a consumer must not write."""

from intercede.core import JobID, registry
from intercede.sync import Loop, Purgeable, backend, synchronous

IDS = [JobID("x")]


def main() -> None:
    ce = backend({"type": "fake"})
    ce.kill(IDS)  # E: attr-defined
    ce.status("x/y/0")  # E: arg-type
    ce.aclose()  # E: attr-defined
    ce.submit("true")  # E: arg-type
    if isinstance(ce, Purgeable):
        ce.purge(IDS).raise_for_failure()  # E: attr-defined
        ce.details(IDS)  # E: attr-defined
    backend({"type": "fake"}, "a token")  # E: arg-type
    backend({"type": "fake"}, loop="mine")  # E: arg-type
    synchronous(ce)  # E: call-overload
    synchronous(registry.transport("local"))  # E: call-overload
    with Loop() as loop:
        loop.call(len, [])  # E: arg-type


async def inside() -> None:
    async with backend({"type": "fake"}) as ce:  # E: attr-defined
        await ce.status(IDS)
