"""Whether the records of a results folder are whole and consistent; some, drawn at random, are trained again.

Nothing on the disk is changed. A *problem* is what no run of the harness leaves behind: a file was damaged or edited,
or inputs were mixed. A *note* is what interrupted and repeated runs do leave, and what was tidied away on purpose.
"""

from __future__ import annotations

import gc
import hashlib
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import ValidationError

from harness.analysis import mixed_runs
from harness.analysis.score_scale import edited_thresholds
from harness.common import tested_versions
from harness.common.errors import HarnessError, describe_os_error
from harness.common.files import read_regular
from harness.config.trials import Sweep, Trial, expand
from harness.execution.rerun import RerunComparison, rerun, same_score
from harness.execution.step_compilation import mixed
from harness.execution.verification.across import ArrayFacts, array_facts, check_across
from harness.execution.verification.beside import check_beside
from harness.execution.verification.folder import Finding, check_folder
from harness.execution.verification.outputs import check_outputs
from harness.execution.verification.recipe import (
    HASHES,
    check_belonging,
    check_facts,
    check_recipe,
    check_sizes,
    check_within,
    odd_start,
)
from harness.execution.verification.scores import check_measured
from harness.execution.verification.script import check_script
from harness.models import saved, token_hash
from harness.records.array_shapes import expected_arrays
from harness.records.reading import (
    MOST_ARRAY_BYTES,
    MOST_PLAN_BYTES,
    MOST_RECORD_BYTES,
    Problem,
    Unreadable,
    check_content,
    explain,
    key_twice,
    one_line,
    other_hash,
)
from harness.records.record import SCHEMA_VERSION, Curves, Environment, Record
from harness.records.store import Store, as_text
from harness.records.study import of_sweep

_SHA256 = re.compile(r"[0-9a-f]{64}").fullmatch


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
        text = read_regular(store.folder / "plan.json", MOST_PLAN_BYTES)
        content = json.loads(text)
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
        key = key_twice(text)
        return sweep, None if key is None else wrong(f"{key} stands there twice, and only the last value is read")
    listed = {str(trial_id) for trial_id in ids} if isinstance(ids, list) else set()
    other = sorted(listed.symmetric_difference(planned))
    return sweep, wrong(f"its ids are not those its sweep expands to: {other[0] if other else 'another order'}")


@contextmanager
def _uncollected() -> Iterator[None]:
    """Leave cycles of garbage where they are: looking for them among ten thousand records takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_uncollected()
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
    problems: list[Finding] = [plan] if plan else []
    notes: list[Finding] = []
    trials = {trial.id: trial for trial in expand(sweep)}
    records: dict[str, Record] = {}
    environments: dict[Environment | None, Environment | None] = {}  # a few, which thousands of records share
    facts: dict[str, ArrayFacts] = {}
    unreadable: set[str] = set()
    for number, (name, trial) in enumerate(trials.items(), 1):
        checked = _check_trial(sweep, store, name, trial)
        problems += checked.problems
        notes += checked.notes
        if checked.facts is not None:
            facts[name] = checked.facts
        if isinstance(checked.record, Unreadable):
            unreadable.add(name)
        elif checked.record is not None:
            environment = environments.setdefault(checked.record.environment, checked.record.environment)
            records[name] = checked.record.model_copy(update={"environment": environment})
        if progress is not None:
            progress(number, len(trials))
    problems += _mixed(trials, records)
    problems += [
        Finding(name, f"trials/{name}.{'npz' if rule == 'arrays of another' else 'json'}", rule, one_line(words))
        for name, rule, words in check_across(trials, records, facts)
    ]
    of_folder, of_runs = check_folder(store, trials, records), check_outputs(store.folder, trials, records)
    problems += (*of_folder.problems, *check_beside(store, trials, records, facts), *of_runs.problems)
    notes += (*of_folder.notes, *of_runs.notes, *_untested(records))
    if (note := mixed(records.values())) is not None:
        notes.append(Finding(None, "trials", "step mode", note))
    notes += _mixtures(sweep, records)
    problems += _models(store, records)
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


def edited_since(now: Sweep | None, store: Store) -> tuple[Finding, ...]:
    """What a script's sweep file says today that its finished runs were not judged by; `now` None: it is not known."""
    if now is None or not now.is_script:
        return ()
    sentences = edited_thresholds(of_sweep(now, store))
    return tuple(Finding(None, f"{now.name}.yaml", "threshold", one_line(words)) for words in sentences)


def draw(trials: Sequence[Trial], count: int, seed: int, suspects: Collection[str] = ()) -> tuple[Trial, ...]:
    """So many of the trials, all where there are fewer, in their order: suspects first, and the rest at random.

    Args:
        trials: Those that can be trained again.
        count: How many.
        seed: Decides which.
        suspects: Ids of trials that something was found of.
    """
    places = random.Random(seed).sample(range(len(trials)), len(trials))
    places.sort(key=lambda position: trials[position].id not in suspects)  # stable: each part stays shuffled
    return tuple(trials[position] for position in sorted(places[:count]))


def suspects(checked: Verification) -> frozenset[str]:
    """The trials with a problem, or with a note that training again could settle."""
    settled = [note for note in checked.notes if note.rule in ("first loss", "shared result")]
    return frozenset(found.trial for found in (*checked.problems, *settled) if found.trial is not None)


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


@dataclass(frozen=True)
class _CheckedTrial:
    """A planned trial's record as `Store.read` gives it, what is wrong with it, and what to remember of its arrays."""

    record: Record | Unreadable | None
    problems: tuple[Finding, ...] = ()
    notes: tuple[Finding, ...] = ()
    facts: ArrayFacts | None = None


