"""Hypothesis profiles, compilers, servers, and the rule that a skip in CI is a failure."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
from typing import Any

import hypothesis
import pytest

pytest.register_assert_rewrite(
    "support"
)  # before its import, so that its assertions run with -O too

from support.hosts import SERVERS, Serve  # noqa: E402
from support.toolchain import COMPILERS, toolchain_or_skip  # noqa: E402

for profile, examples in {"quick": 10, "dev": 50, "ci": 300, "thorough": 20_000}.items():
    hypothesis.settings.register_profile(
        profile,
        max_examples=examples,
        deadline=None,  # the speed of the machine is not under test
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
        print_blob=True,
    )
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

if "LTDIC_TEST_UVLOOP" in os.environ:
    import uvloop

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


# ---- compilers -------------------------------------------------------------------------------


@pytest.fixture(scope="session", params=list(COMPILERS))
def toolchain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Each compiler, with C and C++."""
    return toolchain_or_skip(request.param, tmp_path_factory.mktemp("both"), cxx=True)


WITH_32_BITS = [*COMPILERS, "gcc -m32"] if platform.machine() == "x86_64" else [*COMPILERS]


@pytest.fixture(scope="session", params=WITH_32_BITS)
def codec_toolchain(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """Each compiler, with C alone; also for 32 bits, which a 64-bit Python cannot load."""
    return toolchain_or_skip(request.param, tmp_path_factory.mktemp("codec"), cxx=False)


# ---- servers -----------------------------------------------------------------------------------


@pytest.fixture(params=SERVERS)
def serve(request: pytest.FixtureRequest) -> Serve:
    """Each server: `ltdic.Server` and `ltdic.aio.Server`."""
    return SERVERS[request.param]


# ---- memory ------------------------------------------------------------------------------------


def pytest_collection_finish() -> None:
    """Exclude modules and test items from later collections: many tests call `gc.collect`, which
    would take long with thousands of items."""
    gc.collect()
    gc.freeze()


# ---- skips -------------------------------------------------------------------------------------


def pytest_terminal_summary(terminalreporter: Any) -> None:
    skipped = len(terminalreporter.stats.get("skipped", []))
    if skipped and os.environ.get("CI"):
        terminalreporter.write_line(f"{skipped} skipped; in CI a skip is a failure")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run for a skipped test in CI, where everything is installed."""
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    if os.environ.get("CI") and reporter.stats.get("skipped") and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
