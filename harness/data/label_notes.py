"""What the labels of a task allow to be learned and shown: what is refused, and what a person is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from harness.common import squad
from harness.common.errors import HarnessError
from harness.common.metrics import ENTITIES, is_regression
from harness.common.text import count_noun
from harness.data.examples import NO_LABEL, Raw

# A column in which most values stand once is a key, not a class: with fewer than two examples a class there is nothing
# to learn it from and ask it for. Up to so many classes it may be a toy, or learning from single examples.
MOST_FEW = 20
# Where one class is so frequent, always answering it leaves less than a tenth of the accuracy to be gained.
FREQUENT = 0.9


def refuse_ids(raw: Raw) -> None:
    """Raise HarnessError as `refuse_id_labels`, of a task that was read."""
    if raw.label_names is not None and raw.metric != ENTITIES and raw.kind == "texts":
        refuse_id_labels([raw.label_names[label] for label in raw.train.labels.tolist()], raw.train.source)


def refuse_id_labels(labels: Sequence[str], source: str) -> None:
    """Raise HarnessError for training labels that are as good as all different: ids, not classes."""
    classes = len(set(labels))
    if classes > MOST_FEW and len(labels) < 2 * classes:
        once = sum(count == 1 for count in Counter(labels).values())
        counts = f"{classes:,} classes for {count_noun(len(labels), 'example')}, {once:,} of them seen once"
        raise HarnessError(
            f"{source}: the labels look like ids: {counts}",
            fix="Name the column of the labels with task.label, or set task.metric=pearson if labels are numbers",
        )


def refuse_single(raw: Raw) -> None:
    """Raise HarnessError for a dev split whose labels are all the same: no score of it can tell runs apart.

    Of a regression the training labels are looked at too; of entities, whether there are any.
    """
    if raw.kind == "completion":  # scored against the untouched model
        return
    if raw.kind == "span":
        _refuse_constant(raw)
        return
    if raw.kind == "labels":
        for split, rows in (("training", raw.train), ("dev", raw.validation)):
            if not (rows.labels != rows.labels[:1]).any():
                raise HarnessError(
                    f"{rows.source}: all texts of the {split} split have the same labels, so always giving these is "
                    "right everywhere and every run would count as failed",
                    fix="Check task.label, or split again (off the training file: --set task.validation=0.1)",
                )
        return
    for split, rows in (("training", raw.train), ("dev", raw.validation)):
        labels = np.unique(rows.labels[rows.labels != NO_LABEL])
        if len(labels) > 1 or (split == "training" and not is_regression(raw.metric)):
            continue
        name = f"{labels[0]:g}" if raw.label_names is None else raw.label_names[labels[0]]
        examples = f"all {len(rows.texts):,} examples" if len(rows.texts) > 1 else "its only example"
        problem, consequence = "labels are all", "always answering it is right everywhere"
        if raw.metric == ENTITIES:
            problem, consequence = "split has no entities:", "none can be found"
        elif is_regression(raw.metric):
            consequence = "no answer correlates with them"
        raise HarnessError(
            f"{rows.source}: the {split} {problem} '{name}' for {examples}, so {consequence} and every run would "
            "count as failed",
            fix="Check task.label, or split again (off the training file: --set task.validation=0.1)",
        )


def _refuse_constant(raw: Raw) -> None:
    """Raise HarnessError for dev questions to which one answer, or none, is always right."""
    answer, scores = squad.constant("squad_exact", raw.validation.expected)
    if scores.all():
        told = f"answering '{answer}'" if answer else "giving no answer"
        raise HarnessError(
            f"{raw.validation.source}: always {told} is right for all dev questions: every run would count as failed",
            fix="Check task.label, or split again (off the training file: --set task.validation=0.1)",
        )


def _shared_contexts(raw: Raw) -> tuple[str, ...]:
    """A sentence about dev questions whose context is one of training: a leak that their texts don't show."""
    known = set(raw.train.pairs or ())
    shared = sum(context in known for context in raw.validation.pairs or ())
    if not shared:
        return ()
    return (f"{shared:,} of {len(raw.validation.texts):,} dev questions are about a context of the training split.",)


def of(raw: Raw) -> tuple[str, ...]:
    """Sentences about a task's classes that a person should read before training; none of a regression or of words.

    Of questions, how many of dev are about contexts of training; of many labels a text, whether some are several.
    """
    if raw.kind == "span":
        return _shared_contexts(raw)
    if raw.kind == "labels":
        return _joined(raw)
    if raw.label_names is None or raw.metric == ENTITIES or raw.kind not in ("texts", "choice"):
        return ()
    train, dev = (
        dict(zip(raw.label_names, np.bincount(rows.labels, minlength=len(raw.label_names)).tolist(), strict=True))
        for rows in (raw.train, raw.validation)
    )
    top = max(dev, key=lambda name: dev[name])
    rare = _rare(train) if raw.kind == "texts" else ()
    return (
        *rare,
        *unbalanced(raw.metric, dev[top], len(raw.validation.labels), f"'{top}'", classes=raw.kind == "texts"),
    )


def _joined(raw: Raw) -> tuple[str, ...]:
    """A sentence about labels that look like several names in one, where no text of training has two labels."""
    joined = [name for name in raw.label_names or () if "," in name or ";" in name]
    if not joined or (raw.train.labels.sum(axis=1) > 1).any():
        return ()
    return (
        f"No training text has two labels, and {len(joined)} of {len(raw.label_names or ())} labels have a comma or "
        f"semicolon ('{joined[0]}'): several names stand in a JSON list, or with | between them.",
    )


def _rare(train: Mapping[str, int]) -> tuple[str, ...]:
    """A sentence about classes that have a single training example."""
    once = [name for name, count in train.items() if count == 1]
    if not once:
        return ()
    shown = ", ".join(f"'{name}'" for name in once[:3]) + (", …" if len(once) > 3 else "")
    return (f"Classes with a single training example: {len(once)} of {len(train)} ({shown}).",)


def unbalanced(
    metric: str, correct: int, examples: int, top: str = "one class", *, classes: bool = True
) -> tuple[str, ...]:
    """A sentence about accuracy on a dev split where so many of the examples are of the class `top`, if they are most.

    It says what accuracy can't show there, and which metrics can; without `classes`, where labels are positions, none.
    """
    if metric not in ("accuracy", "f1_micro") or correct < FREQUENT * examples:
        return ()
    if correct == examples:
        return (f"All {examples:,} dev examples are of one class: every run counts as failed, whatever it learned.",)
    rest, most = examples - correct, f"{correct:,} of {examples:,}"
    return (
        f"{most} dev examples are of {top}: always answering that scores {correct / examples:.3f}, so "
        f"that {metric.replace('_', ' ')} hardly shows whether the other {rest:,} {'is' if rest == 1 else 'are'} told "
        "apart." + " f1_macro and matthews_correlation show it: set task.metric to one of them." * classes,
    )
