"""Draw the pictures of the results, and write their page."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STYLE = """<style>
text { font: 13px sans-serif; fill: #1f2328 }
.title { font-weight: bold } .small { font-size: 11px }
.ours { fill: #0969da } .others { fill: #8c959f } .floor { fill: #bf8700 }
.line { fill: none; stroke: #0969da; stroke-width: 2 } .axis { fill: none; stroke: #8c959f }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .ours { fill: #58a6ff } .others { fill: #6e7681 } .floor { fill: #d29922 }
.line { stroke: #58a6ff } .axis { stroke: #6e7681 } }
</style>"""

Rows = list[tuple[str, float]]
Steps = list[tuple[float, float]]


def _svg(width: int, height: int, *parts: str) -> str:
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    inside = "\n".join((STYLE, *parts))
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n{inside}\n</svg>\n'


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    more = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"{more}>{text}</text>'


def _upwards(x: float, y: float, text: str) -> str:
    """The title of a vertical axis, around this middle."""
    turn = f'transform="rotate(-90 {x:.0f} {y:.0f})"'
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle" {turn}>{text}</text>'


# ---- bars --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bars:
    title: str
    axis: str
    case: str
    """Its contenders are the bars: how many of `axis` they do in a second."""


ROW, LEFT, BAR, WIDTH = 22, 190, 420, 720
KINDS = {"ours": "ltdic", "floor": "floor: a minimal program", "others": "other implementations"}


def _kind(who: str) -> str:
    return "ours" if who.startswith("ltdic") else "floor" if who.startswith("floor") else "others"


def _legend(rows: Rows) -> list[str]:
    parts, x = [], LEFT
    for kind, text in KINDS.items():
        if any(_kind(who) == kind for who, _ in rows):
            parts.append(f'<rect class="{kind}" x="{x}" y="4" width="12" height="12"/>')
            parts.append(_text(x + 18, 15, text))
            x += 40 + 7 * len(text)
    return parts


def _step(most: float) -> float:
    """The distance of the marks on an axis up to `most`: 1, 2 or 5 times a power of ten."""
    scale = 10.0 ** math.floor(math.log10(most / 3))
    return next(n * scale for n in (5, 2, 1) if n * scale <= most / 2.5)


def _bars(y: int, chart: Bars, rows: Rows) -> list[str]:
    """Longer is better; from the longest to the shortest."""
    parts = [_text(LEFT, y + 15, chart.title, kind="title")]
    most = max(value for _, value in rows)
    for n, (who, value) in enumerate(sorted(rows, key=lambda row: -row[1]), 1):
        top = y + n * ROW + 2
        width = max(1, BAR * value / most)
        at = f'x="{LEFT}" y="{top}" width="{width:.1f}" height="{ROW - 6}"'
        parts.append(_text(LEFT - 8, top + 13, who, "end"))
        parts.append(f'<rect class="{_kind(who)}" {at}/>')
        parts.append(_text(LEFT + width + 6, top + 13, f"{value:,.0f}"))
    top, bottom = y + ROW - 2, y + (len(rows) + 1) * ROW
    parts.append(f'<path class="axis" d="M{LEFT},{top} V{bottom} h{BAR}"/>')
    for n in range(int(most / _step(most)) + 1):
        x = LEFT + BAR * n * _step(most) / most
        parts.append(f'<path class="axis" d="M{x:.1f},{bottom} v4"/>')
        parts.append(_text(x, bottom + 16, f"{n * _step(most):,.0f}", "middle", "small"))
    parts.append(_upwards(14, (top + bottom) / 2, "implementation"))
    parts.append(_text(LEFT + BAR / 2, bottom + 34, chart.axis, "middle"))
    return parts


def _charts(*charts: tuple[Bars, Rows]) -> str:
    parts = _legend(charts[0][1])
    y = 30
    for chart, rows in charts:
        parts += _bars(y, chart, rows)
        y += (len(rows) + 1) * ROW + 56
    return _svg(WIDTH, y - 12, *parts)


# ---- growth ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Growth:
    title: str
    across: str
    up: str
    unit: float
    """Nanoseconds in a unit of the vertical axis."""
    case: str
    """Its contenders are the steps of the horizontal axis."""


SIDE, BEFORE, TOP = 210, 80, 28


def _marks(low: float, reach: float) -> list[int]:
    """Powers of ten within an axis: all, or every other one."""
    powers = range(math.ceil(low), math.floor(low + reach) + 1)
    return list(powers[:: 1 if len(powers) <= 4 else 2])


def _plot(x: int, chart: Growth, steps: Steps) -> list[str]:
    """Both axes are logarithmic with one scale: a time that grows in proportion is a line at 45
    degrees."""
    xs = [math.log10(step) for step, _ in steps]
    ys = [math.log10(time / chart.unit) for _, time in steps]
    reach = 1.2 * max(max(xs) - min(xs), max(ys) - min(ys))
    left, low = ((max(of) + min(of) - reach) / 2 for of in (xs, ys))
    bottom = TOP + SIDE

    def across(power: float) -> float:
        return x + SIDE * (power - left) / reach

    def up(power: float) -> float:
        return bottom - SIDE * (power - low) / reach

    points = [(across(a), up(b)) for a, b in zip(xs, ys, strict=True)]
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    parts = [_text(x, 15, chart.title, kind="title")]
    parts.append(f'<path class="axis" d="M{x},{TOP} V{bottom} h{SIDE}"/>')
    for power in _marks(left, reach):
        parts.append(f'<path class="axis" d="M{across(power):.1f},{bottom} v4"/>')
        parts.append(_text(across(power), bottom + 16, f"{10**power:,}", "middle", "small"))
    for power in _marks(low, reach):
        parts.append(f'<path class="axis" d="M{x},{up(power):.1f} h-4"/>')
        label = f"{10.0**power:,.{max(0, -power)}f}"
        parts.append(_text(x - 7, up(power) + 4, label, "end", "small"))
    parts.append(f'<polyline class="line" points="{line}"/>')
    for n, side, height, anchor in ((0, 4, 17, "start"), (-1, 0, -9, "end")):
        a, b = points[n]
        parts.append(f'<circle class="ours" cx="{a:.1f}" cy="{b:.1f}" r="3"/>')
        parts.append(_text(a + side, b + height, _time(steps[n][1]), anchor))
    parts.append(_upwards(x - 56, TOP + SIDE / 2, chart.up))
    parts.append(_text(x + SIDE / 2, bottom + 34, chart.across, "middle"))
    return parts


# ---- figures -----------------------------------------------------------------------------------


def _time(nanoseconds: float) -> str:
    for unit in ("ns", "µs", "ms"):
        if nanoseconds < 999.5:
            digits = 0 if nanoseconds >= 99.5 else 1 if nanoseconds >= 9.95 else 2
            return f"{nanoseconds:.{digits}f} {unit}"
        nanoseconds /= 1000
    return f"{nanoseconds:.2f} s"


def _rates(cases: Any, case: str) -> Rows:
    return [(who, 1e9 / measure["median"]) for who, measure in cases[case].items()]


def _steps(cases: Any, case: str) -> Steps:
    return [(float(step), measure["median"]) for step, measure in cases[case].items()]


DECODED = "PDUs decoded in a second"
REJECTED = "associations rejected in a second"
RECEIVED = "MiB received in a second"
BARS = {
    "codec.svg": (
        Bars(
            "A-ASSOCIATE-RQ with 1 presentation context",
            DECODED,
            "decode A-ASSOCIATE-RQ, 1 context",
        ),
        Bars(
            "A-ASSOCIATE-RQ with 128 contexts of 4 transfer syntaxes",
            DECODED,
            "decode A-ASSOCIATE-RQ, 128 x 4",
        ),
    ),
    "associations.svg": (
        Bars("One by one", REJECTED, "rejected association, one by one: with itself"),
        Bars("64 at once", REJECTED, "rejected association, 64 at once: with itself"),
    ),
    "bulk.svg": (
        Bars(
            "In P-DATA-TF of 16 KiB",
            RECEIVED,
            "receive 1 MiB in P-DATA-TF of 16 KiB, one association",
        ),
        Bars(
            "In P-DATA-TF of 128 KiB",
            RECEIVED,
            "receive 1 MiB in P-DATA-TF of 128 KiB, one association",
        ),
    ),
}
GROWTH = (
    Growth(
        "Decode an A-ASSOCIATE-RQ in C",
        "presentation contexts (number, log)",
        "time for the PDU (µs, log)",
        1e3,
        "decode A-ASSOCIATE-RQ of so many contexts: ltdic C",
    ),
    Growth(
        "Decode 1 MiB in Python",
        "chunks of the stream (number, log)",
        "time for all chunks (ms, log)",
        1e6,
        "decode a stream in so many chunks: ltdic Python",
    ),
    Growth(
        "One more association, in C",
        "open associations (number, log)",
        "time for one echo (µs, log)",
        1e3,
        "echoed association, beside open ones: ltdic C",
    ),
)


def pictures(result: Any) -> dict[str, str]:
    """The SVG of each picture, by file name."""
    cases = result["cases"]
    drawn = {
        name: _charts(*[(chart, _rates(cases, chart.case)) for chart in charts])
        for name, charts in BARS.items()
    }
    plots: list[str] = []
    for n, chart in enumerate(GROWTH):
        plots += _plot(n * (SIDE + BEFORE) + BEFORE, chart, _steps(cases, chart.case))
    drawn["growth.svg"] = _svg(len(GROWTH) * (SIDE + BEFORE) + 20, TOP + SIDE + 46, *plots)
    return drawn


# ---- page --------------------------------------------------------------------------------------

HEAD = """# Results

`python tests/system/fast_rejections.py` and `python bench` measured these figures.
`python bench --draw bench/results/speed.json` wrote this page and its pictures from both results.

"""
REJECTIONS = """## Rejections beside pynetdicom

The acceptor sends an A-ASSOCIATE-RJ, and closes or resets the connection at once. It has read the
request, but not in the rows with "unread". Where the row names ltdic, it is an acceptor of ltdic.
A rejection is lost where the requestor reported the end of the connection or nothing, misreported
where it reported something else: pynetdicom reported an abort.

"""
SPEED = """
## Speed

All figures are from one run of `python bench`. Each contender first gives the same answer as the
others; then all do the same work on the same bytes, in turns. A *floor* is a minimal program of
ours, which does only the unavoidable work: the C floor and the asyncio floor send fixed bytes over
plain sockets; the floor of the codec decodes and encodes nothing but A-ASSOCIATE-RJ. DCMTK and
dicom-rs (dicom-ul) are measured through small programs in [contenders](../contenders).

"""
REASONS = """
## What is not met, and why

The parts were measured beside each other on 2026-11-30.

- Decode A-ASSOCIATE-RJ: the floor knows no other PDU. What is left, 2.6 ns, finds the type,
  compares the length with the bytes that there are, and writes the row of the result.
- Encode A-ASSOCIATE-RQ: 52 ns. Before anything is written, each row is checked for its place
  and for what PS3.8 allows.
- `on_request` in a thread: the request goes to another thread and its answer back, and the
  interpreter lets one of both run: 61 us more than the answer of C. With `inline` it is 20 us.
- `aio.Server`, echoed one by one: a turn of the event loop takes longer than the loop of C
  takes to accept, answer and release; the requestor waits for three of them.
- `connect`: a Python program of five socket calls that decodes nothing takes 60 us, as DCMTK
  does; the calls of C that `connect` makes, from Python, take 72 us. The other 41 us are some
  270 calls of Python functions: the checks of the arguments, what keeps an association whole
  where a signal handler raises, another thread aborts or the process forks, and the exception.
  With 64 threads the interpreter lets one run at a time.
- `aio.connect`: the same, and two turns of the event loop. The floor sends bytes that were
  encoded before, and looks at one byte of the answer.
- TLS, a handshake: `ltdic_openssl` takes 12 us beside the 212 us of OpenSSL and the system;
  Python's adapter 63 us, for 9.5 calls from C into Python, each with the lock of the
  interpreter.
- TLS, receiving: `ltdic C` and `Server` are faster than the floor by the clock. They use the
  time that the floor sleeps to look for more, which counts as CPU. `aio.Server` makes a task
  for each batch.
"""
ALT = {
    "codec": "A-ASSOCIATE-RQ decoded in a second, by implementation",
    "associations": "associations rejected in a second, each implementation with itself",
    "bulk": "MiB received in a second, by implementation",
    "growth": "time by number of contexts, chunks and open associations, logarithmic",
}


def _table(columns: str, alignment: str, rows: list[list[str]]) -> str:
    return "\n".join([columns, alignment, *(f"| {' | '.join(row)} |" for row in rows), ""])


def _rejections(result: Any) -> str:
    rows = [
        [
            *(row["acceptor"], row["requestor"]),
            *(f"{row[what]:,}" for what in ("count", "rejected", "lost", "misreported")),
            f"{1000 * row['seconds'] / row['count']:.2f}",
        ]
        for row in result["rows"]
    ]
    columns = "| the acceptor | requestor | rejections | rejected | lost | misreported | ms each |"
    versions = result["versions"]
    return REJECTIONS + "\n".join(
        [
            _table(columns, "| --- | --- | ---: | ---: | ---: | ---: | ---: |", rows),
            f"ltdic {versions['ltdic']} and pynetdicom {versions['pynetdicom']};",
            "the requestors of an acceptor took turns, in one process. Measured on",
            f"{result['date']}, {result['machine']}, Python {versions['python']},",
            "while the machine had other work too ([rejections.json](rejections.json)).",
            "",
        ]
    )


def _speed(result: Any) -> str:
    rows = [
        [
            *(row["what"], row["wanted"], f"{row['figure']:,.3g} {row['unit']}"),
            "yes" if row["met"] else "**no**",
        ]
        for row in result["targets"]
    ]
    versions = ", ".join(f"{name} {version}" for name, version in result["libraries"].items())
    where = f"{result['date']}, {result['machine']}, {result['python']}, {result['compiler']}"
    count = sum(row["met"] for row in result["targets"])
    return SPEED + "\n".join(
        [
            *(f"![{alt}]({name}.svg)\n" for name, alt in ALT.items()),
            f"{count} of {len(rows)} targets met. Measured on {where};",
            f"{versions}, {result['rust']}",
            "([speed.json](speed.json)).\n",
            _table("| contender: case | target | figure | met |", "| - | - | -: | - |", rows),
        ]
    )


def page(speed: Any, rejections: Any) -> str:
    """The text of bench/results/README.md."""
    return HEAD + _rejections(rejections) + _speed(speed) + REASONS


def draw(results: Path, folder: Path) -> None:
    """Write the pictures and the page into the folder of the results."""
    speed = json.loads(results.read_text(encoding="utf-8"))
    rejections = json.loads((folder / "rejections.json").read_text(encoding="utf-8"))
    for name, picture in pictures(speed).items():
        (folder / name).write_text(picture, encoding="utf-8")
    (folder / "README.md").write_text(page(speed, rejections), encoding="utf-8")
