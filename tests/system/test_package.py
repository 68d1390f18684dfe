"""The installed package and its C sources."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import re
import shutil
import socket
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import ltdic
from ltdic import _ffi
from support.paths import ROOT
from support.sockets import TIMEOUT, receive_pdu
from support.toolchain import STRICT, Toolchain, run


def is_editable() -> bool:
    """Tell whether the install is editable (PEP 610); the metadata in the tree do not say so."""
    found = importlib.metadata.distributions(name="ltdic")
    origins = [json.loads(said) for d in found if (said := d.read_text("direct_url.json"))]
    return any(origin.get("dir_info", {}).get("editable", False) for origin in origins)


def test_the_tested_package_is_the_installed_one() -> None:
    tested = Path(ltdic.__file__).resolve().parent
    assert (tested == ROOT / "ltdic") == is_editable()
    assert Path(_ffi.__file__).resolve().parent == tested


def test_the_version_is_written_once() -> None:
    header = (Path(ltdic.get_include()) / "ltdic.h").read_text()
    version = re.search(r'#define LTDIC_VERSION "(.*)"', header)
    assert version is not None
    assert ltdic.__version__ == version[1] == importlib.metadata.version("ltdic")


def test_the_sources_are_those_of_the_tree() -> None:
    tree = {path.name for path in (ROOT / "csrc").rglob("*.[ch]") if "examples" not in path.parts}
    installed = {Path(path).name for path in ltdic.get_sources()}
    include = Path(ltdic.get_include())
    installed |= {path.name for path in [*include.rglob("*.h"), *include.glob("*.c")]}
    assert installed == tree


@pytest.mark.slow
def test_the_c_program_of_the_readme_is_built_and_rejected(
    toolchain: Toolchain, tmp_path: Path
) -> None:
    readme = (ROOT / "README.md").read_text()
    program = re.search(r"```c\n(.*?)```", readme, re.DOTALL)
    commands = re.findall(r"^    (cc .*)$", readme, re.MULTILINE)
    assert program is not None
    assert len(commands) == 2
    shutil.copytree(ltdic.get_include(), tmp_path / "csrc")
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        port = str(server.getsockname()[1])
        (tmp_path / "rejected.c").write_text(program[1].replace("11112", port))
        for command in commands:
            cc = f"{toolchain.cc} {' '.join([*toolchain.flags, *STRICT])} "
            run("sh", "-ec", command.replace("cc ", cc, 1), cwd=tmp_path)
        served = pool.submit(reject_one, server)
        assert run(tmp_path / "rejected") == "rejected: 1 1 7\n"
        served.result(timeout=TIMEOUT)


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "bench")
    return importlib.import_module("pictures")


RESULTS = ROOT / "bench" / "results"


def result_of(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def test_the_page_of_the_results_and_its_pictures_are_those_of_the_results(
    pictures: ModuleType,
) -> None:
    speed, rejections = result_of("speed"), result_of("rejections")
    assert (RESULTS / "README.md").read_text() == pictures.page(speed, rejections)
    for name, picture in pictures.pictures(speed).items():
        assert (RESULTS / name).read_text() == picture
        ElementTree.fromstring(picture)


def test_the_figures_of_the_readme_are_those_of_the_results() -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    speed, rejections = result_of("speed"), result_of("rejections")
    ours = [row for row in rejections["rows"] if row["requestor"] != "pynetdicom"]
    others = [row for row in rejections["rows"] if row["requestor"] == "pynetdicom"]
    count, lost, misreported = (
        sum(row[what] for row in ours) for what in ("count", "lost", "misreported")
    )
    shares = [100 * row["misreported"] / row["count"] for row in others]
    versions = rejections["versions"]
    assert f"Of {count:,} rejections" in readme
    assert f"lost {lost} and misreported {misreported};" in readme
    assert f"misreported {min(shares):.0f} % to {max(shares):.0f} %" in readme
    assert f"pynetdicom {versions['pynetdicom']} misreported" in readme
    where = f"{rejections['date']}, {rejections['machine']}, Python {versions['python']}"
    assert f"Measured on {where}:" in readme
    met = [row["met"] for row in speed["targets"]]
    assert f"{sum(met)} of {len(met)} targets met" in readme
    assert f"on {speed['date']}, " in readme


def reject_one(server: socket.socket) -> None:
    server.settimeout(TIMEOUT)
    connection, _ = server.accept()
    with connection:
        receive_pdu(connection)
        connection.sendall(ltdic.encode(ltdic.AssociateReject(1, 1, 7)))
        connection.recv(1)


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm not installed")
def test_the_extension_exports_only_its_init_function() -> None:
    lines = run("nm", "-D", "--defined-only", _ffi.__file__).splitlines()
    names = {line.split()[-1] for line in lines}
    sanitizers = {name for name in names if name.startswith(("__asan", "__odr_asan", "__ubsan"))}
    assert names - sanitizers <= {"PyInit__ffi", "_cffi_pypyinit__ffi"}


def test_every_declaration_of_the_header_is_in_the_extension() -> None:
    headers = [Path(ltdic.get_include()) / name for name in ("ltdic.h", "l_dicom.h")]
    text = "".join(path.read_text() for path in headers)
    functions = set(re.findall(r"\b(L_Dicom\w+|ltdic_[a-z_0-9]+)\(", text))
    assert functions <= set(dir(_ffi.lib))
    assert len(functions) > 70
