"""Whether the records of a results folder are whole and consistent; some, drawn at random, are trained again.

Nothing on the disk is changed. A *problem* is what no run of the harness leaves behind: a file was damaged or edited,
or inputs were mixed. A *note* is what interrupted and repeated runs do leave, and what was tidied away on purpose.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from harness.analysis import mixed_runs
from harness.common import tested_versions
from harness.common.errors import HarnessError, describe_os_error
from harness.common.files import read_regular
from harness.config.trials import Sweep, Trial, expand
from harness.execution.rerun import RerunComparison, rerun
from harness.execution.step_compilation import mixed
from harness.execution.verify_scores import check_measured
from harness.models import saved, token_hash
from harness.records.array_shapes import expected_arrays
from harness.records.reading import (
    MOST_ARRAY_BYTES,
    MOST_PLAN_BYTES,
    Problem,
    Unreadable,
    check_content,
    explain,
    one_line,
    other_hash,
)
from harness.records.record import SCHEMA_VERSION, Curves, Measured, Record
from harness.records.store import Store


@dataclass(frozen=True)
class Finding:
    """One line: where, which rule, and what was found there; `file` is relative to the results folder."""

    trial: str | None
    file: str
    rule: str
    found: str


@dataclass(frozen=True)
class Verification:
    """What checking a results folder gave; the counts are over the plan, as everywhere."""

    planned: int
    finished: int
    crashed: int
    missing: int
    unreadable: int
    problems: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    repeatable: tuple[Trial, ...]  # finished and with a record to compare with, in the plan's order


def plan_of(store: Store) -> tuple[Sweep | None, Finding | None]:
    """The sweep of a folder's plan.json, as far as it can be read, and what is wrong with the plan."""

    def wrong(problem: str) -> Finding:
        return Finding(None, "plan.json", "plan", one_line(problem))

    try:
        content = json.loads(read_regular(store.folder / "plan.json", MOST_PLAN_BYTES))
        if content["schema_version"] != SCHEMA_VERSION:
            return None, wrong(f"its schema is {content['schema_version']!r}, known is {SCHEMA_VERSION}")
        ids, sweep = content["trials"], Sweep.model_validate_json(json.dumps(content["sweep"]))
        planned = [trial.id for trial in expand(sweep)]
    except FileNotFoundError:
        return None, wrong("there is none")
    except ValidationError as error:
        return None, wrong(explain(error))
    except OSError as error:
        return None, wrong(f"it can't be read: {error.strerror}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return None, wrong(f"it can't be read: {type(error).__name__}: {error}")
    if ids == planned:
        return sweep, None
    listed = {str(trial_id) for trial_id in ids} if isinstance(ids, list) else set()
    other = sorted(listed.symmetric_difference(planned))
    return sweep, wrong(f"its ids are not those its sweep expands to: {other[0] if other else 'another order'}")


def check(sweep: Sweep, store: Store, progress: Callable[[int, int], None] | None = None) -> Verification:
    """Check every planned trial's record and arrays, the plan and what else lies there; trains and changes nothing.

    `progress(done, planned)` is called after every trial. Raises HarnessError where there is no results folder.
    """
    if not store.folder.is_dir():
        raise HarnessError(
            f"there is no results folder {store.folder}",
            fix="Train the sweep with `harness sweep`, or name another --results folder",
        )
    plan = plan_of(store)[1]
    problems, notes = [plan] if plan else [], []
    trials = {trial.id: trial for trial in expand(sweep)}
    records: dict[str, Record] = {}
    unreadable: set[str] = set()
    for number, (name, trial) in enumerate(trials.items(), 1):
        record, wrong, notes_of_trial = _check_trial(sweep, store, name, trial)
        problems += wrong
        notes += notes_of_trial
        if isinstance(record, Unreadable):
            unreadable.add(name)
        elif record is not None:
            records[name] = record
        if progress is not None:
            progress(number, len(trials))
    problems += _mixed(trials, records)
    notes += _others(store, trials, records) + _untested(records)
    if (note := mixed(records.values())) is not None:
        notes.append(Finding(None, "trials", "step mode", note))
    notes += _mixtures(sweep, records)
    problems += _models(store)
    states = Counter(record.status for record in records.values())
    repeatable = tuple(
        trials[name] for name, record in records.items() if record.measured is not None and record.environment
    )
    return Verification(
        planned=len(trials),
        finished=states["finished"],
        crashed=states["crashed"],
        missing=len(trials) - len(records) - len(unreadable),
        unreadable=len(unreadable),
        problems=tuple(problems),
        notes=tuple(notes),
        repeatable=repeatable,
    )


def draw(trials: Sequence[Trial], count: int, seed: int) -> tuple[Trial, ...]:
    """So many of the trials at random, all where there are fewer, in their order; the seed decides which."""
    places = random.Random(seed).sample(range(len(trials)), min(count, len(trials)))
    return tuple(trials[position] for position in sorted(places))


def retrain(
    sweep: Sweep, store: Store, trial: Trial, tolerance: float, progress: Callable[[int, int], None] | None = None
) -> RerunComparison | Finding:
    """Train one trial again and compare it with its record; what training raises now is a finding.

    Raises HarnessError for data or a model that can't be had here, as `rerun` does.
    """
    try:
        return rerun(sweep, store, trial, tolerance, progress)
    except HarnessError:
        raise
    except Exception as error:  # it trained once, so whatever it raises now is what was found
        problem = one_line(f"training it again raised {type(error).__name__}: {error}")
        return Finding(trial.id, f"trials/{trial.id}.json", "retrain", problem)


# ------------------------------------------------------------------------------------------------- one trial's files


def _check_trial(
    sweep: Sweep, store: Store, name: str, trial: Trial
) -> tuple[Record | Unreadable | None, list[Finding], list[Finding]]:
    """(record, problems, notes) of a planned trial, the record as `Store.read` gives it."""
    path = store.path(name)

    def at_record(problem: Problem) -> Finding:
        return Finding(name, f"trials/{path.name}", problem[0], one_line(problem[1]))

    record = store.read(name, trial)
    if record is None:
        return None, [], []
    if isinstance(record, Unreadable):
        return record, [at_record(problem) for problem in record.problems], []
    problems = [at_record(problem) for problem in _check_record(sweep, record)]
    curves, of_arrays, notes = _check_arrays(store, name, record)
    problems += of_arrays
    if record.measured is not None and trial.script is None:
        problems += [at_record(problem) for problem in check_measured(record.measured, curves, trial.recipe)]
    return record, problems, notes


def _check_arrays(store: Store, name: str, record: Record) -> tuple[Curves | None, list[Finding], list[Finding]]:
    """(arrays, problems, notes) of a record's trial; None for arrays that are not kept or can't be used."""
    expected, problems = expected_arrays(record), []

    def finding(problem: Problem) -> Finding:
        return Finding(name, f"trials/{name}.npz", problem[0], one_line(problem[1]))

    try:
        content = read_regular(f"{store.trials}/{name}.npz", MOST_ARRAY_BYTES)
    except FileNotFoundError:
        lacking = ("arrays missing", "curves and logits are not kept here, so they were not checked")
        return None, [], [] if expected is None else [finding(lacking)]
    except OSError as error:
        return None, [finding(("arrays", f"they can't be read: {describe_os_error(error)}"))], []
    if record.measured is None:
        return None, [], [finding(("arrays left over", "the trial crashed, and arrays lie there"))]
    digest = hashlib.sha256(content).hexdigest()
    if digest != record.arrays_sha256:
        problems.append(finding(other_hash(digest, record.arrays_sha256)))
    if expected is None:
        return None, problems, []
    checked = check_content(content, expected)
    problems += [finding(problem) for problem in checked.problems]
    if checked.curves is not None and record.script is None and not checked.curves.eval_step.size:
        problems.append(finding(("shapes", "there is no evaluation")))
        return None, problems, []
    return checked.curves, problems, []


def _check_record(sweep: Sweep, record: Record) -> Iterator[Problem]:
    """What can be said of a record by itself and the plan, beside what reading it tells."""
    if record.sweep != sweep.name:
        yield "sweep", f"the record is of sweep {record.sweep!r}, the plan of {sweep.name!r}"
    if record.profile != sweep.profile:
        yield "profile", f"the record is of profile {record.profile!r}, the plan of {sweep.profile!r}"
    finished = record.status == "finished"
    if finished != (record.error is None):
        yield "status", f"{record.status}, {'with' if finished else 'without'} an error"
    if finished and record.environment is None:
        yield "status", "finished, without where it was trained"
    if finished and record.arrays_sha256 is None and record.script is None:  # a script may have left no curves
        yield "status", "finished, without the hash of its arrays"
    if not finished and record.arrays_sha256 is not None:
        yield "status", "crashed, with the hash of arrays"
    if record.measured is not None:
        for field in (name for name in Measured.model_fields if name.endswith("_sha256")):
            value = getattr(record.measured, field)
            if value is None:  # no such thing, or not recorded: of a field that must be there reading it tells
                continue
            if not re.fullmatch(r"[0-9a-f]{64}", value):
                yield "record", f"{field} is {value!r}, which is no SHA-256"


# ------------------------------------------------------------------------------------------------------ the folder


def _mixed(trials: dict[str, Trial], records: dict[str, Record]) -> Iterator[Finding]:
    """Finished trials whose data, tokens or pretrained weights are others than most of that name began with."""
    groups: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, record in records.items():
        if record.measured is not None and record.script is None:
            recipe = trials[name].recipe
            groups["data_sha256", recipe.task.name][str(record.measured.data_sha256)].append(name)
            groups["model_sha256", recipe.model.name][str(record.measured.model_sha256)].append(name)
            if record.measured.tokens_sha256 is not None:
                tokens = "{} with the tokenizer of {}, max_length {}".format(*token_hash.key_of(recipe))
                groups["tokens_sha256", tokens][record.measured.tokens_sha256].append(name)
            if record.measured.augmentation_sha256 is not None:
                words = " and ".join(spec.name for spec in recipe.specs[2:])
                groups["augmentation_sha256", words][record.measured.augmentation_sha256].append(name)
    for (rule, of), digests in groups.items():
        usual = max(digests, key=lambda digest: len(digests[digest]))  # among equals the plan's first
        for digest, names in digests.items():
            for name in names if digest != usual else ():
                sentence = f"{digest[:12]}… for '{of}', where {len(digests[usual])} trials have {usual[:12]}…"
                yield Finding(name, f"trials/{name}.json", rule, one_line(sentence))


def _models(store: Store) -> Iterator[Finding]:
    """The kept models whose weights are not those that their records were hashed of."""
    for folder in sorted((store.folder / "models").glob("[!.]*")):
        try:
            saved.weights(store, folder.name)
        except HarnessError as error:
            where = f"models/{folder.name}"
            yield Finding(folder.name, one_line(where), "kept weights", one_line(str(error.got)))


def _untested(records: Mapping[str, Record]) -> list[Finding]:
    """That records were trained with versions which the tests did not run with."""
    environments = [record.environment for record in records.values() if record.environment]
    notes = tested_versions.record_note(
        environment.model_dump(include=set(tested_versions.TESTED)) for environment in environments
    )
    return [] if notes is None else [Finding(None, "trials", "versions", notes)]


def _mixtures(sweep: Sweep, records: Mapping[str, Record]) -> Iterator[Finding]:
    """Things that did not make all records alike, and whether a comparison of cells hangs on them."""
    labels = [cell.label for cell in sweep.cells]
    for mixture in mixed_runs.of_records(records.values(), {trial.id: trial.cell for trial in expand(sweep)}):
        words = mixture.warning(labels) or f"mixed within cells: {mixture.words}"
        yield Finding(None, "trials", "mixed runs", one_line(words))


def _others(store: Store, trials: dict[str, Trial], records: dict[str, Record]) -> list[Finding]:
    """What lies there beside the planned trials' records and arrays, by name."""
    notes: list[Finding] = []
    aside: Counter[str] = Counter()
    for folder in (store.folder, store.trials):
        try:
            files = sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for file in files:
            where = one_line(file if folder == store.folder else f"trials/{file}")
            if file.startswith(".") and file.endswith(".tmp"):
                notes.append(Finding(None, where, "half-written", "a killed writer's, or a running one's"))
                continue
            if folder == store.folder:
                continue
            stem, _, ending = file.rpartition(".")
            attempt = re.fullmatch(r"(.+)\.attempt[1-9][0-9]*", stem)
            if stem in trials and ending == "json":
                continue
            if stem in trials and ending == "npz":
                if not store.path(stem).exists():
                    notes.append(Finding(stem, where, "arrays left over", "there is no record beside them"))
            elif stem in trials and ending == "unreadable":
                notes.append(Finding(stem, where, "unreadable", "a sweep found this record damaged and renamed it"))
            elif attempt and attempt[1] in trials and ending == "json":
                aside[attempt[1]] += 1
                notes.append(Finding(attempt[1], where, "set aside", "an earlier attempt"))
            else:
                notes.append(Finding(None, where, "stranger", "no planned trial owns it"))
    for name, record in records.items():
        if record.attempts != aside[name] + 1:
            problem = f"the record says {record.attempts}, and {aside[name]} earlier ones were set aside"
            notes.append(Finding(name, f"trials/{name}.json", "attempts", problem))
    return notes
