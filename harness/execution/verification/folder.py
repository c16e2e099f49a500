"""What lies in a results folder beside the planned trials' records, and what was there before."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.common.files import read_regular
from harness.config.trials import Trial
from harness.records import reruns
from harness.records.reading import MOST_PLAN_BYTES, one_line
from harness.records.record import Record
from harness.records.store import ATTEMPT, Store

_REPORTED = "report/tables/runs.csv"


@dataclass(frozen=True)
class Finding:
    """One line: where, which rule, and what was found there; `file` is relative to the results folder."""

    trial: str | None
    file: str
    rule: str
    found: str


@dataclass(frozen=True)
class OfFolder:
    """What was found of a folder as a whole."""

    problems: tuple[Finding, ...]
    notes: tuple[Finding, ...]


def check_folder(store: Store, trials: Mapping[str, Trial], records: Mapping[str, Record]) -> OfFolder:
    """What lies there beside the planned trials' records and arrays, by name, and which records are gone.

    Args:
        store: The results folder.
        trials: The plan's, by id.
        records: Those that can be used, by id.
    """
    problems: list[Finding] = []
    notes: list[Finding] = []
    aside: Counter[str] = Counter()
    notes += (
        Finding(None, one_line(file), "half-written", "a killed writer's, or a running one's")
        for file in _listed(store.folder)
        if _half_written(file)
    )
    present: set[str] = set()
    files = _listed(store.trials)
    listed = set(files)
    for file in files:
        stem, _, ending = file.rpartition(".")
        if ending == "json" and stem in trials:
            present.add(stem)
            continue
        if ending == "npz" and stem in trials and f"{stem}.json" in listed:
            continue
        where = one_line(f"trials/{file}")
        attempt = ATTEMPT.fullmatch(stem)
        if _half_written(file):
            notes.append(Finding(None, where, "half-written", "a killed writer's, or a running one's"))
        elif stem in trials and ending == "npz":
            notes.append(Finding(stem, where, "arrays left over", "there is no record beside them"))
        elif stem in trials and re.fullmatch(r"unreadable([2-9]|[1-9][0-9]+)?", ending):
            present.add(stem)
            notes.append(Finding(stem, where, "unreadable", "a sweep found this record damaged and renamed it"))
        elif attempt and attempt[1] in trials and ending == "json":
            present.add(attempt[1])
            aside[attempt[1]] += 1
            notes.append(Finding(attempt[1], where, "set aside", "an earlier attempt"))
        elif ending in ("json", "npz") and not attempt:
            problems.append(Finding(None, where, "foreign trial", "a record or arrays of no planned trial"))
        else:
            notes.append(Finding(None, where, "stranger", "no planned trial owns it"))
    for name, record in records.items():
        if record.attempts != aside[name] + 1:
            problem = f"the record says {record.attempts}, and {aside[name]} earlier ones were set aside"
            notes.append(Finding(name, f"trials/{name}.json", "attempts", problem))
    reported = list(_reported(store))
    problems += _deleted(store, trials, present, reported)
    problems += _otherwise_reported(records, reported)
    return OfFolder(tuple(problems), tuple(notes))


def _listed(folder: os.PathLike[str]) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _half_written(file: str) -> bool:
    return file.startswith(".") and file.endswith(".tmp")


def _deleted(
    store: Store, trials: Mapping[str, Trial], present: set[str], reported: Iterable[Mapping[str, str]]
) -> Iterator[Finding]:
    """Planned trials whose record is gone, while something else in the folder tells that there was one."""
    gone = {name: trial for name, trial in trials.items() if name not in present}
    if not gone:
        return
    told: dict[str, str] = {}
    for name in _listed(store.folder / "models"):
        told[name] = "its weights are kept in models"
    for rerun in reruns.load(store.folder):
        told[rerun.trial] = f"{reruns.NAME} compares it with a rerun"
    for row in reported:
        told[row["trial"]] = f"{_REPORTED} lists it as {row['status']}"
    for name in gone:
        if name in told:
            yield Finding(name, f"trials/{name}.json", "deleted", one_line(f"its record is gone, and {told[name]}"))


def _otherwise_reported(records: Mapping[str, Record], reported: Iterable[Mapping[str, str]]) -> Iterator[Finding]:
    """Finished trials whose score the last report tells otherwise: a record is written once."""
    for row in reported:
        record, text = records.get(row["trial"]), row.get("final_score")
        if record is None or record.measured is None or row["status"] != "finished" or text is None:
            continue
        score = record.measured.final_score
        try:
            same = score is None if text == "" else score is not None and math.isclose(score, float(text), rel_tol=1e-9)
        except ValueError:
            same = False
        if not same:
            words = f"it has a score of {text or 'none'}, the record {score}; `harness report` writes it anew"
            yield Finding(record.id, _REPORTED, "report", one_line(words))


def _reported(store: Store) -> Iterator[dict[str, str]]:
    """The rows of the trials that the last report found finished or crashed."""
    try:
        text = read_regular(store.folder / _REPORTED, MOST_PLAN_BYTES).decode()
        for row in csv.DictReader(io.StringIO(text)):
            if row.get("trial") and row.get("status") in ("finished", "crashed"):
                yield row
    except (OSError, ValueError, csv.Error):
        return
