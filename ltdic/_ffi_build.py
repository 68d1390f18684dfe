"""Builds the extension `ltdic._ffi`. Its declarations are taken from the C headers."""

import os
import re
from pathlib import Path

from cffi import FFI

CSRC = Path(__file__).resolve().parent.parent / "csrc"
HEADERS = [CSRC / "ltdic.h", CSRC / "l_dicom.h"]

# Finds the callback types. Each gets one static C function that calls Python.
TRAMPOLINES = re.compile(r"typedef L_VOID\s*\(\s*\*(\w+CALLBACK)\)(\([^;]*\));")


def declarations(header: Path) -> str:
    """Return the text between the marks [cdef] and [end] in the form that `FFI.cdef` reads."""
    text = header.read_text(encoding="utf-8")
    start, end = text.index("/* [cdef]"), text.index("/* [end] */")
    text = re.sub(r"/\*.*?\*/", "", text[start:end], flags=re.DOTALL)
    text = re.sub(r"\b(L?_?LTDIC_API|p?EXT_CALLBACK)\b", "", text)
    text = re.sub(r"(#define\s+\w+)\s+\S.*", r"\1 ...", text)
    return re.sub(r"\(L_VOID\)", "(void)", text)


def trampolines(text: str) -> str:
    """Return a declaration `extern "Python"` for each callback type: `on_SENDCALLBACK` for
    `SENDCALLBACK`."""
    found = TRAMPOLINES.findall(text)
    return "".join(f'extern "Python" L_VOID on_{name}{args};\n' for name, args in found)


# The functions of an `ltdic_transport`; ltdic/_native/transport.py has them.
TRANSPORT = """
extern "Python" {
    void *transport_make(void *, ltdic_served_id);
    int transport_open(void *, int);
    int transport_read(void *, int, uint8_t *, size_t, size_t *);
    int transport_send(void *, int, const ltdic_output *, size_t *);
    size_t transport_pending(void *);
    void transport_close(void *, int, int);
    void transport_free(void *);
}
"""

# setuptools requires paths relative to the project, from where it builds.
sources = sorted(os.path.relpath(path, CSRC.parent) for path in CSRC.glob("*/*.c"))
cdef = "".join(declarations(header) for header in HEADERS)

ffibuilder = FFI()
ffibuilder.cdef(cdef)
ffibuilder.cdef(trampolines(cdef))
ffibuilder.cdef(TRANSPORT)
ffibuilder.set_source(
    "ltdic._ffi",
    '#include "ltdic.h"',
    sources=sources,
    include_dirs=["csrc"],
    depends=[os.path.relpath(path, CSRC.parent) for path in CSRC.rglob("*.h")],
    define_macros=[("LTDIC_STATIC", None)],
    extra_compile_args=["-std=c11", "-fvisibility=hidden"] if os.name != "nt" else [],
)
