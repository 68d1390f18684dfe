"""Two results side by side."""

from __future__ import annotations

import json
from pathlib import Path


def compare(old: Path, new: Path) -> None:
    before, after = (json.loads(path.read_text(encoding="utf-8")) for path in (old, new))
    for key in ("date", "machine", "compiler", "python", "libraries"):
        if before[key] != after[key]:
            print(f"{key}: {before[key]} -> {after[key]}")
    print(f"\n{'case':60}{'contender':28}{'old':>14}{'new':>14}{'new / old':>12}")
    for name, measures in after["cases"].items():
        for who, measure in measures.items():
            was = before["cases"].get(name, {}).get(who)
            if was is None:
                continue
            ratio = measure["median"] / was["median"] if was["median"] else float("nan")
            figures = f"{was['median']:14,.1f}{measure['median']:14,.1f}{ratio:12.2f}"
            print(f"{name:60}{who:28}{figures} {measure['unit']}")
