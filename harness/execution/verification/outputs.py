"""Whether the files that a script's runs left, where their folders were kept, still give what the records say.

Scores and further metrics stand in the record, curves and answers in its arrays.

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.config.score_sources import ScoreSource
from harness.config.script import Script
from harness.config.trials import Trial
from harness.execution.verification.folder import Finding
from harness.records.curve_files import curves_of_points
from harness.records.reading import one_line
from harness.records.record import Curves, Record
from harness.records.store import Store
from harness.scripts.process import STDOUT
from harness.scripts.results import NoScoreError, read_answers, read_curve, read_score

_MOST_BYTES = 2**24  # of a file that is read again
_SECONDS, _SECONDS_A_RUN = 10.0, 0.05  # that reading all of them may take
_READ_AGAIN = ("json", "rows", "trainer", "stdout")


class OutputFindings(NamedTuple):
    """What was found in the folders of the runs."""

    problems: tuple[Finding, ...]
    notes: tuple[Finding, ...]


class _Reread(NamedTuple):
    """What one number of a run is now: a number, or why there is none; both None: nothing can be said."""

    value: float | None = None
    problem: str | None = None


class _Run(NamedTuple):
    """What the files of a run give now: its numbers, and (file, what is wrong) of its curves and answers."""

    numbers: list[_Reread]
    apart: list[tuple[str, str]]


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
    reread = _within(seconds, lambda: {name: _reread(runs / name, records[name], Store(folder)) for name in there})
    if reread is None:
        words = f"the runs' files were not held against the records: that took more than {seconds:.0f} s"
        return OutputFindings((), (Finding(None, "runs", "outputs", words),))
    problems, notes = [], []
    for name in there:
        recorded = dict(_recorded(records[name]))
        for (key, source), now in zip(_sources(_script_of(records[name])), reread[name].numbers, strict=True):
            file = one_line(f"runs/{name}/{source.file or STDOUT}")
            if key not in recorded:  # it could not be read then either
                continue
            if now.problem is not None:
                notes.append(Finding(name, file, "outputs", one_line(f"{key} can't be read again: {now.problem}")))
            elif now.value is not None and not _same(recorded[key], now.value):
                words = f"{key} is {recorded[key]} in the record, the run's file gives {now.value!r}"
                problems.append(Finding(name, file, "outputs", one_line(words)))
        problems += [
            Finding(name, one_line(f"runs/{name}/{file}"), "outputs", one_line(words))
            for file, words in reread[name].apart
        ]
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


def _reread(folder: Path, record: Record, store: Store) -> _Run:
    """The numbers of one run as its files give them now, in the order of `_sources`, and its curves and answers."""
    script = _script_of(record)
    numbers = [_value(folder, script, source) for _, source in _sources(script)]
    arrays = store.read_arrays(record, recording=False)
    return _Run(numbers, list(_apart(folder, script, arrays)) if isinstance(arrays, Curves) else [])


def _value(folder: Path, script: Script, source: ScoreSource) -> _Reread:
    file = source.file or STDOUT
    try:
        if not _is_read(folder, file):
            return _Reread()
        return _Reread(value=read_score(source, folder, higher=source is not script.score or script.higher_is_better))
    except FileNotFoundError:
        return _Reread()  # tidied away
    except (NoScoreError, OSError, RecursionError, MemoryError) as error:
        return _Reread(problem=str(error))


def _is_read(folder: Path, file: str) -> bool:
    """Whether a run's file is read again: a link, which a script may make, is not.

    Raises FileNotFoundError where there is none, and NoScoreError for what is no file of a size that is read.
    """
    path = folder / file
    state = path.lstat()
    if path.resolve() != folder.resolve() / file:
        return False
    if not stat.S_ISREG(state.st_mode) or state.st_size > _MOST_BYTES:
        raise NoScoreError("it is no regular file, or too large")
    return True


def _apart(folder: Path, script: Script, arrays: Curves) -> Iterator[tuple[str, str]]:
    """The files whose curves or answers are not those of the arrays, and what of them; what was not read then is left.

    A file that can't be read any more is one that may have been tidied away in part.
    """
    for name, source in script.curves:
        kept = arrays.dev_score if name == "score" else arrays.train_loss
        file = source.file or STDOUT
        with suppress(NoScoreError, OSError, RecursionError, MemoryError):
            if kept.size and source.kind in _READ_AGAIN and _is_read(folder, file):
                points = read_curve(source, folder)
                now = curves_of_points(*((points, None) if name == "score" else (None, points)))
                if not _equal(kept, now.dev_score if name == "score" else now.train_loss):
                    yield file, f"the curve of the {name} in it is not that of the record's arrays"
    spec = script.predictions
    with suppress(NoScoreError, OSError, RecursionError, MemoryError):
        if spec is not None and arrays.labels.size and _is_read(folder, spec.file):
            answers = read_answers(spec, folder)
            if not (_equal(arrays.labels, answers.labels) and _equal(arrays.logits.argmax(axis=1), answers.answers)):
                yield spec.file, "the answers in it are not those of the record's arrays"


def _equal(kept: np.ndarray, now: np.ndarray) -> bool:
    return kept.shape == now.shape and bool(np.allclose(kept, now, rtol=1e-6, atol=0, equal_nan=True))


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def _within(seconds: float, function: Callable[[], dict[str, _Run]]) -> dict[str, _Run] | None:
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
                result: dict[str, _Run] | None = pickle.loads(content) if content else None
                return result
            pieces.append(piece)
        return None
    finally:
        os.close(reading)
        with suppress(OSError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
