"""Whether the records of a results folder are whole and consistent; some, drawn at random, are trained again.

Nothing on the disk is changed. A *problem* is what no run of the harness leaves behind: a file was damaged or edited,
or inputs were mixed. A *note* is what interrupted and repeated runs do leave, and what was tidied away on purpose.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import random
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast, get_args

import numpy as np
from pydantic import ValidationError

from harness.common import metrics, tested_versions
from harness.common.errors import HarnessError
from harness.common.metrics import Metric
from harness.config.recipe import Recipe
from harness.config.trials import Sweep, Trial, expand
from harness.execution.rerun import RerunComparison, rerun
from harness.execution.step_compilation import mixed
from harness.models import saved, token_hash
from harness.records.record import OPTIONAL, RECORDED, SCHEMA_VERSION, Curves, Measured, Record, Recording
from harness.records.store import Store

# The kinds of numpy's dtypes that a curve may have; [S] over steps, [E] over evaluations.
_BY_STEP = {"train_loss": "f", "lr": "f", "grad_norm": "f"}
_BY_EVALUATION = {"eval_step": "iu", "dev_loss": "f", "dev_score": "f"}
_METRICS: tuple[str, ...] = get_args(Metric)
_LONGEST = 240  # characters of a finding: a line, whatever a damaged file holds

Found = tuple[str, str]  # (rule, what was found)


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
    problems: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    repeatable: tuple[Trial, ...]  # finished and with a record to compare with, in the plan's order


def plan_of(store: Store) -> tuple[Sweep | None, Finding | None]:
    """The sweep of a folder's plan.json, as far as it can be read, and what is wrong with the plan."""

    def wrong(problem: str) -> Finding:
        return Finding(None, "plan.json", "plan", _line(problem))

    try:
        content = json.loads((store.folder / "plan.json").read_bytes())
        if content["schema_version"] != SCHEMA_VERSION:
            return None, wrong(f"its schema is {content['schema_version']!r}, known is {SCHEMA_VERSION}")
        ids, sweep = content["trials"], Sweep.model_validate_json(json.dumps(content["sweep"]))
        planned = [trial.id for trial in expand(sweep)]
    except FileNotFoundError:
        return None, wrong("there is none")
    except ValidationError as error:
        return None, wrong(_explained(error))
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
    for number, (name, trial) in enumerate(trials.items(), 1):
        record, wrong, notes_of_trial = _check_trial(sweep, store, name, trial)
        problems += wrong
        notes += notes_of_trial
        if record is not None:
            records[name] = record
        if progress is not None:
            progress(number, len(trials))
    problems += _mixed(trials, records)
    notes += _others(store, trials, records) + _untested(records)
    if (note := mixed(records.values())) is not None:
        notes.append(Finding(None, "trials", "step mode", note))
    problems += _models(store)
    states = Counter(record.status for record in records.values())
    repeatable = tuple(
        trials[name] for name, record in records.items() if record.measured is not None and record.environment
    )
    return Verification(
        planned=len(trials),
        finished=states["finished"],
        crashed=states["crashed"],
        missing=len(trials) - len(records),
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
        problem = _line(f"training it again raised {type(error).__name__}: {error}")
        return Finding(trial.id, f"trials/{trial.id}.json", "retrain", problem)


# ------------------------------------------------------------------------------------------------- one trial's files


def _check_trial(
    sweep: Sweep, store: Store, name: str, trial: Trial
) -> tuple[Record | None, list[Finding], list[Finding]]:
    """(record, problems, notes) of a planned trial; None for a record that counts as missing, as in `Store.load`."""
    path = store.path(name)

    def at_record(problem: Found) -> Finding:
        return Finding(name, f"trials/{path.name}", problem[0], _line(problem[1]))

    def at_arrays(problem: Found) -> Finding:
        return Finding(name, f"trials/{name}.npz", problem[0], _line(problem[1]))

    try:
        record = Record.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None, [], []
    except OSError as error:
        return None, [at_record(("record", f"it can't be read: {error.strerror}"))], []
    except ValidationError as error:
        return None, [at_record(("record", _explained(error)))], []
    problems = [at_record(problem) for problem in _check_record(sweep, record, name)]
    if record.id != name:
        return None, problems, []
    measured, curves = record.measured, None
    notes: list[Finding] = []
    try:
        content = path.with_suffix(".npz").read_bytes()
    except FileNotFoundError:
        if measured is not None:
            notes.append(at_arrays(("arrays missing", "curves and logits are not kept here, so they were not checked")))
    except OSError as error:
        problems.append(at_arrays(("arrays", f"they can't be read: {error.strerror}")))
    else:
        if measured is None:
            notes.append(at_arrays(("arrays left over", "the trial crashed, and arrays lie there")))
        else:
            digest = hashlib.sha256(content).hexdigest()
            if record.arrays_sha256 != digest:
                known = record.arrays_sha256 or "none"
                problems.append(at_arrays(("arrays_sha256", f"hash {digest[:12]}…, in the record {known[:12]}…")))
            read = _read_arrays(content)
            if isinstance(read, str):
                problems.append(at_arrays(("arrays", read)))
            else:
                curves = read
    if measured is not None:
        if curves is not None:
            shapes = [at_arrays(("shapes", problem)) for problem in _check_shapes(curves, measured)]
            problems += shapes
            curves = None if shapes else curves
        problems += [at_record(problem) for problem in _check_measured(measured, curves, trial.recipe)]
    return record, problems, notes


def _check_record(sweep: Sweep, record: Record, name: str) -> Iterator[Found]:
    """What can be said of a record by itself and the plan."""
    computed = record.trial.id
    if record.id != name:
        yield "id", f"the file is called {name}, the record in it {record.id!r}"
    if computed != record.id:
        yield "id", f"the record is called {record.id!r}, its trial's fields give {computed}"
    if record.sweep != sweep.name:
        yield "sweep", f"the record is of sweep {record.sweep!r}, the plan of {sweep.name!r}"
    if record.profile != sweep.profile:
        yield "profile", f"the record is of profile {record.profile!r}, the plan of {sweep.profile!r}"
    finished = record.status == "finished"
    if finished != (record.measured is not None):
        yield "status", f"{record.status}, {'without' if finished else 'with'} a result"
    if finished != (record.error is None):
        yield "status", f"{record.status}, {'with' if finished else 'without'} an error"
    if finished and record.environment is None:
        yield "status", "finished, without where it was trained"
    if finished and record.arrays_sha256 is None:
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


def _read_arrays(content: bytes) -> Curves | str:
    """The arrays of an .npz, or why they can't be read; nothing is unpickled, and each is held against its checksum."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            arrays = {name.removesuffix(".npy"): _array(archive.read(name)) for name in archive.namelist()}
    except (Exception, MemoryError) as error:  # zip, zlib and numpy raise a dozen kinds on damaged bytes
        return f"they can't be read: {type(error).__name__}: {error}"
    known = set(Curves.__dataclass_fields__) - {"recording"}
    recorded = {name for name in arrays if name.startswith(RECORDED)}
    if recorded:
        known |= {f"{RECORDED}{name}" for name in Recording.__dataclass_fields__}
    lacking, other = sorted(known - OPTIONAL - set(arrays)), sorted(set(arrays) - known)
    if lacking or other:
        problems = [f"lacking {', '.join(lacking)}"] * bool(lacking) + [f"unknown {', '.join(other)}"] * bool(other)
        return "; ".join(problems)
    recording = None
    if recorded:
        recording = Recording(**{name.removeprefix(RECORDED): arrays.pop(name) for name in sorted(recorded)})
    return Curves(**arrays, recording=recording)


def _array(content: bytes) -> np.ndarray:
    """An .npy file's array. Raises ValueError for pickled objects and whatever else is no plain array."""
    # The header of format 1.0, which numpy writes for these: magic, version, its length in two bytes, the text.
    if content[:8] != b"\x93NUMPY\x01\x00":
        return cast(np.ndarray, np.load(io.BytesIO(content), allow_pickle=False))
    end = 10 + int.from_bytes(content[8:10], "little")
    shape, fortran, dtype = _header(content[8:end])
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
    if len(content) - end != dtype.itemsize * math.prod(shape):
        raise ValueError(f"{len(content) - end} bytes for an array {shape} of {dtype}")
    array = np.frombuffer(content, dtype, offset=end)
    return array.reshape(shape, order="F" if fortran else "C")


@lru_cache(maxsize=256)  # ten thousand records share a dozen headers, and reading one is most of reading an array
def _header(text: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    return np.lib.format.read_array_header_1_0(io.BytesIO(text))


def _check_shapes(curves: Curves, measured: Measured) -> Iterator[str]:
    """Whether the arrays are [S], [E], [N, C] and [N] of numbers, with S and N as in the record."""
    evaluations = curves.eval_step.size
    sizes = [(_BY_STEP, measured.steps, "steps"), (_BY_EVALUATION, evaluations, "evaluations")]
    fine = evaluations > 0
    if not fine:
        yield "there is no evaluation"
    for kinds, length, unit in sizes:
        for name, kind in kinds.items():
            array = getattr(curves, name)
            if array.shape != (length,) or array.dtype.kind not in kind:
                fine = False
                yield f"{name} is {array.dtype} {array.shape} for {length} {unit}"
    dev, test = (curves.logits, curves.labels), (curves.test_logits, curves.test_labels)
    splits = [
        ("", "dev", dev, curves.sentences, measured.dev_examples),
        ("test_", "test", test, curves.test_sentences, measured.test_examples or 0),
    ]
    for before, split, (logits, labels), sentences, examples in splits:
        if measured.metric == metrics.ENTITIES:
            if sentences.shape != (examples,) or sentences.dtype.kind != "i":
                yield f"{before}sentences are {sentences.dtype} {sentences.shape} for {examples} {split} examples"
                continue
            examples, split = int(sentences.sum()), f"{split} words of"
        if logits.ndim != 2 or len(logits) != examples or logits.dtype.kind != "f":
            yield f"{before}logits are {logits.dtype} {logits.shape} for {examples} {split} examples"
        if labels.shape != (examples,) or labels.dtype.kind not in "iuf":
            yield f"{before}labels are {labels.dtype} {labels.shape} for {examples} {split} examples"
    if fine:
        steps = curves.eval_step.astype(np.int64)
        if steps[0] < 0 or steps[-1] != measured.steps or (np.diff(steps) <= 0).any():
            yield f"eval_step does not rise to the last step, {measured.steps}: {steps[:3].tolist()} … {steps[-1]}"
    if curves.recording is not None:
        yield from _check_recording(curves.recording, measured, evaluations)


def _check_recording(recording: Recording, measured: Measured, evaluations: int) -> Iterator[str]:
    """Whether the arrays of a recording belong together, and to the run's updates and evaluations."""
    updates, layers = recording.update.size, recording.layers.size
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "layers": ((layers,), "U"),
        "update": ((updates,), "iu"),
        "layer_norm": ((updates, layers), "f"),
        "update_norm": ((updates,), "f"),
        "weight_norm": ((updates,), "f"),
        "predicted": ((evaluations, *recording.predicted.shape[1:2]), "iu"),
        "cls_rank": ((evaluations,), "f"),
        "cls_cosine": ((evaluations,), "f"),
    }
    fine = True
    for name, (shape, kind) in shapes.items():
        array = getattr(recording, name)
        if array.shape != shape or array.dtype.kind not in kind:
            fine = False
            yield f"{RECORDED}{name} is {array.dtype} {array.shape} instead of {shape}"
    if not fine:
        return
    at = recording.update.astype(np.int64)
    if not updates or at[0] < 1 or at[-1] > measured.steps or (np.diff(at) <= 0).any():
        yield f"{RECORDED}update does not rise within the {measured.steps} steps"
    if not set(recording.predicted.sum(axis=1).tolist()) <= {0, measured.dev_examples}:
        yield f"{RECORDED}predicted does not count the {measured.dev_examples} dev examples"


# ------------------------------------------------------------------------------------------------- what was measured


def _check_measured(measured: Measured, curves: Curves | None, recipe: Recipe) -> Iterator[Found]:
    """Whether scores, outcome and losses are what the arrays give; without arrays, whether they fit each other."""
    if measured.metric not in _METRICS:
        yield "score", f"metric {measured.metric!r} is none of {', '.join(_METRICS)}"
        return
    metric = cast(Metric, measured.metric)
    if curves is None:
        yield from _check_counts(metric, measured)
        yield from _check_outcome(measured, _below(metric, measured), None)
        return
    try:
        score = metrics.score(metric, curves.logits, curves.labels, curves.sentences)
        majority = _majority(metric, curves.logits.shape[1], curves.labels.dtype.str, curves.labels.tobytes())
        on_test = (curves.test_logits, curves.test_labels, curves.test_sentences)
        test = metrics.score(metric, *on_test).value if curves.test_labels.size else None
    except ValueError as error:
        yield "shapes", str(error)
        return
    for name, recorded, given in (
        ("correct", measured.correct, score.correct),
        ("final_score", measured.final_score, score.value),
        ("majority_correct", measured.majority_correct, majority.correct),
        ("majority_score", measured.majority_score, majority.value),
        ("test_score", measured.test_score, test),
    ):
        if not _same(recorded, given):
            yield "score", f"{name} is {_said(recorded)}, logits and labels give {_said(given)}"
    yield from _check_outcome(measured, score.at_or_below_majority, score.constant)
    yield from _check_curves(measured, curves, recipe)


@lru_cache(maxsize=64)  # all trials of a task share the labels
def _majority(metric: Metric, classes: int, dtype: str, labels: bytes) -> metrics.Majority:
    return metrics.majority(metric, np.frombuffer(labels, dtype), classes)


def _check_counts(metric: Metric, measured: Measured) -> Iterator[Found]:
    """Counts against scores, where the arrays are not kept."""
    counts = [("correct", measured.correct, measured.final_score)] if measured.final_score is not None else []
    counts.append(("majority_correct", measured.majority_correct, measured.majority_score))
    for name, count, score in counts:
        if (count is None) == metrics.counts(metric):
            yield "score", f"{name} is {_said(count)} for {metric}"
        elif count is not None and not 0 <= count <= measured.dev_examples:
            yield "score", f"{name} is {count} of {measured.dev_examples} dev examples"
        elif count is not None and metric == "accuracy" and not _same(score, count / max(1, measured.dev_examples)):
            yield "score", f"accuracy {_said(score)}, {name} {count} of {measured.dev_examples}"
    if measured.final_score is None and measured.correct is not None:
        yield "score", f"no score, and {measured.correct} right answers"


def _below(metric: Metric, measured: Measured) -> bool:
    """At or below the majority classifier, by counts for accuracy; no score is below any."""
    if measured.final_score is None:
        return True
    if metric == "accuracy" and measured.correct is not None and measured.majority_correct is not None:
        return measured.correct <= measured.majority_correct
    return measured.final_score <= measured.majority_score


def _check_outcome(measured: Measured, below: bool, constant: bool | None) -> Iterator[Found]:
    """Outcome and reason against what the final answers are worth; `constant` None where they are not kept."""
    told = measured.outcome if measured.reason is None else f"{measured.outcome} ({measured.reason})"
    if (measured.outcome == "failed") != below:
        where = "at or below" if below else "above"
        counts = f"{_said(measured.correct)} right answers, the majority has {_said(measured.majority_correct)}"
        yield "outcome", f"{told}, and the final score is {where} the majority classifier's: {counts}"
    elif measured.outcome == "ok":
        if measured.reason is not None:
            yield "outcome", f"{told}, and only a failed run has a reason"
    elif (measured.reason == "diverged") != (measured.final_score is None):
        yield "outcome", f"{told}, and the final score is {_said(measured.final_score)}"
    elif constant is not None and measured.reason != "diverged":
        if measured.reason == "constant" and not constant:
            yield "outcome", f"{told}, and the logits answer more than one class"
        if measured.reason is None and constant:
            yield "outcome", f"{told} without a reason, and the logits answer one class alone"


def _check_curves(measured: Measured, curves: Curves, recipe: Recipe) -> Iterator[Found]:
    """What the record sums up of the curves, computed again."""
    scores, steps = curves.dev_score, curves.eval_step
    at = len(steps) - 1
    if measured.kept_step is not None:
        if measured.kept_step not in steps.tolist():
            yield "curves", f"kept_step is {measured.kept_step}, which is no evaluation"
            return
        at = steps.tolist().index(measured.kept_step)
    best = int(np.nanargmax(scores)) if np.isfinite(scores).any() else None
    bad = np.flatnonzero(~(np.isfinite(curves.train_loss) & np.isfinite(curves.grad_norm)))
    given: dict[str, float | None] = {
        "final_score": _finite(scores[at]),
        "best_score": None if best is None else _finite(scores[best]),
        "best_step": None if best is None else int(steps[best]),
        "final_dev_loss": _finite(curves.dev_loss[at]),
        "diverged_step": int(bad[0]) + 1 if bad.size else None,
    }
    whole = measured.stopped_step is None and recipe.max_steps is None  # else an epoch's length is not known here
    if measured.steps and measured.steps % recipe.epochs == 0 and whole:
        last = curves.train_loss[-(measured.steps // recipe.epochs) :]
        given["final_train_loss"] = _finite(np.mean(last, dtype=np.float64))
    for name, value in given.items():
        recorded = getattr(measured, name)
        if not _same(recorded, value):
            yield "curves", f"{name} is {_said(recorded)}, the curves give {_said(value)}"


# ------------------------------------------------------------------------------------------------------ the folder


def _mixed(trials: dict[str, Trial], records: dict[str, Record]) -> Iterator[Finding]:
    """Finished trials whose data, tokens or pretrained weights are others than most of that name began with."""
    groups: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, record in records.items():
        if record.measured is not None:
            recipe = trials[name].recipe
            groups["data_sha256", recipe.task.name][record.measured.data_sha256].append(name)
            groups["model_sha256", recipe.model.name][record.measured.model_sha256].append(name)
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
                yield Finding(name, f"trials/{name}.json", rule, _line(sentence))


def _models(store: Store) -> Iterator[Finding]:
    """The kept models whose weights are not those that their records were hashed of."""
    for folder in sorted((store.folder / "models").glob("[!.]*")):
        try:
            saved.weights(store, folder.name)
        except HarnessError as error:
            where = f"models/{folder.name}"
            yield Finding(folder.name, _line(where), "kept weights", _line(str(error.got)))


def _untested(records: Mapping[str, Record]) -> list[Finding]:
    """That records were trained with versions which the tests did not run with."""
    environments = [record.environment for record in records.values() if record.environment]
    notes = tested_versions.record_note(
        environment.model_dump(include=set(tested_versions.TESTED)) for environment in environments
    )
    return [] if notes is None else [Finding(None, "trials", "versions", notes)]


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
            where = _line(file if folder == store.folder else f"trials/{file}")
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


# ------------------------------------------------------------------------------------------------------------ words


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _same(first: float | None, second: float | None) -> bool:
    """Equal, counts exactly; scores were computed by the same code, maybe on another machine or in another version."""
    if first is None or second is None:
        return first is second
    return first == second or (isinstance(first, float) and math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-12))


def _said(value: float | None) -> str:
    return "none" if value is None else repr(value)


def _explained(error: ValidationError) -> str:
    """The first thing that pydantic found, without the input, which may be long."""
    first, more = error.errors(include_url=False, include_input=False)[0], error.error_count() - 1
    where = ".".join(map(str, first["loc"]))
    return f"{where + ': ' if where else ''}{first['msg']}{f' (and {more} more)' if more else ''}"


def _line(text: str) -> str:
    """One printable line of bounded length."""
    plain = "".join(c if c.isprintable() else " " if c.isspace() else c.encode("unicode_escape").decode() for c in text)
    short = " ".join(plain.split())
    return short if len(short) <= _LONGEST else short[: _LONGEST - 1] + "…"
