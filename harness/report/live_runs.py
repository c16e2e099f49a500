"""Where each run is in the spread figure, and its curves, for the page's script; from no other host."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.analysis.analyze import Analysis
from harness.report.figures import all_figures
from harness.report.figures.style import MARKS_FILE
from harness.report.run_tables import MOST_RUNS

MOST_BYTES = 80_000  # of curves: the page stays light
_POINTS = 24  # of a curve


def data_of(analysis: Analysis, figures: Path) -> str:
    """JSON: `places`, [row of the table of runs, x, y] in ten-thousandths of the figure; `curves` by row.

    `narrow` are the places in the figure for phones. Nothing where the table of runs does not have them all.
    """
    places, narrow = (_places(figures / MARKS_FILE.format(name)) for name in ("spread", all_figures.NARROW))
    if not places or len(analysis.runs) > MOST_RUNS:
        return ""
    curves: dict[str, list[list[object]]] = {}
    size = 0
    for row in sorted({int(row) for row, _, _ in places}):
        of_run = _curves(analysis, row)
        size += len(json.dumps(of_run))
        if size > MOST_BYTES:
            break
        if of_run:
            curves[str(row)] = of_run
    data = {"places": places, "narrow": narrow, "curves": curves}
    return json.dumps(data, separators=(",", ":"), allow_nan=False)


def _places(path: Path) -> list[list[int]]:
    """What a file of marks says, which is removed."""
    if not path.is_file():
        return []
    places: list[list[int]] = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    return places


def _curves(analysis: Analysis, row: int) -> list[list[object]]:
    """The dev score and the training loss of a run, thinned: [name, steps, values] each."""
    arrays = analysis.study.curves(row)
    if arrays is None:
        return []
    loss = np.asarray(arrays.train_loss, dtype=float)
    pairs = (
        ("dev score", np.asarray(arrays.eval_step, dtype=float), np.asarray(arrays.dev_score, dtype=float)),
        ("training loss", np.arange(1, len(loss) + 1, dtype=float), loss),
    )
    return [[name, *_thin(steps, values)] for name, steps, values in pairs if np.isfinite(values).sum() > 1]


def _thin(steps: np.ndarray, values: np.ndarray) -> Sequence[list[float]]:
    """At most two dozen points of a curve, each the mean of those it stands for."""
    keep = np.isfinite(values)
    parts = np.array_split(np.arange(int(keep.sum())), min(_POINTS, int(keep.sum())))
    known_steps, known = steps[keep], values[keep]
    return [
        [round(float(known_steps[part[-1]])) for part in parts],
        [float(f"{known[part].mean():.3g}") for part in parts],
    ]
