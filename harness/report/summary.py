"""What `harness report --json` prints."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from harness.analysis.analyze import Analysis
from harness.report import opening
from harness.report.contents import TABLES
from harness.report.files import json_rows, json_value

_OF_CELLS = (
    "planned", "finished", "crashed", "missing", "failed", "failed_low", "failed_high", "mean", "sd", "min", "median",
    "max", "judged", "scored", "near_chance", "best_mean", "loss", "majority",
)  # fmt: skip
_OF_TESTED = ("tested", "test_mean", "test_sd")


def summary(analysis: Analysis) -> dict[str, object]:
    """The contract of `harness report --json`: scores as fractions, 95 % Wilson bounds, None where not known.

    `majority` is None before any run is finished, and where the cells differ in it (several tasks). `tables` has every
    table of the analysis, a list of rows each.
    """
    study = analysis.study
    keys = [*_OF_CELLS, *(key for key in _OF_TESTED if key in analysis.cells)]
    rows = [
        {"axes": dict(study.cells[row["cell"]].axes)}
        | {key: json_value(row[key]) for key in keys}
        | {"unreadable": int(row.get("unreadable", 0))}
        for row in analysis.cells.to_dict("records")
    ]
    own = {spec.name: spec.data(analysis) for spec in TABLES if spec.data is not None}
    tables = {name: json_rows(table) for name, table in (analysis.tables | own).items()}
    return {
        "sweep": study.sweeps[0].name if len(study.sweeps) == 1 else study.name,
        "profile": study.profile,
        "title": study.title,
        "stand_in": study.stand_in,
        "majority": _single(pd.to_numeric(study.runs["majority_score"]).dropna()),
        "answer": opening.answer(analysis),
        "cells": rows,
        "unreadable": [
            *({"trial": file.trial, "file": file.file, "problem": file.reason} for file in study.set_aside.files),
            *({"trial": None, "file": name, "problem": "it can't be read"} for name in study.set_aside.beside),
        ],
        "tables": tables,
        **({"baselines": tables["baselines"]} if any(sweep.baselines for sweep in study.sweeps) else {}),
    }


def _single(values: Iterable[float]) -> float | None:
    distinct = set(values)
    return float(distinct.pop()) if len(distinct) == 1 else None
