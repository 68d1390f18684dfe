"""Targets of the figures: ratios within one run, and a few absolute ones."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness import Results, in_columns


@dataclass(frozen=True)
class Target:
    what: str
    wanted: str
    figure: Callable[[Results], float]
    """Raises KeyError where something was not measured."""
    is_met: Callable[[float], bool]
    unit: str = "x"


def ratio(cases: Results, case: str, who: str, than: str) -> float:
    """The median, over the rounds, of the time of one contender to that of the other in the same
    round."""
    one, other = cases[case][who], cases[case][than]
    if not one.times or len(one.times) != len(other.times):
        return one.median / other.median
    return statistics.median(a / b for a, b in zip(one.times, other.times, strict=True))


def _faster(case: str, times: float, who: str, than: str) -> Target:
    """`who` takes at most the `times`th part of what `than` takes."""
    return Target(
        f"{who}: {case}",
        f"at least {times:g} x {than}",
        lambda cases: ratio(cases, case, than, who),
        lambda figure: figure >= times,
    )


def _near(case: str, most: float, who: str, than: str) -> Target:
    return Target(
        f"{who}: {case}",
        f"at most {most:g} x {than}",
        lambda cases: ratio(cases, case, who, than),
        lambda figure: figure <= most,
    )


def _cpu(case: str, most: float, who: str, than: str) -> Target:
    return Target(
        f"{who}: {case}, CPU",
        f"at most {most:g} x {than}",
        lambda cases: cases[case][who].cpu / cases[case][than].cpu,
        lambda figure: figure <= most,
    )


def _below(case: str, who: str, most: float, unit: str) -> Target:
    return Target(
        f"{who}: {case}",
        f"at most {most:g} {unit}",
        lambda cases: cases[case][who].median,
        lambda figure: figure <= most,
        unit,
    )


def _growth(case: str, most: float, per_step: bool) -> Target:
    """The time of the last step of a series over that of the first. `per_step`: each is divided by
    its step."""

    def figure(cases: Results) -> float:
        steps = [(float(name), m.median) for name, m in cases[case].items()]
        (first, before), (last, after) = steps[0], steps[-1]
        return after / before / (last / first if per_step else 1)

    what = "last step to first, for each unit" if per_step else "last step to first"
    return Target(f"{case}: {what}", f"at most {most:g}", figure, lambda f: f <= most)


C, PYTHON, RS, FLOOR = "ltdic C", "ltdic Python", "dicom-rs", "floor C"
RQ1, RQ128 = "A-ASSOCIATE-RQ, 1 context", "A-ASSOCIATE-RQ, 128 x 4"


def _all() -> list[Target]:
    targets = [
        _near("decode A-ASSOCIATE-RJ", 2, C, FLOOR),
        _faster(f"decode {RQ1}", 5, C, RS),
        _faster(f"decode {RQ128}", 10, C, RS),
        _faster("decode A-ASSOCIATE-AC, 128 contexts", 8, C, RS),
        _below("decode P-DATA-TF, 16 KiB", C, 20, "ns"),
        _below("decode P-DATA-TF, 128 KiB", C, 20, "ns"),
        _faster("encode A-ASSOCIATE-RJ", 3, C, RS),
        _faster(f"encode {RQ1}", 10, C, RS),
        _faster(f"encode {RQ128}", 10, C, RS),
        _faster("decode A-ASSOCIATE-RJ", 5, PYTHON, "pynetdicom"),
        _below("decode a run of 10,000 A-ASSOCIATE-RJ, each", PYTHON, 10, "ns"),
        _faster(f"decode {RQ1}", 12, PYTHON, "pynetdicom"),
        _faster(f"decode {RQ128}", 35, PYTHON, "pynetdicom"),
    ]
    for times in ("one by one", "64 at once"):
        rejected = f"rejected association, {times}"
        echoed = f"echoed association, {times}"
        targets += [
            _faster(f"{rejected}: with itself", 0.9, C, FLOOR),
            _faster(f"{rejected}: acceptors", 0.85, "ltdic Server", FLOOR),
            _faster(f"{rejected}: acceptors", 0.6, "ltdic Server, on_request", FLOOR),
            _faster(f"{rejected}: acceptors", 0.75, "ltdic Server, inline", FLOOR),
            _faster(f"{rejected}: requestors", 0.6, "ltdic l_dicom", FLOOR),
            _faster(f"{rejected}: acceptors", 1.5, "ltdic aio.Server", "floor asyncio"),
            _faster(f"{rejected}: acceptors", 0.9, "ltdic aio.Server, on_request", "floor asyncio"),
            _faster(f"{echoed}: acceptors", 1.5, "ltdic aio.Server", "floor asyncio"),
            _cpu(f"{rejected}: acceptors", 1.3, "ltdic aio.Server", "ltdic Server"),
            _cpu(f"{echoed}: acceptors", 1.3, "ltdic aio.Server", "ltdic Server"),
            _cpu(f"{rejected}: requestors", 2, "ltdic connect", FLOOR),
            _faster(f"{echoed}: with itself", 0.9, C, FLOOR),
        ]
    for kib in (16, 128):
        receive = f"receive 1 MiB in P-DATA-TF of {kib} KiB"
        one, eight = f"{receive}, one association", f"{receive}, eight associations"
        targets += [
            _faster(one, 0.9, C, FLOOR),
            _faster(one, 0.75, "ltdic Server", FLOOR),
            _faster(one, 0.8, "ltdic aio.Server", "ltdic Server"),
            _faster(eight, 0.85, C, FLOOR),
            _faster(eight, 0.85, "ltdic Server", FLOOR),
            _faster(eight, 0.8, "ltdic aio.Server", "ltdic Server"),
        ]
    for times, sync, in_loop in (("one by one", 1.0, 1.0), ("64 at once", 0.5, 1.2)):
        requestors = f"rejected association, {times}: requestors"
        targets += [
            _faster(requestors, sync, "ltdic connect", "DCMTK"),
            _faster(requestors, in_loop, "ltdic aio.connect", "floor asyncio"),
        ]
    echoed = "echoed association, one by one: requestors"
    targets += [
        _faster(echoed, 0.67, "ltdic connect", FLOOR),
        _faster(echoed, 0.8, "ltdic aio.connect", "floor asyncio"),
    ]
    secured = "rejected association over TLS, 64 at once: acceptors"
    targets += [
        _cpu(secured, 1.25, "ltdic Server", FLOOR),
        _cpu(secured, 1.25, "ltdic aio.Server", FLOOR),
        _cpu(secured, 1.05, C, FLOOR),
    ]
    for kib in (16, 128):
        receive = f"receive 1 MiB over TLS in P-DATA-TF of {kib} KiB, one association"
        targets += [
            _cpu(receive, 1.4, "ltdic Server", FLOOR),
            _cpu(receive, 1.4, "ltdic aio.Server", FLOOR),
            _cpu(receive, 1.2, C, FLOOR),
        ]
    return [
        *targets,
        _near(
            "refuse A-ASSOCIATE-RQ by its called title: ltdic C", 2, "128 contexts x 4", "1 context"
        ),
        _below("memory to receive 1 GiB", C, 8192, "KiB"),
        _below("memory to receive 1 GiB", "ltdic Server, beyond idle", 8192, "KiB"),
        _below("memory of an open idle association", C, 4096, "B"),
        _below("memory of an open idle association", "ltdic aio.Server", 2048, "B"),
        _growth("decode A-ASSOCIATE-RQ of so many contexts: ltdic C", 1.5, per_step=True),
        _growth("decode a stream in so many chunks: ltdic Python", 1.5, per_step=True),
        _growth("echoed association, beside open ones: ltdic C", 1.5, per_step=False),
    ]


def table(cases: Results) -> list[dict[str, Any]]:
    """A row with figure and verdict for each target whose cases were measured."""
    rows = []
    for target in _all():
        try:
            figure = target.figure(cases)
        except KeyError:
            continue
        row = {"what": target.what, "wanted": target.wanted, "figure": round(figure, 3)}
        rows.append({**row, "unit": target.unit, "met": target.is_met(figure)})
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    lines = [["target", "wanted", "figure", ""]]
    for row in rows:
        figure = f"{row['figure']:,.3g} {row['unit']}"
        lines.append([row["what"], row["wanted"], figure, "" if row["met"] else "NOT MET"])
    print("", *in_columns(lines, "<<><"), sep="\n")
    met = sum(row["met"] for row in rows)
    print(f"{met} of {len(rows)} targets met")
