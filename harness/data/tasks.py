"""What is learned: a task's name or files become rows of text and label, and a recipe is checked against them."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from harness.common import hub, scorers
from harness.common.errors import HarnessError, did_you_mean
from harness.common.metrics import ENTITIES, MANY_LABELS, QUESTIONS, SPANS, Metric, counts, is_regression
from harness.common.text import count_noun
from harness.config.recipe import Recipe, TaskFiles, TaskSpec
from harness.data import holdout, hub_data, label_notes, recognition, superglue
from harness.data.examples import SPLITS, Raw, Rows, sha256_of
from harness.data.glue import EMBEDDED, GLUE, OWN, Glue
from harness.data.text_columns import Columns, TextTable, short, table_of
from harness.data.text_files import find, read, reader


def load(spec: TaskSpec, blank: bool = False) -> Raw:
    """Read a task's splits: embedded, from files, or a task of GLUE or SuperGLUE from the hub or its cache.

    `blank` texts in files are refused unless they are asked for, to be looked at. Raises HarnessError for data that
    are missing or not clean, with the file and its line, counted from 1.
    """
    read_metric(spec)
    if spec.kind != "texts":
        raw: Raw = reader(spec.kind).load(spec)
        return raw
    if spec.name == EMBEDDED:
        return _load_embedded(spec)
    glue = GLUE.get(spec.name)
    tables: tuple[TextTable, ...]
    if spec.files is not None:
        tables = _read(spec, spec.files, glue, blank)
        if spec.validation is not None:
            tables = (*_held_out(tables[0], spec), *tables[1:])
    elif glue is not None and glue.kind != spec.kind:
        raise HarnessError(f"the task {spec.name} is one of task.kind: {glue.kind}", fix="Remove task.kind")
    elif glue is not None:
        tables = _fetch(spec, glue)
    else:
        raise HarnessError(
            f"unknown task '{spec.name}'{did_you_mean(_plain(spec.name), (*GLUE, EMBEDDED), cutoff=0.75)}",
            allowed=", ".join((*GLUE, EMBEDDED)),
            fix="For data of your own set task.files",
        )
    if spec.metric == QUESTIONS and tables[-1].groups is None:
        raise HarnessError(
            f"metric {QUESTIONS} requires questions that have several answers each",
            got=f"task.name: {spec.name}",
            allowed="multirc, with the columns of its own files",
            fix="Change task.metric",
        )
    names = (glue or OWN).names
    return raw_of_tables(spec.name, spec.metric or (glue or OWN).metric, names, *tables, looked_at=blank)


def _read(spec: TaskSpec, files: TaskFiles, glue: Glue | None, blank: bool) -> tuple[TextTable, ...]:
    """The files' texts and labels; what can't be read so, and looks like another kind of task, is told as that."""
    path = Path(files.train).expanduser()
    try:
        tables = []
        for path in find(spec, files).values():
            tables.append(read(path, spec, glue, blank))
        return tuple(tables)
    except HarnessError:
        alone = files.train == files.validation and Path(files.train).expanduser().is_file()
        if spec.text is None and spec.label is None and (other := recognition.hint(path, alone=alone)) is not None:
            raise other from None
        raise


def read_metric(spec: TaskSpec) -> None:
    """Read the function of a task's own metric, so that this process can score by it; raises HarnessError as `read`."""
    if spec.metric is not None and spec.metric_file is not None:
        scorers.read(spec.metric, spec.metric_file)


def _plain(name: str) -> str:
    """A name in lower case, without quotation marks around it."""
    return name.strip().strip("“”„‘’\"'").casefold()


def _held_out(table: TextTable, spec: TaskSpec) -> tuple[TextTable, TextTable]:
    """The training table without its dev split, and that."""
    assert spec.validation is not None
    pairs = table.pairs or [""] * len(table.texts)
    keys: list[tuple[str, ...]] = list(zip(table.texts, pairs, strict=True))
    if spec.name in superglue.GROUPED:
        keys = [(text,) for text in table.texts]
    regression = is_regression(spec.metric or GLUE.get(spec.name, OWN).metric)
    classes = None if regression else table.labels
    first, second = holdout.parted(range(len(keys)), keys, classes, spec.validation, spec.validation_seed)
    return _part(table, first), _part(table, second)


def _part(table: TextTable, places: list[int]) -> TextTable:
    def some(values: Sequence[Any]) -> list[Any]:
        return [values[row] for row in places]

    pairs = None if table.pairs is None else some(table.pairs)
    table = replace(table, groups=None if table.groups is None else some(table.groups))
    return replace(table, numbers=some(table.numbers), texts=some(table.texts), pairs=pairs, labels=some(table.labels))


def on_the_hub(spec: TaskSpec) -> bool:
    """Whether a task's data come from the hub or its cache."""
    return spec.files is None and spec.name in GLUE and spec.kind == GLUE[spec.name].kind


