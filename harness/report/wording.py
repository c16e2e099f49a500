"""Parts of sentences that several questions of the report share."""

from __future__ import annotations

import pandas as pd

from harness.analysis.analyze import Analysis
from harness.analysis.comparisons import main_axis
from harness.common.text import count_noun
from harness.records.study import SOURCE


def capitalized(text: str) -> str:
    """A sentence with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def p_clause(value: float) -> str:
    """`p = 0.04`, `p < 0.0001`."""
    return "p < 0.0001" if value < 1e-4 else f"p = {value:.2g}"


def run_count(n: int, kind: str = "") -> str:
    """`1 run`, `3 finished runs`; `kind` ends with a space."""
    return count_noun(n, f"{kind}run")


def pair_count(n: int) -> str:
    """`3 pairs of cells`."""
    return f"{count_noun(n, 'pair')} of cells"


def spaced(name: str) -> str:
    """The name of a setting in words: `weight decay`."""
    return name.replace("_", " ")


def main_axis_name(analysis: Analysis) -> str:
    """The axis that pairs of cells differ in, in words; empty without axes."""
    axis = main_axis(analysis.study)
    return "" if axis is None else "the study" if axis == SOURCE else spaced(axis)


def main_arms(analysis: Analysis) -> pd.DataFrame:
    """The two rows of `arms` that the opening compares; empty where no axis has two values."""
    pooled = analysis.arms
    two = [axis for axis in dict.fromkeys(pooled["axis"]) if (pooled["axis"] == axis).sum() == 2]
    return pooled[pooled["axis"] == two[0]] if two else pooled[:0]


def second_arm(arm: pd.Series) -> str:
    """The second arm of a comparison: `with it` after `without bias correction`."""
    if arm["axis"] == "bias_correction":
        return "with it" if arm["value"] else "without it"
    return str(arm["phrase"])
