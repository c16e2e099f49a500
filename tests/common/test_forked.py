"""Work in a forked process: its result and its errors are those of this one, and it is left behind nowhere."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from harness.common import forked
from harness.common.forked import Beside

# Where torch was imported nothing is forked, and other tests import it.
CODE = """
import json, os, sys, warnings
warnings.simplefilter("error")
from harness.common import forked
from harness.common.forked import Beside
forked.os.sched_getaffinity = lambda _: {0, 1}
assert forked.cores() == 2
here, seen = os.getpid(), []

def fails():
    seen.append(os.getpid())
    raise ValueError("as it would here")

def dies():
    seen.append(os.getpid())
    if os.getpid() != here:
        os._exit(7)
    return "made here"

elsewhere = Beside(os.getpid)
print(json.dumps({"other": elsewhere.result() != here}))
try:
    Beside(fails).result()
except ValueError as error:
    print(json.dumps({"error": str(error), "raised_here": seen == [here]}))
print(json.dumps({"died": Beside(dies).result()}))
large = Beside(lambda: bytes(2**20))  # more than a pipe holds
print(json.dumps({"large": len(large.result())}))
asleep = Beside(lambda: __import__("time").sleep(600))
asleep.stop()
asleep.stop()
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print(json.dumps({"children": 0}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is forked elsewhere")
def test_a_forked_process_gives_what_this_one_would() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    said: dict[str, object] = {}
    for line in done.stdout.splitlines():
        said |= json.loads(line)
    assert said == {
        "other": True, "error": "as it would here", "raised_here": True, "died": "made here", "large": 2**20,
        "children": 0,
    }  # fmt: skip


def test_where_forking_is_not_safe_the_work_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", None)
    monkeypatch.setitem(sys.modules, "torch", sys)
    assert forked.cores() == 1
    work = Beside(os.getpid)
    assert work.result() == os.getpid()
    work.stop()


FIGURES = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
from harness.common import forked
from harness.report.figures import all_figures, style

forked.os.sched_getaffinity = lambda _: {0, 1, 2}
here = os.getpid()

def make(name, fails=""):
    def figure(found):
        if fails == "there" and os.getpid() != here or fails == "always":
            raise ValueError(name)
        return None if fails == "nothing" else name
    figure.__name__ = name
    return figure

style.save = lambda figure, folder, name: (folder / name).write_text(figure)
folder = Path(sys.argv[1])
all_figures.MAKERS = tuple(make(f"f{n}", "there" if n % 3 == 0 else "") for n in range(9)) + (make("none", "nothing"),)
with all_figures.saved(None, folder):
    pass
assert sorted(path.name for path in folder.iterdir()) == [f"f{n}" for n in range(9)]
all_figures.MAKERS += (make("bad", "always"),)
try:
    with all_figures.saved(None, folder):
        pass
except ValueError as error:
    print("raised", error)
"""


def test_figures_are_whole_whoever_drew_them_and_a_failing_one_raises(tmp_path: Path) -> None:
    code = [sys.executable, "-c", FIGURES, str(tmp_path)]
    done = subprocess.run(code, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("raised bad\n", "")


WATCHED = """
import os, signal, threading
from harness.common import forked
from harness.common.watchdog import Watchdog
forked.os.sched_getaffinity = lambda _: {0, 1}
Watchdog().install()
here = os.getpid()
wakes = forked.Beside(lambda: signal.set_wakeup_fd(-1))
print(forked.cores(), forked.Beside(os.getpid).result() != here, wakes.result())
threading.Thread(target=threading.Event().wait, daemon=True).start()
print(forked.cores())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is forked elsewhere")
def test_the_thread_that_waits_for_signals_keeps_no_command_on_one_core() -> None:
    done = subprocess.run([sys.executable, "-c", WATCHED], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("2 True -1\n1\n", "")


LEFT = """
import os, time
from harness.common import forked
forked.os.sched_getaffinity = lambda _: {0, 1}
asleep = forked.Beside(lambda: time.sleep(600))
print(asleep._child, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is forked elsewhere")
def test_a_forked_process_ends_with_the_one_that_forked_it() -> None:
    """A report that a SIGTERM ended left processes that went on drawing."""
    with subprocess.Popen([sys.executable, "-c", LEFT], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = Path("/proc") / process.stdout.readline().strip()
        assert (child / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
        process.terminate()
    end = time.monotonic() + 10
    with suppress(OSError):  # it is gone
        while (child / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
            assert time.monotonic() < end, "it lives on"
            time.sleep(0.05)
