"""Measure contenders side by side: on the same bytes, in turns."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Any, NamedTuple

Timed = Callable[[int], int]
"""Repeats its work so many times. Returns the nanoseconds it took."""

Contenders = Iterator[tuple[str, Timed]]


@dataclass(frozen=True)
class Measure:
    """Nanoseconds for one unit of work, over all rounds; or another figure with its unit."""

    median: float
    least: float
    most: float
    rounds: int = 1
    batch: int = 1
    unit: str = "ns"
    times: tuple[float, ...] = ()
    """The time of each round."""
    cpu: float = 0.0
    """CPU time of its process for one unit, in nanoseconds, the median; 0: not measured."""
    waited: float = 0.0
    """The part of the time in which its process waited for a core, the median."""


class Usage(NamedTuple):
    """Nanoseconds since a process began."""

    cpu: int
    waited: int
    """Time in which it could have run, but had no core."""


@dataclass(frozen=True)
class Watched:
    """A contender in processes of its own, whose CPU time is measured, too."""

    timed: Timed
    usage: Callable[[], Usage]

    def __call__(self, count: int) -> int:
        return self.timed(count)


@dataclass(frozen=True)
class Case:
    name: str
    contenders: Callable[[], Any]
    seconds: float
    """The batch is as large as takes so long."""
    unit_bytes: int
    units: int
    """The number of units, such as PDUs, in one repetition: a time is that of one unit."""
    is_timed: bool
    batch: int = 0
    """Repetitions in a batch; 0: as many as take `seconds`."""
    rounds: int = 0
    """Most rounds; 0: no limit."""


@dataclass(frozen=True)
class Effort:
    """How long to measure. `quick`: one repetition, which only shows that the case runs."""

    rounds: int = 9
    quick: bool = False


Results = dict[str, dict[str, Measure]]
"""For each case, by its name, a measure for each contender."""


class Failed(Exception):
    """A contender has not done its work."""


CASES: dict[str, Case] = {}
ABSENT: dict[str, str] = {}
"""Contenders that cannot be built or run on this machine, and what they need."""
FAILED: dict[str, str] = {}
"""Errors of contenders, by contender and case."""


def case(
    name: str,
    *,
    seconds: float = 0.02,
    unit_bytes: int = 0,
    units: int = 1,
    batch: int = 0,
    rounds: int = 0,
) -> Callable[[Any], Any]:
    """Register a generator of contenders and their work as a case."""

    def register(function: Callable[[], Contenders]) -> Callable[[], Contenders]:
        CASES[name] = Case(name, function, seconds, unit_bytes, units, True, batch, rounds)
        return function

    return register


def figure(name: str) -> Callable[[Any], Any]:
    """Register a generator of contenders and their figures, which are not times, as a case."""

    def register(function: Callable[[], Iterator[tuple[str, Measure]]]) -> Any:
        CASES[name] = Case(name, function, 0, 0, 1, False)
        return function

    return register


def repeat(function: Callable[[], Any]) -> Timed:
    """A Python function as a contender."""

    def timed(count: int) -> int:
        start = time.perf_counter_ns()
        for _ in range(count):
            function()
        return time.perf_counter_ns() - start

    return timed


def agree(case_name: str, answers: dict[str, Any]) -> None:
    """Exit where the contenders differ: before any of them is measured."""
    (first, expected), *others = answers.items()
    for who, answer in others:
        if answer != expected:
            raise SystemExit(
                f"{case_name}: {who} answers {answer!r:.300}, but {first} {expected!r:.300}"
            )


MOST_WAITED = 0.1
"""A round in which the process waited for a core for a larger part of the time is run again."""
AGAIN = 2
"""Times that a round is run again at most."""


class Round(NamedTuple):
    """Nanoseconds for one repetition, and the part of the time in which it waited for a core."""

    time: float
    cpu: float
    waited: float


def _round(work: Timed, batch: int, attempts: int) -> Round:
    for left in reversed(range(attempts)):
        before = work.usage() if isinstance(work, Watched) else Usage(0, 0)
        taken = work(batch)
        after = work.usage() if isinstance(work, Watched) else Usage(0, 0)
        cpu, waited = after.cpu - before.cpu, (after.waited - before.waited) / max(taken, 1)
        if waited <= MOST_WAITED or left == 0:
            break
    return Round(taken / batch, cpu / batch, waited)


def _batch(timed: Timed, seconds: float) -> int:
    """The number of repetitions that take so long."""
    count = 1
    while (spent := timed(count)) < seconds * 1e9:
        count *= 2 if spent * 8 > seconds * 1e9 else 8
    return count


_cleanups: list[Callable[[], Any]] = []


def after_case(function: Callable[[], Any]) -> None:
    _cleanups.append(function)


def clean_up() -> None:
    while _cleanups:
        _cleanups.pop()()


def run(one: Case, effort: Effort) -> dict[str, Measure]:
    try:
        return _run(one, effort)
    finally:
        clean_up()


def _run(one: Case, effort: Effort) -> dict[str, Measure]:
    if not one.is_timed:
        return dict(one.contenders())
    batches: dict[str, int] = {}
    seen: dict[str, list[Round]] = {}
    timed = dict(one.contenders())

    def attempt(who: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Failed as e:
            FAILED[f"{who}, {one.name}"] = str(e)
            timed.pop(who)
            seen.pop(who, None)

    def size(who: str) -> None:
        batches[who] = 1 if effort.quick else one.batch or _batch(timed[who], one.seconds)
        seen[who] = []

    def measure(who: str) -> None:
        attempts = 1 if effort.quick else 1 + AGAIN
        seen[who].append(_round(timed[who], batches[who], attempts))

    for who in list(timed):
        attempt(who, partial(size, who))
    rounds = min(effort.rounds, one.rounds or effort.rounds)
    for _ in range(rounds):
        for who in list(timed):
            attempt(who, partial(measure, who))
    return {who: _measure(all_of, one.units, batches[who]) for who, all_of in seen.items()}


def _measure(rounds: list[Round], units: int, batch: int) -> Measure:
    times = tuple(round(each.time / units, 1) for each in rounds)
    median = statistics.median
    return Measure(
        *(median(times), min(times), max(times), len(rounds), batch),
        times=times,
        cpu=round(median(each.cpu for each in rounds) / units, 1),
        waited=round(median(each.waited for each in rounds), 3),
    )


# ---- cores -----------------------------------------------------------------------------------

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
"""Requestors and the cases without a network use the first core, acceptors the last."""


def pin(pid: int, core: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(pid, {core})


# ---- where it was measured ---------------------------------------------------------------------


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return (done.stdout or done.stderr).splitlines()[0]


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
            return next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor()


def surroundings() -> dict[str, Any]:
    """The machine and the versions: without them a time means nothing."""
    libraries = {}
    for name in ("ltdic", "pynetdicom", "pydicom", "cffi"):
        try:
            libraries[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            libraries[name] = "none"
    libraries["dcmtk"] = _first_line("pkg-config", "--modversion", "dcmtk")
    libraries["dicom-ul"] = "0.10.1"
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{_processor()}, {len(CORES)} cores, {platform.system()} {platform.machine()}",
        "compiler": _first_line("cc", "--version"),
        "rust": _first_line("rustc", "--version"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": libraries,
    }


# ---- results -----------------------------------------------------------------------------------


def as_json(results: Results, table: list[dict[str, Any]]) -> str:
    cases = {
        name: {who: vars(measure) for who, measure in measures.items()}
        for name, measures in results.items()
    }
    whole = {**surroundings(), "targets": table, "cases": cases, "absent": ABSENT, "failed": FAILED}
    return json.dumps(whole, indent=1, sort_keys=False) + "\n"


def amount(measure: Measure) -> str:
    """The median, rounded, with its unit."""
    if measure.unit != "ns":
        return f"{measure.median:,.0f} {measure.unit}"
    return time_of(measure.median)


def time_of(value: float) -> str:
    """Nanoseconds, rounded, with a unit."""
    for unit in ("ns", "us", "ms"):
        if value < 1000:
            return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.3g} s"


def in_columns(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    """A line for each row; each column is as wide as its longest cell. `sides` has a character for
    each column: < aligns it left, > right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def _row(one: Case, who: str, m: Measure) -> list[str]:
    rate = ""
    if one.unit_bytes and m.unit == "ns" and m.least:
        rate = f"{one.unit_bytes / m.least * 1e9 / (1 << 20):,.0f} MiB/s"
    spread = f"least {m.least:,.1f}, most {m.most:,.1f}" if m.rounds > 1 else ""
    cpu = f"CPU {time_of(m.cpu)}" if m.cpu else ""
    return [who, amount(m), rate, cpu, spread]


def show(one: Case, measures: dict[str, Measure]) -> None:
    print(f"\n{one.name}")
    for line in in_columns([_row(one, who, m) for who, m in measures.items()], "<>>><"):
        print(f"  {line}")
    sys.stdout.flush()
