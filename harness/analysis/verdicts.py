"""Which runs finished, failed, or were hardly trained: the verdict on each run."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from harness.common import metrics
from harness.common.memo import once_per_object
from harness.records.study import Study, numbers

LEVEL = 0.05  # one-sided, for "not above the majority"
NEAR_ENTROPY = 0.95  # a training loss of this share of the labels' entropy has learned next to nothing


def finished_runs(table: pd.DataFrame) -> pd.Series:
    """Runs that came to their end, as a mask [runs]."""
    return table["status"] == "finished"


def judged_runs(table: pd.DataFrame) -> pd.Series:
    """Finished runs whose outcome is known: all of a sweep's, those of an import that came with a majority."""
    return finished_runs(table) & table["outcome"].notna()


def failed_runs(table: pd.DataFrame) -> pd.Series:
    """Finished runs that failed, as a mask [runs]."""
    return finished_runs(table) & (table["outcome"] == "failed")


def near_chance(table: pd.DataFrame) -> pd.Series:
    """Which finished runs are above the majority by count, yet not told from it: not trained, though not failed.

    True where the right answers are not above the majority's share at 5 % (one-sided exact binomial test; of a
    regression: the correlation not above 0, t-test) and the mean training loss of the last epoch is at least 0.95 of
    the labels' entropy (of a regression: of their variance). False for failed runs, and where either is not known. Of
    a token task, where a text has any number of labels, and of answers in a context the loss alone tells: the decisions
    on one text are no independent examples, and a fresh head finds some entity or word by luck. There a run that is
    more than half of the way from what it has to beat to 1 is not near chance, whatever its loss.
    """
    by_loss = [metrics.ENTITIES, metrics.QUESTIONS, *metrics.MANY_LABELS, *metrics.SPANS]
    halfway = (numbers(table, "majority_score") + 1) / 2
    untold = (above_majority_p(table) > LEVEL) | (
        table["metric"].isin(by_loss) & ~(numbers(table, "final_score") > halfway)
    )
    return finished_runs(table) & (table["outcome"] == "ok") & untold & flat_losses(table)


def above_majority_p(table: pd.DataFrame) -> pd.Series:
    """The p value of so many right answers or more, were the run no better than the majority; NaN where not known."""
    right, examples = numbers(table, "correct"), numbers(table, "dev_examples")
    share = numbers(table, "majority_correct") / examples
    by_count = pd.Series(stats.binom.sf(right - 1, examples, share), index=table.index)
    correlated = table["label_variance"].notna() & table["metric"].isin(metrics.REGRESSION)
    r, free = numbers(table, "final_score").where(correlated), examples - 2
    with np.errstate(divide="ignore"):  # a correlation of 1
        return by_count.fillna(pd.Series(stats.t.sf(r * np.sqrt(free / (1 - r**2)), free), index=table.index))


def of_scripts(study: Study) -> bool:
    """Whether all runs of a study are of other training code, a script's or imported: its recipe is not known."""
    return all(sweep.is_script for sweep in study.sweeps)


def of_positions(study: Study) -> bool:
    """Whether labels are positions among choices, which are no classes, in all cells of a study."""
    cells = [cell for sweep in study.sweeps for cell in sweep.cells]
    return bool(cells) and all(cell.script is None and cell.recipe.task.kind == "choice" for cell in cells)


def level_to_beat(study: Study) -> str:
    """What the score is of that a run failed at or below: `majority class`, or of language models `untouched model`.

    Of multiple choice it is the `most frequent position`, of a regression the `mean label`. Where texts have any number
    of labels it is `best set of labels`, given to all alike, of answers in a context `commonest answer or none`, and of
    tagged words the `tag O`, which need not be the most frequent one.
    """
    table = study.runs
    if of_positions(study):
        return "most frequent position"
    if table["metric"].isin(metrics.MANY_LABELS).any():
        return "best set of labels"
    if table["metric"].isin(metrics.SPANS).any():
        return "commonest answer or none"
    if (table["metric"] == metrics.ENTITIES).any():
        return "tag O"
    told = table["untouched_score"].notna() if "untouched_score" in table else pd.Series(dtype=bool)
    if told.any():
        return "untouched model"
    known = "label_variance" in table and table["label_variance"].notna().any()
    return "mean label" if known else "majority class"


def untrained_loss_name(study: Study) -> str:
    """What the training loss stays at of a run that learned nothing but how frequent the answers are.

    `label entropy`, of a regression `label variance`; of multiple choice `entropy of the right position`, of language
    models whose examples have the same choices `entropy of the answers`, of answers in a context `entropy of a guessed
    place`: none as often as in training, and else any of the context.
    """
    if "label_variance" in study.runs and study.runs["label_variance"].notna().any():
        return "label variance"
    names = {
        "most frequent position": "entropy of the right position",
        "untouched model": "entropy of the answers",
        "commonest answer or none": "entropy of a guessed place",
    }
    return names.get(level_to_beat(study), "label entropy")


def untrained_loss(table: pd.DataFrame) -> pd.Series:
    """The training loss of what knows the labels' frequencies and no more: their entropy, or their variance."""
    return numbers(table, "label_entropy").fillna(numbers(table, "label_variance"))


def flat_losses(table: pd.DataFrame) -> pd.Series:
    """Runs whose training loss stayed near that of an untrained classifier, as a mask [runs]."""
    return numbers(table, "final_train_loss") >= NEAR_ENTROPY * untrained_loss(table)


@once_per_object
def runs(study: Study) -> pd.DataFrame:
    """`study.runs` with the column `verdict` added."""
    table = study.runs.copy()
    table["verdict"] = verdicts(table)
    return table


def verdicts(table: pd.DataFrame) -> pd.Series:
    """The verdict on each run of a table with the columns of `Study.runs`.

    `ok`, `failed`, `diverged` (failed, without a score), `near chance`, `unjudged` (finished, but whether it failed is
    not known) or, for a run that is not finished, an empty text.
    """
    verdict = pd.Series("", index=table.index, dtype=object)
    done = finished_runs(table)
    verdict[done] = "unjudged"
    verdict[done & (table["outcome"] == "ok")] = "ok"
    verdict[near_chance(table)] = "near chance"
    verdict[failed_runs(table)] = "failed"
    verdict[done & table["final_score"].isna()] = "diverged"
    return verdict
