"""A command that was told to stop ends, whatever its main thread is at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.common import watchdog
from harness.common.watchdog import Watchdog
from harness.scripts import reaper

INT, TERM = int(signal.SIGINT), int(signal.SIGTERM)
DEAF, ENDING = watchdog._DEAF, watchdog._ENDING
# C code that makes no step of Python for minutes, as a model of absurd sizes does while it loads.
DEAF_CODE = "import hashlib; print('deaf', flush=True); hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"


def due(
    *heard: tuple[int, float], notice: float | None = None, taken_up: bool = False, since: float = 0
) -> float | None:
    """When a process must have ended that heard these signals at these times."""
    dog = Watchdog()
    dog._heard, dog._notice, dog._taken_up, dog._since = [*heard], notice, taken_up, since
    return dog.due()


def test_where_nothing_trains_the_first_signal_ends_it() -> None:
    assert due() is None
    assert due((TERM, 5)) == 5 + DEAF
    assert due((INT, 5), (INT, 6)) == 5 + DEAF
    assert due((INT, 5), taken_up=True) == 5 + ENDING
    assert due((INT, 5), since=9) == 9 + DEAF  # it came while packs trained, which have ended


def test_while_packs_train_they_may_end() -> None:
    assert due((INT, 5), notice=20) is None
    assert due((INT, 5), (INT, 5.25), notice=20) == 5.25 + DEAF
    assert due((TERM, 5), notice=20) == 25 + DEAF
    assert due((TERM, 5), (TERM, 6), notice=20) == 25 + DEAF
    assert due((TERM, 5), (INT, 7), notice=20) == 7 + DEAF
    assert due((INT, 5), (TERM, 7), notice=20) == 7 + DEAF


def test_the_mark_of_a_scripts_run_is_the_reapers() -> None:
    assert watchdog.RUN_MARK == reaper.MARK


def computing(process: subprocess.Popen[str]) -> None:
    """Wait until a process has computed for a tenth of a second since now: it is in its C code."""

    def ticks() -> int:
        return int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11])  # utime

    until = ticks() + os.sysconf("SC_CLK_TCK") // 10
    while ticks() < until:
        time.sleep(0.01)


def start(code: str, tmp_path: Path) -> subprocess.Popen[str]:
    """A process whose watchdog is quick; it has said a line."""
    quick = "from harness.common import watchdog; watchdog._DEAF = 0.3; dog = watchdog.Watchdog(); dog.install(); "
    child = subprocess.Popen(
        [sys.executable, "-c", quick + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(watchdog.__file__).parents[2])},
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline()
    return child


@pytest.mark.parametrize(("number", "code"), [(INT, 130), (TERM, 143)])
def test_a_main_thread_in_c_code_is_left_with_its_children(tmp_path: Path, number: int, code: int) -> None:
    taken = "import signal, subprocess; signal.signal(signal.SIGTERM, lambda *words: None); "
    child_of_it = "open('pid', 'w').write(str(subprocess.Popen(['sh', '-c', 'sleep 60; true']).pid)); "
    process = start(f"{taken}{child_of_it}dog.doing('x').__enter__(); {DEAF_CODE}", tmp_path)
    computing(process)
    began = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == code
    assert time.monotonic() - began < 5
    assert said == "harness: stopped during x; finished trials are kept: re-run the same command to resume.\n"
    ended = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    assert not ended.exists() or " Z " in ended.read_text()


def test_the_time_limit_ends_c_code(tmp_path: Path) -> None:
    process = start(f"held = dog.limited(0.2); held.__enter__(); {DEAF_CODE}", tmp_path)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said.partition(";")[0]) == (1, "harness: the time limit is over")


def test_the_time_limit_says_what_it_leaves_missing(tmp_path: Path) -> None:
    held = "outer = dog.limited(60); outer.__enter__(); held = dog.limited(0.2, 'the limit leaves 2'); held.__enter__()"
    process = start(f"{held}; dog.doing('x').__enter__(); {DEAF_CODE}", tmp_path)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said.partition(";")[0]) == (1, "harness: the limit leaves 2: it ended during x")


def test_a_main_thread_that_listens_ends_by_itself(tmp_path: Path) -> None:
    code = "\nimport time\ntry: print('listens', flush=True), time.sleep(60)\nexcept KeyboardInterrupt: time.sleep(1)"
    process = start(code, tmp_path)
    process.send_signal(INT)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (0, "")


def test_a_child_is_ended_with_those_that_it_started() -> None:
    child = subprocess.Popen(["sh", "-c", "sleep 60 & (sleep 60; :) & wait"])
    try:
        end = time.monotonic() + 10
        while len(family := _family(child.pid)) < 4 and time.monotonic() < end:
            time.sleep(0.01)
        watchdog.end_children({child.pid})
        assert len(family) == 4
        while any(map(_lives, family)) and time.monotonic() < end:
            time.sleep(0.01)
        assert not any(map(_lives, family))
    finally:
        child.kill()
        child.wait()


def _family(pid: int) -> list[int]:
    return [pid, *(member for child in watchdog.children_of(pid) for member in _family(child))]


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
