"""Claims held against rows of tables: shared by the tests of a study's page, its card, and a search's page."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from types import CodeType
from typing import Any

import numpy as np
import pytest

from harness.report.claims import Claim

Rows = list[dict[str, Any]]
NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e[-+]?\d+)?")


def check_number(rows: Rows, sentence: str, claim: Claim) -> None:
    """A claim of a number that stands in its table's rows, or sums them up, against these and against the words."""
    value, low, high = claim.estimate.value, claim.estimate.low, claim.estimate.high
    assert claim.words in sentence
    assert says(claim.words, value), (claim.words, value)
    if claim.quantity == "size":
        assert value == abs(rows[0][claim.column])
    elif claim.quantity == "value":
        row = rows[0]
        assert value == pytest.approx(float(row[claim.column]), nan_ok=True)
        for end, bound in (("low", low), ("high", high)):
            if not math.isnan(bound):
                assert bound == row.get(f"{claim.column}_{end}", row.get(end))
        if "[" in claim.words:
            unit = " %" if "%" in claim.words else " points" if "points" in claim.words else ""
            ends = claim.words.partition("[")[2].rstrip("]").split(", ")
            assert says(ends[0] + unit, low)
            assert says(ends[1] + unit, high)
    else:
        assert value == pytest.approx(summary(rows, claim)), claim


def says(words: str, value: float) -> bool:
    """Whether the first number of the words is the value, to the digits that it has."""
    match = re.search(r"[−-]?\d+(\.\d+)?(e-?\d+)?", words)
    if match is None:
        return words.startswith(("−∞", "∞")) and math.isinf(value)
    text = match[0].replace("−", "-")
    scale = 0.01 if "%" in words or "point" in words else 1.0
    digits = len(text.partition("e")[0].partition(".")[2]) - int(text.partition("e")[2] or 0)
    if "<" in words:
        return value < float(text)
    return abs(float(text) * scale - value) <= (0.5 * 10.0**-digits) * scale * (1 + 1e-6)


@functools.cache
def condition(where: str) -> CodeType:
    """Which rows a claim sums up, ready to be asked of many."""
    return compile(where, "<where>", "eval")


def summary(rows: Rows, claim: Claim) -> float:
    """What a claim sums up, row by row."""
    of = [row for row in rows if not claim.where or eval(condition(claim.where), {}, row)]
    chosen = [float(row[claim.column]) if claim.column else 1.0 for row in of]
    assert chosen or claim.quantity in ("count", "sum")
    if claim.quantity == "ratio":
        return float(sum(row[claim.column] for row in rows) / sum(row[claim.over] for row in rows))
    summaries: dict[str, Callable[[list[float]], float]] = {
        "count": len,
        "distinct": lambda values: len(set(values)),
        "sum": sum,
        "mean": np.mean,
        "median": np.median,
        "min": min,
        "max": max,
        "range": np.ptp,
    }
    return summaries[claim.quantity](chosen)
