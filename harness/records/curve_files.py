"""The file of the curves of imported runs: score and training loss over the steps, for the runs that have them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.common.files import read_regular
from harness.common.npz import read_arrays
from harness.records.record import Curves

FILE = "curves.npz"
_LARGEST_STEP = 2.0**53  # a whole number as a double
_MOST_STEPS = 200_000  # of a training loss, which is drawn step by step
Points = tuple[np.ndarray, np.ndarray]  # steps [P] and values [P]


@dataclass(frozen=True)
class RunCurves:
    """The score and the training loss of one run over its steps; either may be lacking."""

    score: Points | None
    loss: Points | None


def packed(curves: Mapping[int, RunCurves], rows: int) -> bytes:
    """The curves of a table of so many rows as the bytes of a file: ends, steps and values of each kind."""
    arrays: dict[str, Any] = {}
    for name in ("score", "loss"):
        series = [getattr(curves[row], name) if row in curves else None for row in range(rows)]
        lengths = [0 if points is None else len(points[0]) for points in series]
        arrays[f"{name}_ends"] = np.cumsum(lengths, dtype=np.int64)
        for axis, part in enumerate(("steps", "values")):
            held = [np.asarray(points[axis], dtype=np.float64) for points in series if points is not None]
            arrays[f"{name}_{part}"] = np.concatenate(held) if held else np.zeros(0)
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def load_curves(folder: Path, rows: int) -> dict[int, Curves]:
    """Row -> its curves, as `Study.curves` gives them; none where the folder has none. Raises ValueError."""
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        arrays = read_arrays(read_regular(path, 2**30))
        parts = {name: _split(arrays, name, rows) for name in ("score", "loss")}
    except (KeyError, EOFError, OSError) as error:
        raise ValueError("curves that can't be read") from error
    both = zip(parts["score"], parts["loss"], strict=True)
    return {
        row: curves_of_points(score, loss)
        for row, (score, loss) in enumerate(both)
        if score is not None or loss is not None
    }


def _split(arrays: Mapping[str, np.ndarray], name: str, rows: int) -> list[Points | None]:
    ends, steps, values = (arrays[f"{name}_{part}"] for part in ("ends", "steps", "values"))
    kinds = [(array.ndim, array.dtype.kind) for array in (ends, steps, values)]
    if kinds != [(1, "i"), (1, "f"), (1, "f")] or (np.diff(ends, prepend=0) < 0).any():
        raise ValueError("curves that are none")
    if (np.abs(steps) > _LARGEST_STEP).any() or np.isnan(steps).any():
        raise ValueError("steps that are none")
    if len(ends) != rows or len(steps) != len(values) or (rows and ends[-1] != len(steps)):
        raise ValueError("curves of another table")
    starts = np.r_[0, ends[:-1]]
    return [
        (steps[start:end], values[start:end]) if end > start else None for start, end in zip(starts, ends, strict=True)
    ]


def curves_of_points(score: Points | None, loss: Points | None) -> Curves:
    """The arrays of a run of which only a score and a training loss over steps are known; either may be lacking."""
    steps, scores = (np.zeros(0), np.zeros(0)) if score is None else score
    nothing = np.zeros(0, np.float32)
    return Curves(
        train_loss=nothing if loss is None else _by_step(*loss),
        lr=np.zeros(0),
        grad_norm=nothing,
        eval_step=np.round(steps).astype(np.int64),
        dev_loss=np.full(len(steps), np.nan, np.float32),
        dev_score=scores.astype(np.float64),
        logits=np.zeros((0, 0), np.float32),
        labels=nothing,
    )


def _by_step(steps: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """A loss that was logged now and then [S]: each value since the one before; nothing where steps are too many."""
    last = int(steps.max())
    if not 1 <= last <= _MOST_STEPS:
        return np.zeros(0, np.float32)
    position = np.searchsorted(steps, np.arange(1, last + 1), side="left")
    return losses[np.minimum(position, len(losses) - 1)].astype(np.float32)