def _check_trial(sweep: Sweep, store: Store, name: str, trial: Trial) -> _CheckedTrial:
    """Everything that one trial's files say of themselves and by the plan."""
    record = store.read(name, trial)
    if record is None:
        return _CheckedTrial(None)

    def found(problem: Problem, ending: str = "json") -> Finding:
        return Finding(name, f"trials/{name}.{ending}", problem[0], one_line(problem[1]))

    if isinstance(record, Unreadable):
        return _CheckedTrial(record, tuple(found(problem) for problem in record.problems))
    arrays = _check_arrays(store, name, record)
    problems = [*_check_record(sweep, record), *check_facts(record), *_twice(store, name, record)]
    measured, curves = record.measured, arrays.curves
    notes: list[Problem] = []
    if measured is not None and record.script is not None:
        problems += check_script(record, curves, trial.script)
    elif measured is not None and trial.script is None:
        problems += check_measured(measured, curves, trial.recipe)
        problems += [*check_recipe(measured, curves, trial.recipe), *check_sizes(measured, trial.recipe)]
        problems += check_belonging(measured, trial.recipe, record.environment)
        if curves is not None:
            problems += check_within(measured, curves, trial.recipe)
            start = odd_start(curves, trial.recipe)
            notes += [] if start is None else [("first loss", start)]
    return _CheckedTrial(
        record,
        (*map(found, problems), *(found(problem, "npz") for problem in arrays.problems)),
        (*map(found, notes), *(found(note, "npz") for note in arrays.notes)),
        None if arrays.sha256 is None else array_facts(arrays.sha256, curves),
    )


@dataclass(frozen=True)
class _CheckedFile:
    """A file of arrays: what is in it, what is wrong with it, and its hash; no arrays where they can't be used."""

    curves: Curves | None = None
    problems: tuple[Problem, ...] = ()
    notes: tuple[Problem, ...] = ()
    sha256: str | None = None


def _check_arrays(store: Store, name: str, record: Record) -> _CheckedFile:
    """The arrays of a record's trial, held against the record."""
    expected = expected_arrays(record)
    try:
        content = read_regular(f"{store.trials}/{name}.npz", MOST_ARRAY_BYTES)
    except FileNotFoundError:
        lacking = ("arrays missing", "curves and logits are not kept here, so they were not checked")
        return _CheckedFile(notes=() if expected is None else (lacking,))
    except OSError as error:
        return _CheckedFile(problems=(("arrays", f"they can't be read: {describe_os_error(error)}"),))
    digest = hashlib.sha256(content).hexdigest()
    if record.measured is None:
        return _CheckedFile(notes=(("arrays left over", "the trial crashed, and arrays lie there"),), sha256=digest)
    problems: tuple[Problem, ...] = ()
    if digest != record.arrays_sha256:
        problems = (other_hash(digest, record.arrays_sha256),)
    if expected is None:
        return _CheckedFile(problems=problems, sha256=digest)
    checked = check_content(content, expected)
    problems += checked.problems
    if checked.curves is not None and record.script is None and not checked.curves.eval_step.size:
        return _CheckedFile(problems=(*problems, ("shapes", "there is no evaluation")), sha256=digest)
    return _CheckedFile(checked.curves, problems, sha256=digest)


def _twice(store: Store, name: str, record: Record) -> Iterator[Problem]:
    """A key that stands twice in a record, of which only the last value is read."""
    try:
        text = read_regular(store.path(name), MOST_RECORD_BYTES)
        key = None if text == as_text(record) else key_twice(text)  # which takes longest
    except (OSError, ValueError, RecursionError):  # it was read before, and is gone or changed since
        return
    if key is not None:
        yield "record", f"{key} stands there twice, and only the last value is read"


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
        for field in HASHES:
            value = getattr(record.measured, field)
            if value is None:  # no such thing, or not recorded: of a field that must be there reading it tells
                continue
            if not _SHA256(value):
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
            if record.measured.config_sha256 is not None:
                groups["config_sha256", recipe.model.name][record.measured.config_sha256].append(name)
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


def _models(store: Store, records: Mapping[str, Record]) -> Iterator[Finding]:
    """The kept models whose weights, or what is said of them, are not those of their records."""
    for folder in sorted((store.folder / "models").glob("[!.]*")):
        for words in _of_model(store, folder.name, records.get(folder.name)):
            yield Finding(folder.name, one_line(f"models/{folder.name}"), "kept weights", one_line(words))


def _of_model(store: Store, name: str, record: Record | None) -> Iterator[str]:
    try:
        card = saved.read_card(saved.place(store, name))
        if card.form != "files":  # which only their script can read
            saved.weights(store, name)
            saved.check_files(store.folder / "models" / name, card)
    except HarnessError as error:
        yield error.headline
        return
    if card.trial.id != name:
        yield f"its {saved.CARD} is of trial {card.trial.id}"
    if record is None or record.measured is None:
        return
    for field in ("metric", "outcome", "label_names", "label_threshold", "model_sha256", "config_sha256"):
        told, known = getattr(card, field), getattr(record.measured, field)
        if None not in (told, known) and told != known:
            yield f"its {saved.CARD} says that {field} is {told}, the record {known}"
    if not same_score(card.final_score, record.measured.final_score):
        yield f"its {saved.CARD} says that it scores {card.final_score}, the record {record.measured.final_score}"


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
