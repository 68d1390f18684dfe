"""Coroutines under test: each in an event loop of its own, cancelled at each of its steps."""

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
    """Tasks and descriptors that exist at first, to be compared with those that are left."""

    def __init__(self) -> None:
        self.tasks, self.descriptors = asyncio.all_tasks(), descriptors()

    async def come(self) -> None:
        """Wait until nothing is left that has not been there."""
        end = time.monotonic() + TIMEOUT
        while asyncio.all_tasks() - self.tasks or descriptors() > self.descriptors:
            assert time.monotonic() < end, (
                asyncio.all_tasks() - self.tasks,
                descriptors() - self.descriptors,
            )
            await asyncio.sleep(0)


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in a loop of its own; afterwards no task, no descriptor and no warning is left,
    and nothing has been told to the loop's exception handler."""

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
    """Let it run for so many turns of the loop, then cancel it. True when it was done before."""
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
    """The next number of turns to try: every one of the first 16, and fewer and fewer later."""
    return steps + 1 + steps // 16
