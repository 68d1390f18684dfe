"""Count the instructions that ltdic executes, and compare them with the committed counts: none may
be more than 2 % above.

    python bench/instructions.py            # compare; exit code 1 where one is above
    python bench/instructions.py --write    # replace the committed counts

callgrind counts them: the load of the machine does not matter. The compiler does, and so does the
processor, for which the C library chooses its memcpy. The committed file names both; counts with
others are not compared.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pdus import PDUS

import build

COMMITTED = Path(__file__).resolve().parent / "results" / "instructions.json"
TOLERANCE = 1.02


def where() -> str:
    """The compiler and the processor."""
    done = subprocess.run(["cc", "--version"], capture_output=True, text=True, check=True)
    models = re.findall(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{done.stdout.splitlines()[0]}; {models[0] if models else 'unknown processor'}"


def counted(program: Path, *arguments: object) -> int:
    """The instructions of one run of this program."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", str(program)]
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1])


def each(program: Path, *arguments: object) -> float:
    """The instructions of one repetition: the last argument of the program is their number."""
    few, many = (counted(program, *arguments, count) for count in (100, 200))
    return (many - few) / 100


def count() -> Iterator[tuple[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pdu.bin")
        for name, data in PDUS.items():
            path.write_bytes(data)
            for operation in ("decode", "encode"):
                yield f"{operation} {name}", each(build.counter(), operation, path)
        path.write_bytes(PDUS["A-ASSOCIATE-RQ, 1 context"])
        yield "rejected association, both ends", each(build.rejected(), path)


def main() -> None:
    try:
        found = {"where": where(), "instructions": dict(count())}
    except FileNotFoundError as e:
        sys.exit(f"{e.filename} is not on this machine")
    if "--write" in sys.argv[1:]:
        COMMITTED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return
    committed = json.loads(COMMITTED.read_text(encoding="utf-8"))
    if committed["where"] != found["where"]:
        print(f"counted with {committed['where']}; this is {found['where']}: not compared")
        return
    above = 0
    for name, instructions in found["instructions"].items():
        before = committed["instructions"][name]
        is_above = instructions > before * TOLERANCE
        above += is_above
        print(f"{name:40} {before:10,.0f} {instructions:10,.0f}{'  above' if is_above else ''}")
    sys.exit(1 if above else 0)


if __name__ == "__main__":
    main()
