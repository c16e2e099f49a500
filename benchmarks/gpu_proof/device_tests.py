"""The tests of a device, run on it."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec

from .kit import ROOT, Journal, Request

_TESTS = ("tests/training/test_device.py", "tests/training/test_replay.py")
_ONE = "tests/training/test_device.py::test_a_lane_of_a_pack_depends_on_no_other"  # to try the kit
# Another machine's versions of packages may warn of other things, which is no fault of the device.
_OPTIONS = ("-v", "-W", "default", "-p", "no:cacheprovider", "--no-header", "-o", "addopts=")
_VERDICTS = "PASSED|FAILED|ERROR|SKIPPED"
_LINE = re.compile(rf"\] ({_VERDICTS}) (tests/.+?)\s*$|^(tests/.+?) ({_VERDICTS})\b")
_WHY = re.compile(r"^(?:FAILED|ERROR) (tests/.+)$")


def tests(request: Request, journal: Journal) -> None:
    """Each test that ends is counted at once, so a run that is cut off says how far it came."""
    files = (
        [_ONE]
        if request.tiny
        else [name for name in (*_TESTS, "tests/training/test_capture.py") if (ROOT / name).exists()]
    )
    spread = ["-n", str(request.threads)] if not request.tiny and find_spec("xdist") else []
    command = [sys.executable, "-m", "pytest", *_OPTIONS, *spread, *files]
    seen: dict[str, list[str]] = {verdict: [] for verdict in _VERDICTS.split("|")}
    reasons: list[str] = []
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if match := _WHY.match(line):
                reasons.append(match[1].strip())
            elif match := _LINE.search(line):
                verdict, test = (match[1], match[2]) if match[1] else (match[4], match[3])
                seen[verdict].append(test)
                _keep(journal, seen, [])
    _keep(journal, seen, reasons)
    if process.returncode not in (0, 1):
        journal.say(f"pytest's exit was {process.returncode}.")


def _keep(journal: Journal, seen: dict[str, list[str]], reasons: list[str]) -> None:
    wrong = seen["FAILED"] + seen["ERROR"]
    journal.rows.clear()
    journal.notes[:] = [f"Failed: {test[:300]}" for test in (reasons or wrong)[:20]]
    journal.add("device tests that pass", "", [len(seen["PASSED"])], note=f"{len(seen['SKIPPED'])} skipped")
    journal.add("device tests that fail", "", [len(wrong)], most=0)
