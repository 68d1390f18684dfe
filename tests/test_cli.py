"""The command line, as a user runs it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from test_pdu import DEFINED

from ltdic import __main__ as cli


def ltdic(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-m", "ltdic", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_demo_shows_all_combinations_and_succeeds() -> None:
    result = ltdic("demo")
    rows = [line.split() for line in result.stdout.splitlines()[1:-1]]
    assert result.returncode == 0, result.stderr
    assert [row[0] for row in rows] == ["/".join(map(str, codes)) for codes in DEFINED]
    assert all(row[0] == row[1] for row in rows)
    assert result.stdout.splitlines()[-1].startswith("16 of 16")


def test_the_demo_fails_when_other_codes_arrive(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        cli.Demo, "codes", property(lambda _: (1, 1, 1), lambda *_: None), raising=False
    )
    assert cli.main(["demo"]) == 1
    assert "1 of 16" in capsys.readouterr().out


def test_the_demo_fails_when_nothing_arrives(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli.Demo, "on_reject", lambda *_: None)
    assert cli.main(["demo"]) == 1
    assert "0 of 16" in capsys.readouterr().out


def test_help_and_version_are_there_and_nonsense_is_a_usage_error() -> None:
    assert "demo" in ltdic("--help").stdout
    assert ltdic("--version").stdout.startswith("ltdic ")
    assert ltdic("nonsense").returncode == 64
    assert ltdic().returncode == 64
