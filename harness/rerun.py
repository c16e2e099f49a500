"""One trial trained again on the path that trained it first, and compared with its record, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness import machine
from harness.keeping import Keeping
from harness.records import Curves, Record, Store
from harness.sweep import HarnessError, Sweep, Trial
from harness.workers import Place, train_pack

Verdict = Literal["identical", "within_tolerance", "different"]
# Fields of `Environment` that may be None, in words.
_LATER = {
    "dirty_diff_sha256": "uncommitted changes",
    "cuda": "CUDA",
    "driver": "NVIDIA driver",
    "deterministic": "deterministic algorithms",
    "matmul_precision": "matmul precision",
    "kernels": "CPU kernels",
}


@dataclass(frozen=True)
class Comparison:
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
) -> Comparison:
    """Train one trial again on the same path and compare it with its record step by step; writes nothing.

    With `keeping` its weights are left staged there. It runs with the record's threads and, on a GPU, in a pack of the
    record's size (the other lanes repeat the trial), since bits may depend on the pack's size there. Raises
    HarnessError when there is no finished record.
    """
    record = store.load(trial.id)
    if record is None or record.measured is None or record.environment is None:
        state = "crashed" if record else "missing"
        raise HarnessError(
            "a rerun compares with a finished trial",
            got=f"{trial.id}, which is {state}",
            allowed="a trial with a record and a result",
            fix="train it with `harness sweep`" + (" --retry-crashed" if record else ""),
        )
    device = "cuda" if machine.here().gpus and record.environment.device.startswith("cuda") else "cpu"
    lanes = record.environment.pack_size if device == "cuda" else 1
    place = Place(device, record.environment.threads, record=False, keeping=keeping)
    again, curves = train_pack(sweep.name, sweep.profile, [trial] * lanes, place, progress)[0]
    assert curves is not None
    return compare(record, store.curves(trial.id), again, curves, tolerance, store.arrays_sha256(trial.id))


def compare(
    record: Record,
    kept: Curves | None,
    again: Record,
    curves: Curves,
    tolerance: float,
    arrays_sha256: str | None = None,
) -> Comparison:
    """Compare two results of one trial: bit for bit over all steps, else by the largest difference.

    Compared are training loss and gradient norm of every step, dev loss and score of every evaluation, the final
    logits (on the test split too, where both have one) and the hash of the final weights. NaN equals NaN. Where the
    arrays of the record are not kept, the weights' hash alone decides, and a difference has no size. `arrays_sha256` is
    that of the arrays as they lie there.
    """
    assert record.measured is not None
    assert again.measured is not None
    same_weights = record.measured.weights_sha256 == again.measured.weights_sha256
    differences: list[tuple[int | None, float]] = []  # (step, size)
    if kept is not None:
        steps = {"train_loss": None, "grad_norm": None, "dev_loss": kept.eval_step, "dev_score": kept.eval_step}
        for name, at in steps.items():
            differences += _differences(getattr(kept, name), getattr(curves, name), at)
        differences += [(None, size) for _, size in _differences(kept.logits.ravel(), curves.logits.ravel(), None)]
        if kept.test_logits.size and curves.test_logits.size:
            on_test = _differences(kept.test_logits.ravel(), curves.test_logits.ravel(), None)
            differences += [(None, size) for _, size in on_test]
    if same_weights and not differences:
        return Comparison(record.id, "identical", 0.0, None, (), record, again, kept is not None)
    largest = max((size for _, size in differences), default=None)
    first = min((step for step, _ in differences if step is not None), default=None)
    close = largest is not None and largest <= tolerance and record.measured.outcome == again.measured.outcome
    verdict: Verdict = "within_tolerance" if close else "different"
    finite = None if largest is None or not np.isfinite(largest) else largest
    reasons = _reasons(record, again, kept, arrays_sha256)
    return Comparison(record.id, verdict, finite, first, reasons, record, again, kept is not None)


def _differences(a: np.ndarray, b: np.ndarray, at: np.ndarray | None) -> list[tuple[int, float]]:
    """(step, size) wherever two series differ in a bit; infinite where one is not a number or a length differs."""
    if a.shape != b.shape:
        return [(int(min(len(a), len(b))) + 1, float("inf"))]
    apart = np.flatnonzero(~((a == b) | (np.isnan(a) & np.isnan(b))))
    sizes = np.abs(a[apart].astype(np.float64) - b[apart].astype(np.float64))
    sizes[~np.isfinite(sizes)] = np.inf
    return [(int(at[i]) if at is not None else int(i) + 1, float(size)) for i, size in zip(apart, sizes, strict=True)]


def _reasons(record: Record, again: Record, kept: Curves | None, arrays_sha256: str | None) -> tuple[str, ...]:
    """What differs between the two runs' surroundings, likeliest cause first."""
    assert record.measured is not None
    assert again.measured is not None
    assert record.environment is not None
    assert again.environment is not None
    pairs: list[tuple[str, object, object]] = [
        ("data", record.measured.data_sha256[:12], again.measured.data_sha256[:12]),
        ("pretrained weights", record.measured.model_sha256[:12], again.measured.model_sha256[:12]),
    ]
    old, new = record.measured.augmentation_sha256, again.measured.augmentation_sha256
    pairs.append(("words or translators of the augmentation", str(old)[:12], str(new)[:12]))
    before: Mapping[str, object] = record.environment.model_dump()
    now: Mapping[str, object] = again.environment.model_dump()
    names = ("device", "device_name", "threads", "torch", "transformers", "python", "harness", "commit")
    pairs += [(name.replace("_", " "), before[name], now[name]) for name in names]
    for name, words in _LATER.items():  # which early records don't say
        if before[name] is not None and now[name] is not None:
            pairs.append((words, str(before[name])[:20], str(now[name])[:20]))
    if record.environment.device.startswith("cuda"):
        pairs.append(("pack size", before["pack_size"], now["pack_size"]))
    found = [f"{name}: {old} then, {new} now" for name, old, new in pairs if old != new]
    if kept is None:
        found.append("the record's curves are not kept here or can't be read, so only the final weights were compared")
    elif record.arrays_sha256 != arrays_sha256:
        found.append("the record's curves were changed after they were written: their hash is another")
    return tuple(found) or ("nothing in the records explains it",)
