"""`python bench`: the benchmarks of ltdic. `python bench --help` says how."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import codec  # noqa: F401 - its cases
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
        description="Measure ltdic beside its peers and beside floors, all in one run.",
    )
    parser.add_argument("cases", nargs="*", help="only those with this in their name")
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--quick", action="store_true", help="once each: does it run?")
    parser.add_argument("--all", action="store_true", help="fail where a contender is not here")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("OLD", "NEW"))
    parser.add_argument("--draw", type=Path, metavar="FILE", help="the pictures of these results")
    return parser.parse_args()


def _measure(args: argparse.Namespace) -> None:
    chosen = [
        one
        for name, one in harness.CASES.items()
        if not args.cases or any(text in name for text in args.cases)
    ]
    if not chosen:
        sys.exit("no such case: --list names them")
    results: harness.Results = {}
    harness.pin(0, harness.CORES[0])
    for one in chosen:
        rounds = 1 if args.quick else args.rounds
        results[one.name] = harness.run(one, harness.Effort(rounds, args.quick))
        harness.show(one, results[one.name])
    for who, lacks in harness.ABSENT.items():
        print(f"\n{who} is not here: {lacks}")
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
        sys.exit("not all contenders are here")


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
