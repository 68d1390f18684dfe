"""The page of the results, and its pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

STYLE = """<style>
text { font: 13px sans-serif; fill: #1f2328 } .title { font-weight: bold }
.ours { fill: #0969da } .others { fill: #8c959f } .floor { fill: #bf8700 }
.line { fill: none; stroke: #0969da; stroke-width: 2 } .axis { stroke: #8c959f }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .ours { fill: #58a6ff } .others { fill: #6e7681 } .floor { fill: #d29922 }
.line { stroke: #58a6ff } .axis { stroke: #6e7681 } }
</style>"""

Rows = list[tuple[str, float]]


def _svg(width: int, height: int, *parts: str) -> str:
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    inside = "\n".join((STYLE, *parts))
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n{inside}\n</svg>\n'


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}"{more}>{text}</text>'


def _kind(who: str) -> str:
    return "ours" if who.startswith("ltdic") else "floor" if who.startswith("floor") else "others"


ROW, LEFT, BAR, WIDTH = 22, 210, 400, 720


def _bars(y: int, title: str, rows: Rows) -> list[str]:
    """Longer is better; from the longest to the shortest."""
    parts = [_text(0, y + 15, title, ' class="title"')]
    most = max(value for _, value in rows)
    for n, (who, value) in enumerate(sorted(rows, key=lambda row: -row[1]), 1):
        top = y + n * ROW + 2
        width = max(1, BAR * value / most)
        at = f'x="{LEFT}" y="{top}" width="{width:.1f}" height="{ROW - 6}"'
        parts.append(_text(LEFT - 8, top + 13, who, ' text-anchor="end"'))
        parts.append(f'<rect class="{_kind(who)}" {at}/>')
        parts.append(_text(LEFT + width + 6, top + 13, f"{value:,.0f}"))
    return parts


def _charts(*charts: tuple[str, Rows]) -> str:
    parts: list[str] = []
    y = 0
    for title, rows in charts:
        parts += _bars(y, title, rows)
        y += (len(rows) + 1) * ROW + 14
    return _svg(WIDTH, y, *parts)


SIDE, GAP = 200, 40


def _plot(x: int, title: str, steps: Rows) -> list[str]:
    """Both axes are logarithmic: what grows as its argument does climbs by a square's diagonal."""
    xs, ys = [[math.log10(step[n]) for step in steps] for n in (0, 1)]  # type: ignore[arg-type]
    reach = max(xs[-1] - xs[0], max(ys) - min(ys)) or 1
    low = min(ys) - (reach - (max(ys) - min(ys))) / 2
    points = [
        (x + SIDE * (a - xs[0]) / reach, 40 + SIDE - SIDE * (b - low) / reach)
        for a, b in zip(xs, ys, strict=True)
    ]
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    corner = f"M{x},40 v{SIDE} h{SIDE}"
    parts = [_text(x, 15, title, ' class="title"')]
    parts.append(f'<path class="axis" fill="none" d="{corner}"/>')
    parts.append(f'<polyline class="line" points="{line}"/>')
    for n in (0, -1):
        a, b = points[n]
        label = f"{steps[n][0]:,.0f}: {_time(steps[n][1])}"
        anchor = "start" if n == 0 else "end"
        parts.append(f'<circle class="ours" cx="{a:.1f}" cy="{b:.1f}" r="3"/>')
        parts.append(_text(a, b + (16 if n == 0 else -8), label, f' text-anchor="{anchor}"'))
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


def _steps(cases: Any, case: str) -> Rows:
    return [(float(step), measure["median"]) for step, measure in cases[case].items()]  # type: ignore[misc]


BARS = {
    "codec.svg": (
        ("A-ASSOCIATE-RQ of 1 context, decoded per second", "decode A-ASSOCIATE-RQ, 1 context"),
        ("of 128 contexts, 4 transfer syntaxes each", "decode A-ASSOCIATE-RQ, 128 x 4"),
    ),
    "associations.svg": (
        ("rejections per second, one by one", "rejected association, one by one: with itself"),
        ("64 at once", "rejected association, 64 at once: with itself"),
    ),
    "bulk.svg": (
        (
            "MiB received per second, P-DATA-TF of 16 KiB",
            "receive 1 MiB in P-DATA-TF of 16 KiB, one association",
        ),
        ("128 KiB each", "receive 1 MiB in P-DATA-TF of 128 KiB, one association"),
    ),
}
GROWTH = (
    ("contexts of an RQ, C", "decode A-ASSOCIATE-RQ of so many contexts: ltdic C"),
    ("chunks of a stream, Python", "decode a stream in so many chunks: ltdic Python"),
    ("open associations, C", "echoed association, beside open ones: ltdic C"),
)


def pictures(result: Any) -> dict[str, str]:
    """By file name."""
    cases = result["cases"]
    drawn = {
        name: _charts(*[(title, _rates(cases, case)) for title, case in charts])
        for name, charts in BARS.items()
    }
    plots: list[str] = []
    for n, (title, case) in enumerate(GROWTH):
        plots += _plot(n * (SIDE + GAP), title, _steps(cases, case))
    drawn["growth.svg"] = _svg(3 * (SIDE + GAP), SIDE + 50, *plots)
    return drawn


HEAD = """# Results

Each figure here was measured by `python bench` or `python bench/rejections.py`, and this page was
written from the results by `python bench --draw bench/results/speed.json`.

"""
REJECTIONS = """## Rejections beside pynetdicom

Rejections by an acceptor that is gone at once, and what each requestor reported. The acceptor sends
its A-ASSOCIATE-RJ and closes, or resets the connection, after it has read the request or, where it
says unread, without; the last three are acceptors of ltdic's. Misreported are those of which
pynetdicom said that the association was aborted.

"""
SPEED = """
## Speed

Everything here comes out of one run of `python bench`: each contender does the same work on the
same bytes, after it has given the same answer, and they take turns. The *floors* are ours and do
nothing but the work: a loop over the bytes for the codec, fixed bytes over bare sockets for the
network.
DCMTK and dicom-rs (dicom-ul) take part by small programs of ours in [contenders](../contenders).

"""
ALT = {
    "codec": "A-ASSOCIATE-RQ decoded per second, by each contender",
    "associations": "rejected associations per second, each contender with itself",
    "bulk": "MiB received per second, by each contender",
    "growth": "time against contexts, chunks and open associations, logarithmic",
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
            f"ltdic {versions['ltdic']} and pynetdicom {versions['pynetdicom']},",
            "those of one acceptor in turns, in one process; measured on",
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
    """The README of the results."""
    return HEAD + _rejections(rejections) + _speed(speed)


def draw(results: Path, folder: Path) -> None:
    """Write the pictures and the page into the folder of the results."""
    speed = json.loads(results.read_text(encoding="utf-8"))
    rejections = json.loads((folder / "rejections.json").read_text(encoding="utf-8"))
    for name, picture in pictures(speed).items():
        (folder / name).write_text(picture, encoding="utf-8")
    (folder / "README.md").write_text(page(speed, rejections), encoding="utf-8")