def check(spec: TaskSpec) -> None:
    """Raise HarnessError within seconds when a task's data can't be had; reads and fetches none of them."""
    if spec.name == EMBEDDED and spec.files is None and spec.kind in ("texts", "completion", "choice", "span"):
        return
    if spec.files is not None and spec.name != EMBEDDED:
        find(spec, spec.files)
    elif not on_the_hub(spec):
        load(spec)  # which says what is wrong with the name, before it reads anything
    elif not hub.cached("dataset", (repository := GLUE[spec.name].repository)) and not hub.reachable():
        raise hub.missing("dataset", f"{repository} {spec.name}")


def sizes(spec: TaskSpec, recipes: Iterable[Recipe] = ()) -> tuple[int, int] | None:
    """Count the training and validation examples without fetching anything; None where only the data could tell.

    Files are read whole, and raise what `load` raises. So do `recipes` that don't fit these data (`check_recipe`).
    """
    if spec.name == EMBEDDED or spec.files is not None:
        raw = load(spec)
        for recipe in recipes:
            check_recipe(recipe, raw.train.labels, raw.metric)
        return len(raw.train.texts), len(raw.validation.texts)
    if spec.name not in GLUE:
        return None
    glue = GLUE[spec.name]
    read_metric(spec)
    for recipe in recipes:
        if not recipe.oversample:  # whose updates hang on the labels
            check_recipe(recipe, np.zeros(glue.sizes[0]), spec.metric or glue.metric)
    return glue.sizes


def check_batch(batch_size: int, examples: int) -> None:
    """Raise HarnessError for a batch larger than the training set."""
    if batch_size > examples:
        raise HarnessError(
            f"batch_size must be at most the number of training examples, {examples}",
            got=batch_size,
            fix="Lower batch_size",
        )


def epoch_steps(labels: np.ndarray, recipe: Recipe) -> int:
    """Updates of an epoch over the training labels [N]; oversampled, every class is as large as the largest."""
    counts = np.unique(labels, return_counts=True)[1] if recipe.oversample else np.array([len(labels)])
    return math.ceil(int(counts.max()) * len(counts) * (1 + recipe.copies) / recipe.batch_size)


def due(recipe: Recipe, done: int, epoch: int, steps: int) -> bool:
    """Whether an evaluation follows after `done` of so many steps, of which an epoch has `epoch`."""
    step, every = done % epoch, recipe.eval_steps
    if step == 0 or done == steps or (every is not None and done % every == 0):
        return True
    part = recipe.eval_every  # of an epoch, as Lightning's val_check_interval
    return part is not None and step % max(1, int(part * epoch)) == 0


def without_classes(metric: Metric) -> str:
    """What kind of task has such a metric and no classes."""
    if metric in MANY_LABELS:
        return "a task with any number of labels a text"
    if metric in SPANS:
        return "a task of questions about contexts"
    return "a regression" if is_regression(metric) else "a token task"


def check_recipe(recipe: Recipe, labels: np.ndarray, metric: Metric) -> None:
    """Raise HarnessError for a recipe that does not fit these training labels [N].

    How many windows questions about contexts have is known only of their tokens: before, their labels tell nothing.
    """
    if recipe.task.kind == "span" and labels.ndim == 1:
        return
    check_batch(recipe.batch_size, len(labels))
    if metric == ENTITIES and recipe.augment != "none":
        raise HarnessError(
            "augment cannot be used with a token task: its words have labels, and the copies' words would have none",
            got=f"augment: {recipe.augment}",
            fix="Remove augment",
        )
    unfit = ("r_drop",) * (metric in MANY_LABELS)  # which compares how sure two passes are of one class
    for name in ("label_smoothing", "class_weights", "oversample", "mixup", *unfit):
        if not counts(metric) and metric != QUESTIONS and getattr(recipe, name):
            raise HarnessError(
                f"{name} requires a task with classes",
                got=f"{recipe.task.name}, {without_classes(metric)}",
                fix=f"Remove {name}",
            )
    whole = epoch_steps(labels, recipe) * recipe.epochs
    if recipe.max_steps is not None and recipe.max_steps > whole:
        raise HarnessError(
            f"max_steps must be at most {whole}, the steps of {count_noun(recipe.epochs, 'epoch')}",
            got=recipe.max_steps,
            fix="Raise epochs or lower max_steps",
        )


# ----------------------------------------------------------------------------------------------- from a table to a task


