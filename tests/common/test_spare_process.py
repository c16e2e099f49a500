"""A spare process answers as this one would, and this one does where it can't."""

import os
import time
from pathlib import Path

import pytest

from harness.common.spare_process import SpareProcess

HELPER = """
import os

def who(text):
    print("not part of the answer")
    return text, os.getpid()

def fails(text):
    raise ValueError(f"{text} {os.getpid()}")

def dies_there(parent):
    if os.getpid() != parent:
        os._exit(1)
    return "computed here"
"""


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that both processes can import."""
    (tmp_path / "spare_helper.py").write_text(HELPER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "spare_helper"


def test_a_started_process_answers(helper: str) -> None:
    with SpareProcess(helper) as spare:
        spare.start()
        spare.start()
        text, number = spare.call("who", "asked")
    assert text == "asked"
    assert number != os.getpid()


def test_what_was_not_started_or_dies_is_computed_here(helper: str) -> None:
    with SpareProcess(helper) as spare:
        assert spare.call("who", "asked") == ("asked", os.getpid())
    with SpareProcess(helper) as spare:
        spare.start()
        assert spare.call("dies_there", os.getpid()) == "computed here"
    with SpareProcess("no_such_module") as spare:
        spare.start()
        with pytest.raises(ModuleNotFoundError):
            spare.call("who")


def test_an_error_is_raised_here(helper: str) -> None:
    with SpareProcess(helper) as spare:
        spare.start()
        with pytest.raises(ValueError, match=f"asked {os.getpid()}"):
            spare.call("fails", "asked")


def test_no_process_is_left(helper: str) -> None:
    with SpareProcess(helper) as spare:
        spare.start()
        process = spare._process
    assert process is not None
    until = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    assert process.poll() is not None
