"""The vectors, the state table, and the answers of the program `c/vectors.c`."""

from __future__ import annotations

import csv
import json
from typing import Any

import pytest

import ltdic
from ltdic._codec import _build
from support.paths import TESTS


def vectors(name: str) -> list[Any]:
    """Return the vectors of one file as test parameters with their ids."""
    found = json.loads((TESTS / "vectors" / name).read_text())["vectors"]
    return [pytest.param(vector, id=vector["id"]) for vector in found]


def cells() -> dict[tuple[int, int], tuple[str, list[int]]]:
    """Return PS3.8 table 9-10: the action and the next states for each state and event."""
    with open(TESTS / "vectors" / "fsm.csv", newline="") as file:
        return {
            (int(row["state"][3:]), int(row["event"][3:])): (
                row["action"],
                [int(state[3:]) for state in row["next_state"].split("|")],
            )
            for row in csv.DictReader(file)
        }


CELLS = cells()


def read_line(line: str, wire: bytes) -> tuple[str, int, int] | tuple[ltdic.PDU, int, int]:
    """Parse the answer of vectors.c: kind, offset and need; or the PDU, its size and its rows."""
    words = line.split()
    if words[0] != "ok":
        return words[0], int(words[1]), int(words[2])
    rows: list[Any] = [tuple(map(int, row.split(","))) for row in words[1:]]
    size = 6 + rows[0][1]
    return _build(memoryview(wire)[:size], rows, exact=False), size, len(rows)
