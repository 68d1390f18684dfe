"""Compilers, other programs, and their environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import ltdic

STRICT = ["-Wall", "-Wextra", "-Werror"]
COMPILERS = {"gcc": ("gcc", "g++"), "clang": ("clang", "clang++")}


def clean_environment() -> dict[str, str]:
    """Return the environment for programs other than Python.

    It has no preloaded runtime of a sanitizer, and no scripts of virtual environments: pynetdicom
    installs an echoscu and a storescp of its own.
    """
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    # A sanitizer keeps 256 MiB of freed memory by default, too much for 32 bits.
    environment["ASAN_OPTIONS"] = "quarantine_size_mb=16"
    folders = environment.get("PATH", os.defpath).split(os.pathsep)
    scripts = sysconfig.get_path("scripts")
    environment["PATH"] = os.pathsep.join(
        folder
        for folder in folders
        if folder != scripts and not (Path(folder).parent / "pyvenv.cfg").exists()
    )
    return environment


def run(*command: str | Path, timeout: float = 1200, **options: Any) -> str:
    """Run a program to its end and return what it printed; fail with all of it if it fails."""
    result = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=clean_environment(),
        **options,
    )
    ended = f"{str(command)[:500]}: {result.returncode}\n{result.stdout[-5000:]}\n"
    assert result.returncode == 0, ended + result.stderr[-5000:]
    return result.stdout


BUILT: dict[tuple[str, ...], Path] = {}
"""Libraries and programs that toolchains of this run have built, by compiler, file and flags."""


def built_once(build: Callable[[], Path], *key: str) -> Path:
    if key not in BUILT:
        BUILT[key] = build()
    return BUILT[key]


class Toolchain:
    """A C and C++ compiler, and the library built with it as a static one."""

    def __init__(self, name: str, folder: Path, *flags: str) -> None:
        self.cc, self.cxx = COMPILERS[name]
        self.name, self.folder = " ".join([name, *flags]), folder
        self.flags = [*flags, *os.environ.get("LTDIC_TEST_CFLAGS", "").split()]

    @property
    def library(self) -> Path:
        """`libltdic.a`, built from the installed sources."""
        flags = [flag for flag in self.flags if flag != "-O2"]  # it is set anyway
        return built_once(self._build_library, self.cc, *flags)

    def _build_library(self) -> Path:
        def build(source: str) -> Path:
            built = self.folder / f"{Path(source).stem}.o"
            run(
                self.cc,
                *["-std=c11", "-O2", "-DLTDIC_STATIC", "-I", ltdic.get_include()],
                "-ffunction-sections",  # sections have the names of functions: see test_wipe.py
                *[*self.flags, *STRICT, "-c", source, "-o", built],
            )
            return built

        library = self.folder / "libltdic.a"
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            run("ar", "rcs", library, *pool.map(build, ltdic.get_sources()))
        return library

    def _compile(self, source: Path, standard: str) -> list[str]:
        """Return the start of a command that compiles this C file by this standard, C or C++."""
        cxx = standard.startswith("c++")
        language = ["-x", "c++" if cxx else "c", str(source), "-x", "none"]
        compiler = self.cxx if cxx else self.cc
        return [compiler, f"-std={standard}", "-O2", "-I", ltdic.get_include(), *STRICT, *language]

    def program(self, source: Path, standard: str, *more: str) -> Path:
        """Build an executable of one C file with the static library and `more` linker flags."""
        library = self.library

        def build() -> Path:
            built = library.parent / f"{source.stem}-{standard}-{len(BUILT)}"
            link = [library, "-pthread", "-DLTDIC_STATIC", *self.flags, *more, "-o", built]
            run(*self._compile(source, standard), *link)
            return built

        return built_once(build, str(library), str(source), standard, *more)

    def shared_object(self, source: Path, standard: str) -> Path:
        """Build a shared object of one C file, compiled with the header alone."""
        built = self.folder / f"{source.stem}-{standard}.so"
        run(*self._compile(source, standard), "-shared", "-fPIC", "-o", built)
        return built


def toolchain_or_skip(name: str, folder: Path, *, cxx: bool) -> Toolchain:
    """Return the toolchain of this name, as `gcc` or `gcc -m32`, if it builds a program here.

    The tests run without some compilers. In CI a skip is a failure: see `pytest_sessionfinish`.
    """
    compiler, *flags = name.split()
    built = Toolchain(compiler, folder, *flags)
    source = folder / "nothing.c"
    source.write_text("int main(void) { return 0; }\n")
    for program in [built.cc, built.cxx] if cxx else [built.cc]:
        command = [program, *built.flags, source, "-o", folder / "nothing"]
        try:
            subprocess.run(command, check=True, capture_output=True, env=clean_environment())
        except (OSError, subprocess.CalledProcessError) as e:
            pytest.skip(f"{name} does not build programs here: {e}")
    return built


def linux_toolchain_or_skip(name: str, folder: Path, why: str) -> Toolchain:
    """Return the toolchain for C alone, for a program that needs Linux; `why` names the feature."""
    if sys.platform != "linux":
        pytest.skip(f"only on Linux: {why}")
    return toolchain_or_skip(name, folder, cxx=False)


def is_installed(program: str) -> bool:
    """Tell whether the system has the program, apart from scripts of virtual environments."""
    return shutil.which(program, path=clean_environment()["PATH"]) is not None


def marks_of_peer(program: str, name: str) -> list[pytest.MarkDecorator]:
    """Return the marks of a test that needs this program and is skipped without it."""
    missing = pytest.mark.skipif(not is_installed(program), reason=f"{name} is not installed")
    return [pytest.mark.peers, missing]


def needs_peer(program: str, name: str) -> Callable[[Any], Any]:
    """Return a decorator that gives a test the marks of `marks_of_peer`."""

    def marked(test: Any) -> Any:
        for mark in marks_of_peer(program, name):
            test = mark(test)
        return test

    return marked
