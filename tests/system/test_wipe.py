"""Memory that held a passcode is wiped before it is freed; no compiler removes the stores."""

from __future__ import annotations

import platform
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import ltdic
from support.paths import TESTS
from support.toolchain import COMPILERS, Toolchain, run, toolchain_or_skip

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("objdump") is None,
    reason="ld --wrap and the names of relocations are those of GNU binutils",
)

PROGRAM = TESTS / "c" / "passcode.c"


@pytest.fixture(
    scope="module", params=[f"{cc} {level}" for cc in COMPILERS for level in ("-O2", "-O3")]
)
def optimizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Each compiler at each level that removes stores to memory before it is freed."""
    return toolchain_or_skip(request.param, tmp_path_factory.mktemp("wipe"), cxx=False)


# ---- the memory ------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_freed_block_contains_a_passcode(optimizer: Toolchain) -> None:
    wraps = [f"-Wl,--wrap={name}" for name in ("free", "realloc")]
    control, *found = run(optimizer.program(PROGRAM, "c11", *wraps)).splitlines()
    assert control == "a block of the test: found"
    assert [line for line in found if not line.endswith(": not found")] == []
    assert len(found) > 15


# ---- the object code -------------------------------------------------------------------------

# Functions that free memory which may hold a passcode.
WIPING = {
    "associate": ["L_DicomFreeAssociate", "L_DicomResetAssociate", "L_DicomSetUserIdentity"],
    "admission": ["ltdic_admission_free", "ltdic_admission_add_identity"],
    "association": [
        *["ltdic_association_free", "ltdic_association_send", "ltdic_association_next"],
        "ltdic__association_reset",
    ],
    "outbox": [
        *["ltdic__outbox_clear", "ltdic__outbox_discard", "ltdic__outbox_drop"],
        *["ltdic__outbox_lose", "ltdic__outbox_send", "ltdic__outbox_sent"],
    ],
    "buffer": ["ltdic__reserve_secret"],
    "endpoint": ["ltdic_net_free", "ltdic_net_done"],
    "batch": ["ltdic__batch_begin", "ltdic__batch_clear"],
    "l_dicom": ["L_DicomSendAssociateRequest"],
}


def names_used(built: Path) -> dict[str, set[str]]:
    """Return for each function in an object file the names that it uses."""
    used: dict[str, set[str]] = {}
    for line in run("objdump", "-dr", built).splitlines():
        if function := re.match(r"[0-9a-f]+ <([\w.]+)>:", line):
            names = used.setdefault(function[1], set())
        elif name := re.search(r"R_\w+\s+(?:\.text\.(?:unlikely\.)?)?([\w.]+)", line):
            names.add(name[1])
    return used


def reaches(used: dict[str, set[str]], function: str, wanted: str) -> bool:
    """Tell whether a function uses this name, directly or through functions of the same file."""
    seen, todo = set(), [function]
    while todo:
        names = used.get(todo.pop(), set()) - seen
        seen |= names
        todo += names
    return wanted in seen


def compiled(compiler: Toolchain, source: Path, *flags: str) -> Path:
    built = compiler.folder / f"{source.stem}-searched.o"
    options = ["-std=c11", *compiler.flags, *flags, "-DLTDIC_STATIC"]
    run(compiler.cc, *options, "-I", ltdic.get_include(), "-c", source, "-o", built)
    return built


@pytest.mark.slow
@pytest.mark.parametrize("name", WIPING)
def test_every_function_that_frees_a_passcode_wipes_it(optimizer: Toolchain, name: str) -> None:
    used = names_used(optimizer.library.parent / f"{name}.o")
    assert [f for f in WIPING[name] if not reaches(used, f, "ltdic__wipe")] == []


WIPE_AND_FREE = """
#include <stddef.h>
static inline __attribute__((always_inline)) void ltdic__wipe(void *data, size_t size);
#include "codec/wipe.c"
#include <stdlib.h>
void wipe_and_free(void *data, size_t size)
{
    ltdic__wipe(data, size);
    free(data);
}
"""


@pytest.mark.slow
def test_the_stores_stay_when_the_compiler_sees_the_free(optimizer: Toolchain) -> None:
    source = optimizer.folder / "wipe_and_free.c"
    source.write_text(WIPE_AND_FREE)
    assert {"memset", "free"} <= names_used(compiled(optimizer, source))["wipe_and_free"]


def test_a_compiler_without_gnu_extensions_keeps_the_loop(optimizer: Toolchain) -> None:
    (source,) = (Path(path) for path in ltdic.get_sources() if Path(path).stem == "wipe")
    built = compiled(optimizer, source, "-U__GNUC__")
    assert names_used(built)["ltdic__wipe"] == set()
    code = run("objdump", "-d", built)
    assert re.search(r"\bmovb +\$0x0,\(%", code) or platform.machine() != "x86_64"
