"""Print two results side by side, with ratios."""

from __future__ import annotations

import json
from pathlib import Path

from harness import in_columns


def compare(old: Path, new: Path) -> None:
    before, after = (json.loads(path.read_text(encoding="utf-8")) for path in (old, new))
    for key in ("date", "machine", "compiler", "python", "libraries"):
        if before[key] != after[key]:
            print(f"{key}: {before[key]} -> {after[key]}")
    lines = [["case", "contender", "old", "new", "new / old", ""]]
    for name, measures in after["cases"].items():
        for who, measure in measures.items():
            was = before["cases"].get(name, {}).get(who)
            if was is None:
                continue
            ratio = measure["median"] / was["median"] if was["median"] else float("nan")
            figures = [f"{was['median']:,.1f}", f"{measure['median']:,.1f}", f"{ratio:.2f}"]
            lines.append([name, who, *figures, measure["unit"]])
    print("", *in_columns(lines, "<<>>><"), sep="\n")
