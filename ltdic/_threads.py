"""Threads for what would block the thread that serves: `on_request`, and the resolver."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

THREADS = 16

T = TypeVar("T")


class Task:
    """A function that a thread calls once, unless `Threads.forget` was called before."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._begun = threading.Lock()

    def run(self) -> None:
        if self._begun.acquire(blocking=False):
            self._do()

    def _do(self) -> None:
        self._function()


class Threads:
    """Threads that are started when needed and end with the process at the latest."""

    def __init__(self, name: str, most: int = THREADS) -> None:
        self._name, self._most = name, most
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._queue: SimpleQueue[bool] = SimpleQueue()  # true for each task, false at the end
        self._tasks: deque[Task] = deque()
        self._idle: deque[None] = deque()  # one for each thread that waits for a task
        self._threads: list[threading.Thread] = []

    def submit(self, task: Task) -> bool:
        """Have a thread run a task. Return False if there is no thread and none can be started."""
        if self._process != os.getpid():  # a child process has none of the threads
            self._begin()
        try:
            self._idle.pop()
        except IndexError:
            if not self._start():
                return False
        if task not in self._tasks:
            self._tasks.append(task)
        self._queue.put(True)
        return True

    def _start(self) -> bool:
        """Start one more thread, up to the limit. Return True if there is at least one."""
        if len(self._threads) < self._most:
            arguments = self._queue, self._tasks, self._idle
            thread = threading.Thread(target=_work, args=arguments, daemon=True)
            thread.name = f"{self._name}-{len(self._threads) + 1}"
            self._threads.append(thread)
            try:
                thread.start()
            except RuntimeError:  # the system has no more threads
                self._threads.remove(thread)
        return bool(self._threads)

    def forget(self, task: Task) -> None:
        """Remove a task that has not begun. One that has begun continues."""
        with suppress(ValueError):
            self._tasks.remove(task)

    def end(self) -> None:
        for _ in self._threads:
            self._queue.put(False)


def _work(queue: SimpleQueue[bool], tasks: deque[Task], idle: deque[None]) -> None:
    """Run tasks, in a thread. It has no reference to the `Threads` object, so that this can be
    garbage-collected."""
    while queue.get():
        with suppress(IndexError):  # the task was forgotten
            tasks.popleft().run()
        idle.append(None)


class NoThread(Exception):
    """The system has no more threads, and there is none."""


async def call_in_thread(threads: Threads, function: Callable[..., T], *arguments: Any) -> T:
    """Call the function in one of these threads, and return or raise what it does. Raises
    `NoThread`."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
    task = Task(partial(_call, loop, done, function, arguments))
    if not threads.submit(task):
        raise NoThread
    try:
        result, error = await done
    finally:
        threads.forget(task)
    if error is not None:
        raise error if isinstance(error, Exception) else RuntimeError(repr(error)) from error
    found: T = result
    return found


def _call(
    loop: asyncio.AbstractEventLoop,
    done: asyncio.Future[tuple[Any, BaseException | None]],
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    result, error = None, None
    try:
        result = function(*arguments)
    except BaseException as e:
        error = e

    def deliver() -> None:
        if not done.done():
            done.set_result((result, error))

    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(deliver)