def raw_of_tables(
    name: str, metric: Metric, known: tuple[str, ...], *tables: TextTable, looked_at: bool = False
) -> Raw:
    """Number the labels and hash; `known` label names keep their order where the data are spelt with them.

    The tables are those of training, validation and, where there is one, test. Labels that look like ids are refused,
    unless the data are only looked at.
    """
    train = tables[0]
    for table in tables[1:]:
        if (train.pairs is None) != (table.pairs is None):
            single, paired = (train, table) if train.pairs is None else (table, train)
            raise HarnessError(
                f"{paired.source} has a second text and {single.source} has none",
                fix="Set task.text_pair, or give all splits the same columns",
            )
    names = None
    if is_regression(metric):
        labels = [_numbers(table, metric) for table in tables]
    else:
        if not looked_at:
            label_notes.refuse_id_labels(train.labels, train.source)
        names = _label_names(train, known)
        labels = [_indexes(table, names, split) for table, split in zip(tables, SPLITS, strict=False)]
    rows = [
        Rows(
            texts=tuple(table.texts),
            pairs=None if table.pairs is None else tuple(table.pairs),
            labels=values,
            source=table.source,
            unit=table.unit,
            numbers=table.numbers,
            groups=None if table.groups is None else np.unique(np.array(table.groups), return_counts=True)[1],
        )
        for table, values in zip(tables, labels, strict=True)
    ]
    return Raw(name, metric, names, rows[0], rows[1], sha256_of(rows), *rows[2:])


def _label_names(train: TextTable, known: tuple[str, ...]) -> tuple[str, ...]:
    labels = set(train.labels)
    if len(labels) == 1:
        raise HarnessError(
            f"{train.source}: the training data have a single label, '{train.labels[0]}'",
            fix="Check task.label, or give other data",
        )
    if labels <= set(known):
        return known
    if all(re.fullmatch(r"-?[0-9]+", label) for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def _indexes(table: TextTable, names: tuple[str, ...], split: str) -> np.ndarray:
    index = {name: number for number, name in enumerate(names)}
    for number, label in zip(table.numbers, table.labels, strict=True):
        if label not in index:
            shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
            raise HarnessError(
                f"{table.source}, {table.unit} {number}: the {split} label '{short(label)}' does not occur in the "
                "training data",
                allowed=shown,
                fix="Correct that row, or set task.metric=pearson if labels are numbers",
            )
    return np.array([index[label] for label in table.labels], dtype=np.int64)


def _numbers(table: TextTable, metric: Metric) -> np.ndarray:
    values = []
    for number, label in zip(table.numbers, table.labels, strict=True):
        try:
            value = float(label)
        except ValueError:
            value = math.nan
        if not abs(value) <= float(np.finfo(np.float32).max) or "_" in label:  # Python reads 1_0 as 10
            raise HarnessError(
                f"{table.source}, {table.unit} {number}: the label must be a finite number for the metric {metric}",
                got=f"'{short(label)}'",
                fix="Correct that row, or set task.metric=accuracy if labels are classes",
            )
        values.append(value)
    return np.array(values, dtype=np.float32)


# --------------------------------------------------------------------------------------------- shipped and from the hub


@lru_cache(maxsize=2)  # a plan asks for it several times
def _load_embedded(spec: TaskSpec) -> Raw:
    from harness.data.embedded import language

    if spec.files is not None:
        raise HarnessError(
            "task.files cannot be used with the task 'embedded', which is shipped with the harness",
            fix="Remove task.files, or give your data another task.name",
        )
    names = ("not_entailment", "entailment")
    tables = []
    for source, pairs in (("train", language.dataset("train")), ("validation", language.dataset("validation"))):
        tables.append(
            TextTable(
                source=f"embedded {source}",
                unit="row",
                numbers=range(1, len(pairs) + 1),
                texts=[pair.premise for pair in pairs],
                pairs=[pair.hypothesis for pair in pairs],
                labels=[names[pair.entailed] for pair in pairs],
            )
        )
    return raw_of_tables(EMBEDDED, spec.metric or "accuracy", names, *tables)


def _fetch(spec: TaskSpec, glue: Glue) -> tuple[TextTable, TextTable]:
    """A GLUE task's tables from the hub or its cache."""
    first, second = (
        _from_dataset(split, f"{glue.repository} {spec.name} {name}", spec, glue)
        for name, split in hub_data.fetch(spec.name, glue).items()
    )
    return first, second


def _from_dataset(split: Any, source: str, spec: TaskSpec, glue: Glue) -> TextTable:
    """A split of `datasets` as a table."""
    groups, names = None, tuple(split.column_names)
    values = {name: hub_data.spelt(split, name) for name in names if name != "idx"}
    rows: list[Mapping[str, object]] = [
        dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)
    ]
    if (reshape := superglue.reshaping(spec)) is not None:
        rows = [own for number, row in enumerate(rows, 1) for own in reshape(row, source, number)]
        names, groups = tuple(rows[0]), superglue.groups(spec, rows)
    columns = Columns.choose(names, spec, glue, source, by_index=False)
    wanted = [names[column] for column in columns.used]
    picked = ([*(row[name] for name in wanted[:-1]), str(row[wanted[-1]])] for row in rows)
    compact = Columns(0, None if columns.pair is None else 1, len(wanted) - 1)
    # Blank texts stay: GLUE has a few (QQP), and its data are not the reader's to mend.
    table = table_of(source, "row", enumerate(picked, 1), compact, wanted, blank=True)
    return replace(table, groups=groups)
