"""Whether the numbers of a record can be: scores within their metric's range, counts and times that a run can have."""

from __future__ import annotations

import math
from collections.abc import Iterator

from harness.common import metrics
from harness.records.array_shapes import LARGEST
from harness.records.record import Measured, Record

MOST_STEPS = 10_000_000  # updates: at a hundredth of a second each, more than a day
MOST_EXAMPLES = 10_000_000_000
MOST_PARAMETERS = 10**14
MOST_SECONDS = 10 * 365.25 * 86_400.0  # ten years
MOST_MEMORY_BYTES = 2**60
MOST_NAMES = 50  # of classes: of more none are kept
_SCORES = ("final_score", "best_score", "majority_score", "test_score", "untouched_score")
# Counts: at least, at most.
_COUNTS: dict[str, tuple[int, int]] = {
    "steps": (1, MOST_STEPS), "best_step": (0, MOST_STEPS), "diverged_step": (1, MOST_STEPS),
    "stopped_step": (1, MOST_STEPS), "kept_step": (0, MOST_STEPS), "train_examples": (1, MOST_EXAMPLES),
    "dev_examples": (1, MOST_EXAMPLES), "test_examples": (0, MOST_EXAMPLES), "correct": (0, MOST_EXAMPLES),
    "majority_correct": (0, MOST_EXAMPLES), "parameters": (1, MOST_PARAMETERS),
    "trained_parameters": (1, MOST_PARAMETERS), "peak_memory_bytes": (0, MOST_MEMORY_BYTES),
}  # fmt: skip
_NOT_NEGATIVE = ("label_entropy", "label_variance", "unknown_share")
_LOSSES = ("final_train_loss", "final_dev_loss")


def implausible(record: Record) -> Iterator[str]:
    """What no run gives among the numbers of a record, a sentence each."""
    environment, measured = record.environment, record.measured
    if environment is not None and not (1 <= environment.pack_size <= 10**6 and 1 <= environment.threads <= 10**6):
        yield f"pack_size is {environment.pack_size} and threads {environment.threads}"
    if measured is None:
        return
    yield from _scores(measured, of_script=record.script is not None or record.trial.script is not None)
    values = measured.__dict__  # quicker than fifty attributes of a model, ten thousand times
    for name, (low, high) in _COUNTS.items():
        value = values[name]
        # The best step of a script is what its files call a step.
        if value is not None and not low <= value <= high and not (name == "best_step" and record.script is not None):
            yield f"{name} is {value}, which is not from {low:,} to {high:,}"
    if len(measured.label_names or ()) > MOST_NAMES:
        yield f"label_names are {len(measured.label_names or ()):,}, and at most {MOST_NAMES} are kept"
    for name in _NOT_NEGATIVE:
        value = values[name]
        most = 1.0 if name == "unknown_share" else LARGEST
        if value is not None and not 0 <= value <= most:
            yield f"{name} is {value}"
    for name in _LOSSES:
        value = values[name]
        if value is not None and abs(value) > LARGEST:
            yield f"{name} is {value}"
    for name in ("wall_seconds", "lane_seconds"):
        value = getattr(measured, name)
        if not 0 <= value <= MOST_SECONDS:
            yield f"{name} is {value}"
    if record.script is not None:
        for name, value in record.script.further:
            if value is not None and not abs(value) <= LARGEST:
                yield f"the further metric {name} is {value}"


def _scores(measured: Measured, *, of_script: bool) -> Iterator[str]:
    """Scores out of their metric's range; what a script calls accuracy may be in percent."""
    metric, limit, low = measured.metric, LARGEST, -LARGEST
    if not of_script and metric in (
        *metrics.CLASSIFICATION,
        *metrics.REGRESSION,
        metrics.ENTITIES,
        *metrics.SPANS,
        "exact_match",
    ):
        limit, low = 1.0, -1.0 if metric in (*metrics.REGRESSION, "matthews_correlation") else 0.0
    for name in _SCORES:
        value = measured.__dict__[name]
        if value is not None and not low <= value <= limit and not math.isclose(value, limit, abs_tol=1e-9):
            yield f"{name} is {value}, which is no {metric.replace('_', ' ')}"
    examples = measured.dev_examples
    for name in ("correct", "majority_correct"):
        value = getattr(measured, name)
        if value is not None and examples is not None and value > examples:
            yield f"{name} is {value} of {examples} dev examples"
