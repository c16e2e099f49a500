"""The journal of a search, `study.log` beside its plan: a line an operation, which Optuna appends to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.common.errors import describe_os_error
from harness.common.files import read_regular

if TYPE_CHECKING:
    from optuna.storages.journal import BaseJournalBackend

NAME = "study.log"
_MOST_BYTES = 2**30
# What Optuna's replay raises at a line that it did not write.
_ODD = (ValueError, KeyError, TypeError, IndexError, AttributeError, AssertionError, RecursionError, OverflowError)


class _Lines:
    """The whole lines of a journal as Optuna replays them; it remembers which one was read last."""

    def __init__(self, content: bytes) -> None:
        self.lines = content.split(b"\n")[:-1]  # what stands behind the last line break is not whole
        self.number = 0

    def read_logs(self, log_number_from: int) -> Iterator[Any]:
        """Each operation from that one on."""
        for number, line in enumerate(self.lines[log_number_from:], log_number_from + 1):
            self.number = number
            yield json.loads(line)


def damage(folder: Path) -> str | None:
    """What is wrong with the journal in a results folder; None where it can be read, or there is none.

    A last line without its end is no damage: Optuna leaves it out, and `cut_off` removes it.
    """
    try:
        lines = _Lines(read_regular(folder / NAME, _MOST_BYTES))
    except FileNotFoundError:
        return None
    except OSError as error:
        return describe_os_error(error)
    from optuna.storages import JournalStorage

    try:
        JournalStorage(cast("BaseJournalBackend", lines))
    except _ODD:
        return f"line {lines.number} is none that Optuna writes"
    return None


def cut_off(folder: Path) -> None:
    """Remove what a search that was killed left of a line, onto which the next one would be written."""
    with (folder / NAME).open("r+b") as stream:
        content = stream.read()
        stream.truncate(content.rfind(b"\n") + 1)
