"""Files of texts that have any number of labels each: a list in JSON, or names with | between them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from harness.common.errors import HarnessError
from harness.common.metrics import Metric
from harness.common.text import count_noun
from harness.config.recipe import TaskSpec
from harness.data import holdout, text_files
from harness.data.examples import SPLITS, Raw, Rows, sha256_of
from harness.data.glue import EMBEDDED
from harness.data.text_columns import no_rows, refuse, short, unit_of
from harness.data.text_files import Line, find

SUFFIXES = text_files.SUFFIXES
BETWEEN = "|"


def load(spec: TaskSpec) -> Raw:
    """The splits of a task's files; raises HarnessError for a row without a text or with labels that are no names."""
    if spec.files is None or spec.name == EMBEDDED:
        raise HarnessError(
            "task.kind: labels requires task.files with texts and their labels",
            got=f"task.name: {spec.name}",
            fix="Set task.files and a name of your own, or task.kind: texts",
        )
    tables = [(str(path), examples(path, spec)) for path in find(spec, spec.files).values()]
    if spec.validation is not None:
        source, rows = tables[0]
        keys = [(line.text, line.pair or "") for line, _ in rows]
        parts = holdout.parted(rows, keys, None, spec.validation, spec.validation_seed)
        tables[:1] = [(source, part) for part in parts]
    names = tuple(sorted({name for _, labels in tables[0][1] for name in labels}))
    if len(names) < 2:
        raise HarnessError(
            f"{tables[0][0]}: the training data have {count_noun(len(names), 'label') if names else 'no label'}, "
            "task.kind: labels requires two",
            fix="Check task.label, or set task.kind: texts",
        )
    rows_of = [_rows(source, rows, names, split) for (source, rows), split in zip(tables, SPLITS, strict=False)]
    metric: Metric = spec.metric or "f1_labels"
    threshold = None if spec.threshold == "dev" else spec.threshold
    return Raw(
        spec.name, metric, names, rows_of[0], rows_of[1], sha256_of(rows_of), *rows_of[2:], kind="labels",
        threshold=threshold,
    )  # fmt: skip


def examples(path: Path, spec: TaskSpec) -> list[tuple[Line, tuple[str, ...]]]:
    """The rows of a file, each with the names of its labels; raises HarnessError for what is none."""
    source = str(path)
    rows = list(text_files.stream(path, spec, spec.text_pair is not None, label=True, predicts=False))
    if not rows:
        raise no_rows(source)
    for line in rows:
        if not line.text.strip():
            refuse("no text", source, line.number, fix="Correct or remove that row")
    return [(line, labels_of(line, source)) for line in rows]


def labels_of(line: Line, source: str) -> tuple[str, ...]:
    """The names in a row's column of labels: a JSON list of texts, or texts with | between them."""
    text = line.label or ""
    names: object = [name.strip() for name in text.split(BETWEEN) if name.strip()]
    if text.startswith("["):
        try:
            names = json.loads(text)
        except (ValueError, RecursionError):
            names = None
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        refuse("labels that are no names", source, line.number, got=f"'{short(text)}'", allowed='["a", "b"], or a|b')
    if len(set(names)) < len(names):
        refuse(f"a label stands twice: '{short(text)}'", source, line.number, fix="Remove one")
    return tuple(names)


def _rows(source: str, rows: list[tuple[Line, tuple[str, ...]]], names: tuple[str, ...], split: str) -> Rows:
    index = {name: place for place, name in enumerate(names)}
    labels = np.zeros((len(rows), len(names)), dtype=np.int64)
    for row, (line, given) in zip(labels, rows, strict=True):
        for name in given:
            if name not in index:
                refuse(
                    f"the {split} label '{short(name)}' does not occur in the training data", source, line.number,
                    allowed=", ".join(names[:10]) + (", …" if len(names) > 10 else ""),
                    fix="Correct that row, or add such examples to the training data",
                )  # fmt: skip
            row[index[name]] = 1
    return Rows(
        texts=tuple(line.text for line, _ in rows),
        pairs=None if rows[0][0].pair is None else tuple(line.pair or "" for line, _ in rows),
        labels=labels,
        source=source,
        unit=unit_of(source),
        numbers=[line.number for line, _ in rows],
    )
