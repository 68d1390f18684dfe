"""Instructions that ltdic takes, held against the committed ones: none may be more than 2 % above.

    python bench/instructions.py            # compare; exit code 1 where one is above
    python bench/instructions.py --write    # make these the committed ones

They depend on the compiler and, where the C library chooses its memcpy, on the processor, which the
file names: others are not compared.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import codec

COMMITTED = Path(__file__).resolve().parent / "results" / "instructions.json"
TOLERANCE = 1.02


def where() -> str:
    """The compiler and the processor."""
    done = subprocess.run(["cc", "--version"], capture_output=True, text=True, check=True)
    models = re.findall(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{done.stdout.splitlines()[0]}; {models[0] if models else 'unknown processor'}"


def main() -> None:
    counted = {name: measure.median for name, measure in codec.instructions()}
    if not counted:
        sys.exit("valgrind is not on this machine")
    found = {"where": where(), "instructions": counted}
    if "--write" in sys.argv[1:]:
        COMMITTED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return
    committed = json.loads(COMMITTED.read_text(encoding="utf-8"))
    if committed["where"] != found["where"]:
        print(f"counted with {committed['where']}; this is {found['where']}: not compared")
        return
    above = 0
    for name, count in counted.items():
        before = committed["instructions"][name]
        is_above = count > before * TOLERANCE
        above += is_above
        print(f"{name:40} {before:10,.0f} {count:10,.0f}{'  above' if is_above else ''}")
    sys.exit(1 if above else 0)


if __name__ == "__main__":
    main()
