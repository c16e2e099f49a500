"""Numbers as people read them: scores, shares, p values, rates with their interval, counts and durations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from harness.common.text import show

Row = Mapping[str, Any]


def unknown(value: object) -> bool:
    """Whether a value of a table is not known."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def score(value: float | None) -> str:
    """A score, a difference of scores or a loss: three decimals, fewer for large ones; `–` where not known."""
    if value is None or unknown(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    digits = 3 if size < 10 else 2 if size < 100 else 1 if size < 1e5 else 0
    text = f"{value:.{digits}f}" if size < 1e12 else f"{value:.4g}"
    return text.replace("-", "−") if float(text) else text.removeprefix("-")


def percent(value: float | None, digits: int = 0) -> str:
    """A share in per cent; `–` where not known."""
    if value is None or unknown(value):
        return "–"
    text = f"{100 * value:.{digits}f}"
    return (text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")) + " %"


def points(fraction: float | None) -> str:
    """A difference of accuracies in percentage points."""
    return "–" if fraction is None or unknown(fraction) else f"{100 * fraction:.1f}".replace("-", "−") + " points"


def decimals(value: float, digits: int) -> str:
    """A number with so many decimals; `–` where not known."""
    return "–" if unknown(value) else f"{value:.{digits}f}".replace("-", "−")


def p_value(value: float | None) -> str:
    """A p value with two digits, more where these would round it up to a level that it is below; `< 0.0001` below."""
    if value is None or unknown(value):
        return "–"
    if value < 1e-4:
        return "< 0.0001"
    texts = (f"{value:.{digits}g}" for digits in range(2, 6))
    return next((text for text in texts if (float(text) < 0.05) == (value < 0.05)), "0.05")


def rate_of(row: Row) -> str:
    """The failure rate of a table's row as people read it, with the interval that the table has."""
    if unknown(row["failed"]) or not row["judged"] or unknown(row["failed_low"]):
        return "unknown"
    low, high = (100 * row[f"failed_{end}"] for end in ("low", "high"))
    return f"{100 * row['failed'] / row['judged']:.0f} % [{low:.0f}, {high:.0f}]"


def interval(row: Row, name: str, form: Callable[[float | None], str] = score) -> str:
    """An estimate with its interval, `0.81 [0.79, 0.83]`, from the columns `name`, `name_low`, `name_high`."""
    value, low, high = (row[key] for key in (name, f"{name}_low", f"{name}_high"))
    if unknown(value):
        return "–"
    bounds = "" if unknown(low) or unknown(high) else f" [{form(low)}, {form(high)}]".replace(" %", "")
    return form(value) + bounds


def versus(axis: str, value: object, reference: object) -> str:
    """What is compared on an axis: `lr 3e-5 vs. 2e-5`."""
    return f"{axis.replace('_', ' ')} {show(value)} vs. {show(reference)}"


def integer(value: object) -> str:
    """A count; `–` where not known."""
    return "–" if unknown(value) else str(int(str(value).removesuffix(".0")))


def duration(seconds: float) -> str:
    """A time in the unit that suits it: `90 s`, `5 min`, `3.2 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
