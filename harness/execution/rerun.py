"""One trial trained again on the path that trained it first, and compared with its record, step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.common.errors import HarnessError
from harness.config.trials import Sweep, Trial
from harness.execution import machine, step_compilation
from harness.execution.causes import Causes, causes, pack_decides
from harness.execution.train_pack import WorkerSetup, lacks_memory, train_pack
from harness.models.keep_weights import Keeping
from harness.records.reading import Unreadable
from harness.records.record import Curves, Measured, Record
from harness.records.store import Store

Verdict = Literal["identical", "within_tolerance", "different"]
# Ten times what other kernels (AVX2 for AVX-512) were measured to make of nine whole runs of `rte_lr@embedded` with
# bias correction: at most 9.4e-5 in any loss, gradient norm, score or logit; 3e-8 at the first step, 2e-6 within the
# first 20. Without bias correction rounding grows: the same change made more than 1e-3 of seven runs of nine, up to
# 2e3, and another outcome of one. No number tells that from another cause, so such a rerun is `different`.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class RerunComparison:
    """A trial trained again, against its record; steps count from 1, None where no step differs."""

    trial: str
    verdict: Verdict
    max_difference: float | None
    first_differing_step: int | None
    reasons: tuple[str, ...]
    record: Record
    again: Record
    by_steps: bool  # False where the record's curves are gone and the final weights alone were compared


def rerun(
    sweep: Sweep,
    store: Store,
    trial: Trial,
    tolerance: float,
    progress: Callable[[int, int], None] | None = None,
    keeping: Keeping | None = None,
) -> RerunComparison:
    """Train one trial again on the same path and compare it with its record step by step; the record is left as it is.

    It runs with the record's threads, with compiled steps where the record's were, and then, with several threads, or
    on a GPU, in a pack of the record's size (the other lanes repeat the trial), since bits may depend on it there.

    Args:
        sweep: The sweep of the trial.
        store: Its results folder.
        trial: A trial with a finished record.
        tolerance: As `compare` has it.
        progress: Called with (updates, steps).
        keeping: Where its weights are left staged; None: they are thrown away.

    Raises:
        HarnessError: There is no finished record, or its pack does not fit the memory.
    """
    record = store.read(trial.id, trial)
    if isinstance(record, Unreadable):
        raise HarnessError(
            f"cannot rerun {trial.id}: its record {record.file} can't be used: {record.reason}",
            fix="Restore the file, or train the trial again with `harness sweep`",
        )
    if record is None or record.measured is None or record.environment is None:
        state = "crashed" if record else "missing"
        raise HarnessError(
            f"cannot rerun {trial.id}, which is {state}: there is no result to compare with",
            fix="Train it with `harness sweep`" + (" --retry-crashed" if record else ""),
        )
    device = "cuda" if machine.detect_hardware().gpus and record.environment.device.startswith("cuda") else "cpu"
    compiled = step_compilation.is_compiled(record)
    as_then = record.environment.device.startswith(device) and pack_decides(record)
    lanes = record.environment.pack_size if as_then else 1
    setup = WorkerSetup(device, record.environment.threads, record=False, keeping=keeping, compiled=compiled)
    told = progress if trial.script is None else None  # nothing is known of a script's steps
    try:
        again, curves = train_pack(sweep.name, sweep.profile, [trial] * lanes, setup, told)[0]
    except (RuntimeError, MemoryError) as error:
        if lanes == 1 or not lacks_memory(error):
            raise
        raise HarnessError(  # a smaller pack may have other bits, and would be another comparison
            f"cannot rerun {trial.id}: it was trained in a pack of {lanes}, on which its last bits may depend, and so "
            "many do not fit this machine's memory",
            fix="Rerun it where as much memory is free as when it was trained",
        ) from None
    saved = store.read_arrays(record, recording=False, any_hash=True)
    return compare(record, saved, again, curves, tolerance, store.arrays_sha256(trial.id))


def compare(
    record: Record,
    saved: Curves | Unreadable | None,
    again: Record,
    curves: Curves | None,
    tolerance: float,
    arrays_sha256: str | None = None,
) -> RerunComparison:
    """Compare two results of one trial: bit for bit over all steps, else by the largest difference.

    Compared are training loss and gradient norm of every step, dev loss and score of every evaluation, the final
    logits (on the test split too, where both have one) and the hash of the final weights. NaN equals NaN.

    `within_tolerance` takes a difference of at most `tolerance`, the same outcome, and something that computes and is
    known to be another (`Causes.may_be_rounding`); with other inputs, or where all that computes is the same and bits
    should be too, the two are `different` however small the difference is.

    Args:
        record: The record of the first result.
        saved: Its arrays, whatever their hash; where they are gone or can't be used the weights' hash decides, and a
            difference has no size.
        again: The record of the second result.
        curves: Its arrays.
        tolerance: The largest absolute difference that counts as rounding.
        arrays_sha256: The hash of the first result's arrays as they lie in the folder now.
    """
    assert record.measured is not None
    assert again.measured is not None
    saved_curves = None if isinstance(saved, Unreadable) else saved
    same_weights = record.measured.weights_sha256 == again.measured.weights_sha256
    differences: list[tuple[int | None, float]] = _measures_apart(record, again)  # (step, size)
    if saved_curves is not None and curves is not None:
        steps = {
            "train_loss": None,
            "grad_norm": None,
            "dev_loss": saved_curves.eval_step,
            "dev_score": saved_curves.eval_step,
        }
        for name, at in steps.items():
            differences += _differences(getattr(saved_curves, name), getattr(curves, name), at)
        differences += [
            (None, size) for _, size in _differences(saved_curves.logits.ravel(), curves.logits.ravel(), None)
        ]
        if saved_curves.test_logits.size and curves.test_logits.size:
            on_test = _differences(saved_curves.test_logits.ravel(), curves.test_logits.ravel(), None)
            differences += [(None, size) for _, size in on_test]
    if same_weights and not differences:
        if (edited := _told_apart(record.measured, again.measured)) is not None:
            return RerunComparison(
                record.id, "different", None, None, (edited,), record, again, saved_curves is not None
            )
        return RerunComparison(record.id, "identical", 0.0, None, (), record, again, saved_curves is not None)
    if record.script is not None and again.script is not None:
        return _of_script(record, again, differences, tolerance, saved_curves is not None)
    largest = max((size for _, size in differences), default=None)
    first = min((step for step, _ in differences if step is not None), default=None)
    close = largest is not None and largest <= tolerance and record.measured.outcome == again.measured.outcome
    explained = causes(record, again)
    verdict: Verdict = "within_tolerance" if close and explained.may_be_rounding else "different"
    finite = None if largest is None or not np.isfinite(largest) else largest
    reasons = _reasons(explained, record, saved, arrays_sha256)
    return RerunComparison(record.id, verdict, finite, first, reasons, record, again, saved_curves is not None)


def _told_apart(before: Measured, now: Measured) -> str | None:
    """What of two results with the same weights and curves is told differently, which training does not do."""
    if same_score(before.final_score, now.final_score) and before.outcome == now.outcome:
        return None
    return (
        f"weights and curves are equal, and the record tells a score of {before.final_score} ({before.outcome}) where "
        f"they give {now.final_score} ({now.outcome}): it was edited, or scored by another version"
    )


def same_score(first: float | None, second: float | None) -> bool:
    """Whether two scores of the same answers are one: another version may round them otherwise."""
    if first is None or second is None:
        return first is second
    return math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-12)


def _measures_apart(record: Record, again: Record) -> list[tuple[int | None, float]]:
    """Where two runs of a script differ in their score or a further metric; none of two runs of the engine."""
    if record.script is None or again.script is None or record.measured is None or again.measured is None:
        return []
    pairs = [(record.measured.final_score, again.measured.final_score)]
    before, now = dict(record.script.further), dict(again.script.further)
    pairs += [(before.get(name), now.get(name)) for name in dict.fromkeys((*before, *now))]
    return [(None, float("inf") if a is None or b is None else abs(a - b)) for a, b in pairs if a != b]


def _of_script(
    record: Record, again: Record, differences: list[tuple[int | None, float]], tolerance: float, by_steps: bool
) -> RerunComparison:
    """Two runs of a script that differ: whether by more than the tolerance, and what is known to be another."""
    assert record.script is not None
    assert again.script is not None
    largest = max(size for _, size in differences)
    first = min((step for step, _ in differences if step is not None), default=None)
    names = {
        "commit": "the repository's commit", "dirty_diff_sha256": "its uncommitted changes", "python": "Python",
        "packages_sha256": "the installed packages",
    }  # fmt: skip
    apart = [words for name, words in names.items() if getattr(record.script, name) != getattr(again.script, name)]
    reasons = tuple(f"{words} changed" for words in apart) or (
        "nothing recorded explains it: the script may not be deterministic",
    )
    verdict: Verdict = "within_tolerance" if largest <= tolerance else "different"
    finite = largest if np.isfinite(largest) else None
    return RerunComparison(record.id, verdict, finite, first, reasons, record, again, by_steps)


def _differences(a: np.ndarray, b: np.ndarray, at: np.ndarray | None) -> list[tuple[int, float]]:
    """(step, size) wherever two series differ in a bit; infinite where one is not a number or a length differs."""
    if a.shape != b.shape:
        return [(int(min(len(a), len(b))) + 1, float("inf"))]
    apart = np.flatnonzero(~((a == b) | (np.isnan(a) & np.isnan(b))))
    sizes = np.abs(a[apart].astype(np.float64) - b[apart].astype(np.float64))
    sizes[~np.isfinite(sizes)] = np.inf
    return [(int(at[i]) if at is not None else int(i) + 1, float(size)) for i, size in zip(apart, sizes, strict=True)]


def _reasons(
    causes: Causes, record: Record, saved: Curves | Unreadable | None, arrays_sha256: str | None
) -> tuple[str, ...]:
    """What differs between the two runs, likeliest cause first, and what can't be told."""
    reasons = [*causes.inputs, *causes.computes, *causes.code]
    if isinstance(saved, Unreadable):
        reasons.append(f"the record's curves can't be used ({saved.reason}), so only the final weights were compared")
    elif saved is None:
        reasons.append("the record's curves are not kept here, so only the final weights were compared")
    elif record.arrays_sha256 != arrays_sha256:
        reasons.append("the record's curves were changed after they were written: their hash is another")
    reasons = reasons or ["nothing in the records explains it"]
    if causes.not_recorded:
        reasons.append(f"not recorded then, so not compared: {' and '.join(causes.not_recorded)}")
    return tuple(reasons)
