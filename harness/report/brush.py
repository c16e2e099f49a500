"""The runs of a study as lines over its axes to their score, for the page's script, which filters them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np

from harness.analysis.analyze import Analysis
from harness.common.text import Scalar, show
from harness.report.formatting import score
from harness.report.run_tables import MOST_RUNS

FEWEST = 3  # axes of several values; a search, whose axes have many values each, has lines over two
MOST_AXES = 10
MOST_ORDINAL = 12  # values that stand at equal distances, each with its name
WHOLE = 1000  # from the lowest value of an axis to the highest
_LOGARITHMIC = 20  # times the smallest: numbers that reach so far stand by their logarithms
_STOPS = 20  # of a continuous axis, which the arrow keys go by


def data_of(analysis: Analysis) -> str:
    """JSON: `axes`, `kinds`, and `runs`, [row of the table of runs, kind, place on each axis] in thousandths.

    Nothing where so few axes are better seen otherwise, or where the table of runs does not have all runs.
    """
    study = analysis.study
    axes = [axis for axis in study.axes if len(study.values(axis)) > 1][:MOST_AXES]
    many = any(len(study.values(axis)) > MOST_ORDINAL for axis in axes)
    scores = analysis.runs["final_score"].astype(float).replace([np.inf, -np.inf], np.nan)
    known = analysis.runs[(analysis.runs["verdict"] != "") & scores.notna()]
    if len(axes) < (2 if many else FEWEST) or len(known) < 2 or len(analysis.runs) > MOST_RUNS:
        return ""
    values = scores[known.index].to_numpy()
    placed = [_Axis(study.values(axis)) for axis in axes]
    told = [dict(study.cells[int(cell)].axes) for cell in known["cell"]]
    columns = [[axis.place_of(one[name]) for one in told] for name, axis in zip(axes, placed, strict=True)]
    columns.append([_thousandths(value, values.min(), values.max()) for value in values])
    failed = known["verdict"].isin(["failed", "diverged"]).to_numpy()
    good = values if study.higher_is_better else -values
    best = (good >= np.quantile(good, 0.75)) & ~failed
    kinds = np.where(failed, 2, np.where(best, 1, 0)).tolist()
    names = (("others", "others"), ("best", "best quarter"), ("failed", "failed"))
    data = {
        "axes": [axis.as_data(name) for name, axis in zip(axes, placed, strict=True)] + [_score_axis(values)],
        "kinds": [
            {"name": name, "text": text, "count": kinds.count(number)} for number, (name, text) in enumerate(names)
        ],
        "runs": [list(run) for run in zip(known.index.tolist(), kinds, *columns, strict=True)],
    }
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


class _Axis:
    """Where the values of an axis stand: few at equal distances, many numbers by their size."""

    def __init__(self, values: Sequence[Scalar]) -> None:
        self.values = list(values)
        numbers = [number for number in map(_number, self.values) if number is not None]
        self.continuous = len(self.values) > MOST_ORDINAL and len(numbers) >= len(self.values) - 1
        self.low, self.high = (min(numbers), max(numbers)) if numbers else (0.0, 0.0)
        self.log = self.continuous and self.low > 0 and self.high >= _LOGARITHMIC * self.low

    def place_of(self, value: Scalar) -> int:
        """From 0, the lowest value, to 1000; the one that is no number below all numbers."""
        if not self.continuous:
            return round(WHOLE * self.values.index(value) / (len(self.values) - 1))
        number = _number(value)
        if number is None:
            return -60
        if self.log:
            return _thousandths(math.log(number), math.log(self.low), math.log(self.high))
        return _thousandths(number, self.low, self.high)

    def as_data(self, name: str) -> dict[str, object]:
        """What the page draws of it: its name, ticks, the stops of the arrow keys, how far apart lines may lie."""
        spaced = name.replace("_", " ")
        if self.continuous:
            stops = [(place, self._text_at(place)) for place in range(0, WHOLE + 1, WHOLE // _STOPS)]
            ticks = stops[:: _STOPS // 4]
        else:
            stops = [(self.place_of(value), show(value)) for value in self.values]
            ticks = stops if len(stops) <= MOST_ORDINAL else stops[:: len(stops) - 1]
        apart = 0 if self.continuous else min(60, round(300 / (len(self.values) - 1)))
        short = [(place, _cut(text, 14)) for place, text in ticks]
        return {"name": spaced, "label": _cut(spaced, 16), "ticks": short, "stops": stops, "apart": apart}

    def _text_at(self, place: int) -> str:
        share = place / WHOLE
        value = self.low * (self.high / self.low) ** share if self.log else self.low + share * (self.high - self.low)
        return f"{value:.3g}"


def _score_axis(values: np.ndarray) -> dict[str, object]:
    low, high = float(values.min()), float(values.max())
    places = range(0, WHOLE + 1, WHOLE // _STOPS)
    stops = [(place, score(low + place / WHOLE * (high - low))) for place in places]
    return {"name": "score", "label": "score", "ticks": stops[:: _STOPS // 4], "stops": stops, "apart": 0}


def _thousandths(value: float, low: float, high: float) -> int:
    return round(WHOLE * (value - low) / (high - low)) if high > low else WHOLE // 2


def _number(value: Scalar) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
