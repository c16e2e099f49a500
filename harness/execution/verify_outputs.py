"""Whether the files that a script's runs left, where their folders were kept, still give the scores in the records.

A folder may be a stranger's, and so may the expression that finds a score in a run's output: it may take for ever. So
the files are read in a process beside this one, which is ended when its time is over.
"""

from __future__ import annotations

import math
import os
import pickle
import select
import signal
import stat
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from harness.config.score_sources import ScoreSource
from harness.config.script import Script
from harness.config.trials import Trial
from harness.execution.verify_folder import Finding
from harness.records.reading import one_line
from harness.records.record import Record
from harness.scripts.process import STDOUT
from harness.scripts.results import NoScoreError, read_score

_MOST_BYTES = 2**24  # of a file that is read again
_SECONDS, _SECONDS_A_RUN = 10.0, 0.01  # that reading all of them may take
_READ_AGAIN = ("json", "rows", "trainer", "stdout")


class OutputFindings(NamedTuple):
    """What was found in the folders of the runs."""

    problems: tuple[Finding, ...]
    notes: tuple[Finding, ...]


class _Reread(NamedTuple):
    """What one number of a run is now: a number, or why there is none; both None: nothing can be said."""

    value: float | None = None
    problem: str | None = None


def check_outputs(folder: Path, trials: Mapping[str, Trial], records: Mapping[str, Record]) -> OutputFindings:
    """Hold the files of finished runs of a script against their records.

    Args:
        folder: The results folder.
        trials: The plan's, by id.
        records: Those that can be used, by id.
    """
    runs = folder / "runs"
    finished = [name for name, record in records.items() if record.measured is not None and trials[name].script]
    there = [name for name in finished if _is_folder(runs) and _is_folder(runs / name)]
    if not there:
        return OutputFindings((), ())
    seconds = _SECONDS + _SECONDS_A_RUN * len(there)
    reread = _within(seconds, lambda: {name: _reread(runs / name, _script_of(records[name])) for name in there})
    if reread is None:
        words = f"the runs' files were not held against the records: that took more than {seconds:.0f} s"
        return OutputFindings((), (Finding(None, "runs", "outputs", words),))
    problems, notes = [], []
    for name in there:
        recorded = dict(_recorded(records[name]))
        for (key, source), now in zip(_sources(_script_of(records[name])), reread[name], strict=True):
            file = one_line(f"runs/{name}/{source.file or STDOUT}")
            if key not in recorded:  # it could not be read then either
                continue
            if now.problem is not None:
                notes.append(Finding(name, file, "outputs", one_line(f"{key} can't be read again: {now.problem}")))
            elif now.value is not None and not _same(recorded[key], now.value):
                words = f"{key} is {recorded[key]} in the record, the run's file gives {now.value!r}"
                problems.append(Finding(name, file, "outputs", one_line(words)))
    return OutputFindings(tuple(problems), tuple(notes))


def _script_of(record: Record) -> Script:
    recipe = record.trial.script
    assert recipe is not None
    return recipe.script


def _sources(script: Script) -> Sequence[tuple[str, ScoreSource]]:
    """The numbers that a record has of a run's files, and where each is."""
    sources = (("final_score", script.score), *script.also)
    return [(name, source) for name, source in sources if source.kind in _READ_AGAIN]


def _recorded(record: Record) -> Sequence[tuple[str, float | None]]:
    assert record.measured is not None
    return (("final_score", record.measured.final_score), *(record.script.further if record.script else ()))


def _same(recorded: float | None, now: float) -> bool:
    if recorded is None or not math.isfinite(now):
        return recorded is None and not math.isfinite(now)
    return math.isclose(recorded, now, rel_tol=1e-12)


def _reread(folder: Path, script: Script) -> list[_Reread]:
    """The numbers of one run as its files give them now, in the order of `_sources`."""
    return [_value(folder, script, source) for _, source in _sources(script)]


def _value(folder: Path, script: Script, source: ScoreSource) -> _Reread:
    path = folder / (source.file or STDOUT)
    try:
        state = path.lstat()
        if path.resolve() != folder.resolve() / (source.file or STDOUT):
            return _Reread()  # a link, which a script may make
        if not stat.S_ISREG(state.st_mode) or state.st_size > _MOST_BYTES:
            return _Reread(problem="it is no regular file, or too large")
        return _Reread(value=read_score(source, folder, higher=source is not script.score or script.higher_is_better))
    except FileNotFoundError:
        return _Reread()  # tidied away
    except (NoScoreError, OSError, RecursionError, MemoryError) as error:
        return _Reread(problem=str(error))


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def _within(seconds: float, function: Callable[[], dict[str, list[_Reread]]]) -> dict[str, list[_Reread]] | None:
    """What a function gives in a process beside this one; None where it takes longer, or fails."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of newer Pythons, where another thread runs
        child = os.fork()
    if not child:
        status = 1
        with suppress(BaseException):
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            os.close(reading)
            with os.fdopen(writing, "wb") as stream:
                stream.write(pickle.dumps(function()))
            status = 0
        os._exit(status)
    os.close(writing)
    pieces: list[bytes] = []
    until = time.monotonic() + seconds
    try:
        while (left := until - time.monotonic()) > 0:
            if not select.select([reading], [], [], left)[0]:
                break
            piece = os.read(reading, 2**20)
            if not piece:
                content = b"".join(pieces)
                result: dict[str, list[_Reread]] | None = pickle.loads(content) if content else None
                return result
            pieces.append(piece)
        return None
    finally:
        os.close(reading)
        with suppress(OSError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
