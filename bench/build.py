"""Build the compiled contenders; again when their sources have changed."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent / "csrc"
CONTENDERS = HERE / "contenders"
OUT = HERE.parent / "build" / "bench"

C = ["-std=c11", "-O3", "-DLTDIC_STATIC", f"-I{CSRC}"]


class Missing(Exception):
    """The machine lacks a program or library that this contender needs."""


def _run(command: list[str], **kwargs: object) -> None:
    done = subprocess.run(command, capture_output=True, text=True, **kwargs)  # type: ignore[call-overload]
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def _compiled(name: str, sources: list[Path], compiler: str, *flags: str) -> Path:
    if shutil.which(compiler) is None:
        raise Missing(compiler)
    OUT.mkdir(parents=True, exist_ok=True)
    target = OUT / name
    inputs = [*sources, *CSRC.rglob("*.h"), *CONTENDERS.glob("*.h")]
    if not target.exists() or target.stat().st_mtime < max(p.stat().st_mtime for p in inputs):
        _run([compiler, *map(str, sources), *flags, "-o", str(target)])
    return target


def _of_ltdic() -> list[Path]:
    return sorted(CSRC.glob("*/*.c"))


@cache
def codec(name: str) -> Path:
    """The codec contender `ltdic` or `floor`: a shared library that exports contenders/codec.h."""
    sources = [CONTENDERS / "codec.c", CONTENDERS / f"codec_{name}.c"]
    return _compiled(
        f"codec_{name}.so", sources + (_of_ltdic() if name == "ltdic" else []), "cc", *C,
        "-shared", "-fPIC",
    )  # fmt: skip


@cache
def rejected() -> Path:
    """contenders/rejected.c as a program for callgrind."""
    return _compiled("rejected", [CONTENDERS / "rejected.c", *_of_ltdic()], "cc", *C, "-g")


@cache
def counter() -> Path:
    """contenders/count.c with the codec of ltdic, as a program for callgrind."""
    sources = [CONTENDERS / f"{name}.c" for name in ("codec", "codec_ltdic", "count")]
    return _compiled("count", sources + _of_ltdic(), "cc", *C, "-g")


@cache
def callbacks() -> Path:
    return _compiled("callbacks.so", [CONTENDERS / "callbacks.c"], "cc", *C, "-shared", "-fPIC")


OPENSSL = Path("/usr/include/openssl/ssl.h")


@cache
def program(name: str, tls: bool = False) -> Path:
    """The network contender `floor` or `ltdic_net`; over TLS, too."""
    sources = [CONTENDERS / f"{name}.c"]
    if name == "ltdic_net":
        sources += _of_ltdic() + ([CSRC / "ltdic_openssl.c"] if tls else [])
    if tls and not OPENSSL.exists():
        raise Missing("libssl-dev")
    more = ["-DTLS", "-lssl", "-lcrypto"] if tls else []
    return _compiled(name + "_tls" * tls, sources, "cc", *C, "-D_GNU_SOURCE", *more)


DCMTK = Path("/usr/include/dcmtk/dcmnet/assoc.h")


@cache
def dcmtk() -> Path:
    if not DCMTK.exists():
        raise Missing("libdcmtk-dev")
    libraries = ("-ldcmnet", "-ldcmdata", "-loflog", "-lofstd", "-pthread")
    return _compiled("dcmtk", [CONTENDERS / "dcmtk.cc"], "c++", "-std=c++17", "-O2", *libraries)


@cache
def dcmtk_program(name: str) -> Path:
    """An installed program of DCMTK. Programs of pynetdicom with the same names are passed over."""
    for folder in os.get_exec_path():
        path = Path(folder, name)
        if os.access(path, os.X_OK):
            told = subprocess.run([path, "--version"], capture_output=True, check=False).stdout
            if told.startswith(b"$dcmtk: "):
                return path
    raise Missing("dcmtk")


@cache
def _crate() -> Path:
    if shutil.which("cargo") is None:
        raise Missing("cargo")
    crate = CONTENDERS / "dicom_rs"
    command = ["cargo", "build", "--release", "--locked", "--quiet"]
    _run(command, cwd=crate, env={**os.environ, "CARGO_TARGET_DIR": str(OUT / "dicom_rs")})
    return OUT / "dicom_rs" / "release"


@cache
def dicom_rs() -> Path:
    return _crate() / "dicom_rs"


@cache
def dicom_rs_codec() -> Path:
    return _crate() / "libcodec_dicom_rs.so"
