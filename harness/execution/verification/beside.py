"""What lies beside the records, held against itself and against them: reruns, baselines, a loss surface."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import numpy as np

from harness.common import metrics
from harness.config.trials import Trial
from harness.execution.rerun import same_score
from harness.execution.verification.across import ArrayFacts, labels_digest
from harness.execution.verification.folder import Finding
from harness.execution.verification.times import CLOCKS_APART, utc
from harness.records import reruns
from harness.records.reading import one_line
from harness.records.record import Baseline, Record, started_seconds
from harness.records.reruns import Rerun
from harness.records.store import Store

_BASELINES, _SURFACE = "baselines.json", "surface.npz"


def check_beside(
    store: Store, trials: Mapping[str, Trial], records: Mapping[str, Record], facts: Mapping[str, ArrayFacts]
) -> Iterator[Finding]:
    """What is wrong with the files beside the records.

    Args:
        store: The results folder.
        trials: The plan's, by id.
        records: Those that can be used, by id.
        facts: Of their arrays, by id.
    """
    for name in store.damaged_files():
        yield Finding(None, name, "damaged", "it can't be read, and reports do without it")
    for rerun in reruns.load(store.folder):
        known = rerun.trial in trials
        for words in _of_rerun(rerun, records.get(rerun.trial)) if known else ("of no planned trial",):
            yield Finding(rerun.trial if known else None, reruns.NAME, "reruns", one_line(words))
    for words in _of_baselines(store.baselines(), records, facts):
        yield Finding(None, _BASELINES, "baselines", one_line(words))
    surface = store.surface()
    for name in () if surface is None else surface.trials.tolist():
        if name not in trials:
            yield Finding(None, _SURFACE, "surface", one_line(f"it is of {name}, which is no planned trial"))


# -------------------------------------------------------------------------------------------------------------- reruns


def _of_rerun(rerun: Rerun, record: Record | None) -> Iterator[str]:
    """What an entry contradicts in itself, and in the record that it was compared with."""
    what = f"a {rerun.kind}"
    when = utc(rerun.when_utc)
    if when is None or when > datetime.now(UTC) + CLOCKS_APART:
        yield f"{what} began at {rerun.when_utc!r}"
    if rerun.verdict == "identical":
        apart = rerun.max_difference or rerun.first_differing_step is not None
        if apart or not same_score(rerun.score, rerun.recorded_score):
            yield (
                f"{what} is called identical, with scores of {rerun.recorded_score} and {rerun.score}, a difference of "
                f"{rerun.max_difference} and a first step that differs of {rerun.first_differing_step}"
            )
    if record is None or record.measured is None:
        return
    if record.measured.final_score != rerun.recorded_score:
        scores = f"{rerun.recorded_score}, and the record's final score is {record.measured.final_score}"
        yield f"{what} was compared with {scores}"
    began = started_seconds(record)
    if when is not None and began is not None and when.timestamp() < began - CLOCKS_APART.total_seconds():
        yield f"{what} began at {rerun.when_utc!r}, before the run itself, at {record.started_utc!r}"
    if record.measured.steps is not None and (rerun.first_differing_step or 0) > record.measured.steps + 1:
        yield f"{what} differs first at step {rerun.first_differing_step}, of {record.measured.steps}"


# ----------------------------------------------------------------------------------------------------------- baselines


def _of_baselines(
    baselines: tuple[Baseline, ...], records: Mapping[str, Record], facts: Mapping[str, ArrayFacts]
) -> Iterator[str]:
    """What baselines contradict in themselves, and in the records of the same data."""
    seen: set[tuple[str, str, str]] = set()
    for baseline in baselines:
        key = (baseline.name, baseline.task, baseline.data_sha256)
        if key in seen:
            yield f"{baseline.name} stands there twice for one task"
        seen.add(key)
        if (words := _odd_scores(baseline)) is not None:
            yield words
        labels = {fact.labels for name, fact in facts.items() if _of_same(baseline, records[name]) and fact.labels}
        own = labels_digest(np.array(baseline.labels, dtype=np.int64)) if baseline.labels else None
        if own is not None and labels and own not in labels:
            yield f"the labels of {baseline.name} are not those of the records of the same data"


def _odd_scores(baseline: Baseline) -> str | None:
    """Where a baseline's scores and verdicts are not what its answers give; None where they are, or can't be told."""
    if not baseline.answers or baseline.metric != "accuracy":
        return None
    labels = np.array(baseline.labels, dtype=np.int64)
    majority = metrics.majority("accuracy", labels, int(labels.max()) + 1).correct or 0
    for answers, score, failed in zip(baseline.answers, baseline.scores, baseline.failed, strict=True):
        right = int((np.array(answers, dtype=np.int64) == labels).sum())
        if not math.isclose(score, right / len(labels), rel_tol=1e-9, abs_tol=1e-12) or failed != (right <= majority):
            told = f"{baseline.name} scores {score} and is {'failed' if failed else 'ok'}"
            return f"{told}; its answers give {right} of {len(labels)}, and the majority has {majority}"
    return None


def _of_same(baseline: Baseline, record: Record) -> bool:
    """Whether a record is of the data and the metric of a baseline."""
    measured = record.measured
    return measured is not None and (measured.data_sha256, measured.metric) == (baseline.data_sha256, baseline.metric)
