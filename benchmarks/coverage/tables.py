"""The coverage table for people: a table a family, methods down, scenarios and n across."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.coverage.registry import Row, family

HEAD = """# Coverage of the report's intervals

How often a nominal 95 % interval holds the truth, simulated (`make coverage`; 2,000 repetitions a number unless a table
says otherwise, so a coverage of .95 has a standard error of .005). **Bold** rows are what the report uses; the others
are there to compare. Widths, and every number with more digits, stand in `coverage.csv`.
"""


def text_of(rows: Sequence[Row]) -> str:
    """All tables as Markdown."""
    return "\n".join([HEAD, *(_table(name, rows) for name in dict.fromkeys(row.family for row in rows))])


def _table(name: str, rows: Sequence[Row]) -> str:
    module, own = family(name), [row for row in rows if row.family == name]
    columns = list(dict.fromkeys((row.scenario, row.n) for row in own))
    numbers = {(row.quantity, row.method, row.measure, row.scenario, row.n): row.value for row in own}
    lines = [f"## {module.TITLE}", "", module.NOTE.strip(), ""]
    lines += ["| quantity | method | " + " | ".join(f"{scenario}, n = {n}" for scenario, n in columns) + " |"]
    lines += ["|---|---|" + "--:|" * len(columns)]
    for row in {(row.quantity, row.method, row.measure): row for row in own}.values():
        values = [numbers.get((row.quantity, row.method, row.measure, *column), math.nan) for column in columns]
        method = f"**{row.method}**" if row.reported else row.method
        quantity = row.quantity if row.measure == "coverage" else f"{row.quantity}: {row.measure}"
        lines.append(f"| {quantity} | {method} | " + " | ".join(map(_number, values)) + " |")
    return "\n".join([*lines, ""])


def _number(value: float) -> str:
    """A share with three decimals as `.952`; what is larger (a seed count) with three digits."""
    if math.isnan(value):
        return ""
    return f"{value:.3f}".removeprefix("0") if abs(value) <= 1 else f"{value:.3g}"
