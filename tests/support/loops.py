"""Run coroutines in event loops of their own, and cancel them at each of their steps."""

from __future__ import annotations

import asyncio
import functools
import gc
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from ltdic import LocalError
from support.process import descriptors
from support.sockets import TIMEOUT


class Rest:
    """The tasks and descriptors at the start of a test, to compare with those at its end."""

    def __init__(self) -> None:
        self.tasks, self.descriptors = asyncio.all_tasks(), descriptors()

    async def come(self) -> None:
        """Wait until no new task and no new descriptor is left."""
        end = time.monotonic() + TIMEOUT
        while asyncio.all_tasks() - self.tasks or descriptors() > self.descriptors:
            assert time.monotonic() < end, (
                asyncio.all_tasks() - self.tasks,
                descriptors() - self.descriptors,
            )
            await asyncio.sleep(0)


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in a loop of its own; assert that it leaves no task, descriptor or warning, and
    that the loop's exception handler was not called."""

    @functools.wraps(test)
    def run(*args: Any, **options: Any) -> None:
        said: list[Any] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, what: said.append(what))
            rest = Rest()
            async with asyncio.timeout(6 * TIMEOUT):
                await test(*args, **options)
            await rest.come()

        gc.collect()
        asyncio.run(main())
        gc.collect()
        assert said == []

    return run


async def is_done_before(steps: int, work: Awaitable[Any]) -> bool:
    """Run the work for so many steps of the loop, then cancel it. True if it was done before."""
    task = asyncio.ensure_future(work)
    for _ in range(steps):
        if task.done():
            break
        await asyncio.sleep(0)
    done = task.done()
    task.cancel()
    with suppress(asyncio.CancelledError, LocalError):
        await task
    return done


def next_step(steps: int) -> int:
    """Return the next number of steps to try: each one up to 16, then with growing gaps."""
    return steps + 1 + steps // 16
