"""Functions and event loops in threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from support.sockets import TIMEOUT


class Background:
    """A function in a thread. `join` raises the exception of the function."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.result: Any = None
        self.is_done = False
        self._raised: BaseException | None = None
        self._function = function
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._function()
        except BaseException as e:
            self._raised = e
        self.is_done = True

    @property
    def ident(self) -> int | None:
        """The value of `threading.get_ident` in the thread."""
        return self._thread.ident

    def join(self) -> Any:
        self._thread.join(TIMEOUT)
        if self._thread.is_alive():
            raise TimeoutError(f"{self._function} has not ended")
        if self._raised is not None:
            raise self._raised
        return self.result


@contextmanager
def background(function: Callable[[], Any]) -> Iterator[Background]:
    """Run the function in a thread during the block, and join the thread after it."""
    thread = Background(function)
    yield thread
    thread.join()


class LoopThread:
    """An event loop in a thread; other threads can run coroutines in it."""

    def __enter__(self) -> LoopThread:
        started = threading.Event()

        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._stop = asyncio.Event()
            started.set()
            await self._stop.wait()
            for _ in range(5):
                await asyncio.sleep(0)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            if left:
                raise RuntimeError(f"tasks are left: {left}")

        self._thread = Background(lambda: asyncio.run(main()))
        if not started.wait(TIMEOUT):
            raise TimeoutError
        return self

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(6 * TIMEOUT)
        except TimeoutError:
            future.cancel()
            raise

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
