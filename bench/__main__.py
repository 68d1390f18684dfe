"""`python bench` measures ltdic beside other implementations. `--help` lists the options."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import codec  # noqa: F401 - importing it registers its cases
import harness
import network  # noqa: F401
import small  # noqa: F401
import targets
from compare import compare
from pictures import draw

RESULTS = Path(__file__).resolve().parent / "results"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python bench",
        description="Measure ltdic beside other implementations and minimal programs (floors).",
    )
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help="part of the names of the cases; default: all"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument(
        "--quick", action="store_true", help="run each case once: only to see that it runs"
    )
    parser.add_argument("--all", action="store_true", help="fail where a contender is missing")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each case; default: 9")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    parser.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar=("OLD", "NEW"),
        help="print two results, and the ratio new / old for each contender",
    )
    parser.add_argument(
        "--draw", type=Path, metavar="FILE", help="write bench/results/README.md and its pictures"
    )
    return parser.parse_args()


def _measure(args: argparse.Namespace) -> None:
    chosen = [
        one
        for name, one in harness.CASES.items()
        if not args.cases or any(text in name for text in args.cases)
    ]
    if not chosen:
        sys.exit("no case has such a name: --list prints the names")
    results: harness.Results = {}
    harness.pin(0, harness.CORES[0])
    for one in chosen:
        rounds = 1 if args.quick else args.rounds
        results[one.name] = harness.run(one, harness.Effort(rounds, args.quick))
        harness.show(one, results[one.name])
    for who, lacks in harness.ABSENT.items():
        print(f"\n{who} is missing: it needs {lacks}")
    for what, why in harness.FAILED.items():
        print(f"\n{what}: {why}")
    table = targets.table(results)
    if not args.quick:
        targets.show(table)
    to = args.json or (None if args.cases or args.quick else RESULTS / "speed.json")
    if to is not None:
        to.write_text(harness.as_json(results, table), encoding="utf-8")
        print(f"\n{to}")
    if args.all and harness.ABSENT:
        sys.exit("contenders are missing")


def main() -> None:
    args = _arguments()
    if args.list:
        print("\n".join(harness.CASES))
    elif args.compare:
        compare(*args.compare)
    elif args.draw:
        draw(args.draw, RESULTS)
    else:
        _measure(args)


if __name__ == "__main__":
    main()
