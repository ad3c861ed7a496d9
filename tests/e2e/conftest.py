import contextlib
import os
import re
import shutil
import sys
import threading

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import lib  # noqa: E402


def pytest_configure(config):
    lib.allow_core_files()
    config.claudefs_reports = lib.record_reports()
    config.addinivalue_line("markers", "limit(seconds): longest time a test may take (300)")
    config.addinivalue_line("markers", "nofuse: needs no mount")
    config.addinivalue_line("markers", "xdist_group(name): one after the other, by one worker")
    config.addinivalue_line("markers", "alone: measures time; nothing else may run beside it")


def pytest_unconfigure(config):
    shutil.rmtree(config.claudefs_reports, ignore_errors=True)


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


@contextlib.contextmanager
def world_of(node, limit):
    """A World for a test or a module; ended, and its logs shown on failure, in the end."""
    if not os.path.exists(lib.PROGRAM):
        pytest.fail(f"{lib.PROGRAM} is not built: run scripts/check, or set CLAUDEFS_BUILD",
                    pytrace=False)
    if node.get_closest_marker("nofuse") is None and why_no_fuse():
        pytest.skip(why_no_fuse())
    w = lib.World(re.sub("[^a-z0-9]+", "-", node.name.replace("test_", "")))
    watchdog = threading.Timer(limit * lib.SLOW, w.abort, [f"longer than {limit:.0f} s"])
    watchdog.daemon = True
    watchdog.start()
    failures = node.session.testsfailed
    try:
        yield w
    finally:
        watchdog.cancel()
        failed = w.aborted or _failed(node) or node.session.testsfailed > failures
        w.end()
        logs = {**lib.take_reports(node.config.claudefs_reports), **w.logs()}
        crashed = {name: text for name, text in logs.items() if lib.tells_of_crash(text)}
        # What crashed comes first: whoever shows only a part of the output shows that.
        for name, text in sorted((logs if failed or w.crashed else crashed).items(),
                                 key=lambda log: (not log[0].startswith("core"),
                                                  log[0] not in crashed)):
            print(f"\n===== {name}\n{text}")
        if failed and os.environ.get("CLAUDEFS_KEEP"):
            print(f"kept: {w.dir}")
        else:
            w.remove()
    if w.aborted:
        pytest.fail(f"everything was ended by the watchdog: {w.aborted}", pytrace=False)
    crashes = [*w.crashed, *crashed]
    if crashes and not failed:
        pytest.fail(f"crashed while the test passed: {', '.join(crashes)}", pytrace=False)


def _failed(node):
    report = getattr(node, "report_call", None)
    return report is not None and report.failed


@pytest.fixture
def world(request):
    """A place for sites; gone with the test, logs shown when it fails."""
    mark = request.node.get_closest_marker("limit")
    with world_of(request.node, mark.args[0] if mark else 300) as w:
        yield w


@pytest.fixture(autouse=True)
def nothing_reported(request):
    """What no world has started may not be reported by a sanitizer either."""
    yield
    found = {name: text for name, text in lib.take_reports(request.config.claudefs_reports).items()
             if lib.tells_of_crash(text)}  # it also warns of what it cannot do
    for name, text in found.items():
        print(f"\n===== {name}\n{text}")
    if found:
        pytest.fail(f"reported by a sanitizer: {', '.join(found)}", pytrace=False)


@pytest.fixture
def two(world):
    """Sites alpha and beta, paired, each with one mount: (world, mount at alpha, mount at beta)."""
    alpha, beta = world.two()
    return world, alpha.mount(), beta.mount()


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """What cpack makes of this build."""
    where = tmp_path_factory.mktemp("package")
    lib.run("cpack", "-G", "DEB", "-B", where, "--config",
            os.path.join(lib.BUILD, "CPackConfig.cmake"), cwd=where, timeout=300)
    made = [n for n in os.listdir(where) if n.endswith(".deb")]
    assert len(made) == 1, made
    return os.path.join(where, made[0])
