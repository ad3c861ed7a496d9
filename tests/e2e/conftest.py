import os
import sys
import threading

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import lib  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "limit(seconds): longest time a test may take (300)")
    config.addinivalue_line("markers", "nofuse: needs no mount")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    setattr(item, "report_" + call.when, outcome.get_result())


def why_no_fuse():
    if not os.path.exists("/dev/fuse"):
        return "no /dev/fuse: the kernel module fuse is missing, or the container hides it"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse may not be opened by this user"
    return None


@pytest.fixture
def world(request):
    """A place for sites; gone with the test, logs shown when it fails."""
    if not os.path.exists(lib.PROGRAM):
        pytest.fail(f"{lib.PROGRAM} is not built: run scripts/check, or set CLAUDEFS_BUILD",
                    pytrace=False)
    if request.node.get_closest_marker("nofuse") is None and why_no_fuse():
        pytest.skip(why_no_fuse())
    mark = request.node.get_closest_marker("limit")
    limit = (mark.args[0] if mark else 300) * lib.SLOW
    w = lib.World(request.node.name.replace("test_", "").replace("/", "_"))
    watchdog = threading.Timer(limit, w.abort, [f"longer than {limit:.0f} s"])
    watchdog.daemon = True
    watchdog.start()
    yield w
    watchdog.cancel()
    report = getattr(request.node, "report_call", None)
    failed = report is None or report.failed
    crashed = {name: text for name, text in w.logs().items() if _crashed(text)}
    for name, text in (w.logs() if failed else crashed).items():
        print(f"\n===== {name}\n{text}")
    keep = failed and bool(os.environ.get("CLAUDEFS_KEEP"))
    if keep:
        print(f"kept: {w.dir}")
    w.close(keep)
    if w.aborted:
        pytest.fail(f"everything was ended by the watchdog: {w.aborted}", pytrace=False)
    if crashed and not failed:
        pytest.fail(f"crashed while the test passed: {', '.join(crashed)}", pytrace=False)


def _crashed(text):
    """Lines only a failed assertion or a sanitizer writes."""
    return any(sign in text for sign in ("assertion failed:", "defended:", "Sanitizer:",
                                         "runtime error:"))


@pytest.fixture
def two(world):
    """Sites alpha and beta, paired, each with one mount: (world, mount at alpha, mount at beta)."""
    alpha, beta = world.two()
    return world, alpha.mount(), beta.mount()
