"""What the page says before any result: a tokenizer that does not fit, bits that do not carry over, rare classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import get_args

import pandas as pd

from harness.analysis import score_scale, seed_use, stopping
from harness.analysis.analyze import MOST_RESAMPLED
from harness.analysis.cells import object_columns
from harness.analysis.failures import all_runs
from harness.common.metrics import REGRESSION, BuiltIn, words
from harness.config.recipe import Recipe
from harness.data import label_notes, vocabulary
from harness.records.study import Study
from harness.report.claims import Sentence, Words, as_is, counting, row_at

_MOST_NAMED = 5  # files that a note names


def notes(study: Study) -> tuple[str, ...]:
    """The notes that the study brings and those that its runs call for."""
    of_runs = (
        *_balance(study),
        *_thresholds(study),
        *_not_resampled(study),
        *_unknown_tokens(study),
        *_last_bits(study),
    )
    scales = (*score_scale.mixed_scales(study), *score_scale.other_scales(study), *score_scale.edited_thresholds(study))
    of_scripts = (*seed_use.ignored_seeds(study), *scales)
    return (*set_aside(study), *study.notes, *of_scripts, *of_runs)


def files_set_aside(study: Study) -> pd.DataFrame:
    """The files of the study that can't be used: `kind` (`record` or `array file`), `file`, `reason`."""
    files = study.set_aside.files
    rows = [("record" if file.file.endswith(".json") else "array file", file.file, file.reason) for file in files]
    return pd.DataFrame(rows, columns=["kind", "file", "reason"])


def set_aside(study: Study) -> Iterator[str]:
    """The files of the study that can't be used, the first of them by name, and what that means for the page."""
    table = files_set_aside(study)
    for kind, meaning in (
        ("record", "Their runs count as unreadable, neither crashed nor missing."),
        ("array file", "Their runs count with the scores of their records, without curves and answers."),
    ):
        unused, words = table[table["kind"] == kind], Words("files_set_aside")
        if len(unused):
            first = unused.head(_MOST_NAMED)
            named = "; ".join(f"{file}: {reason}" for file, reason in zip(first["file"], first["reason"], strict=True))
            more = f"; and {len(unused) - _MOST_NAMED} more" if len(unused) > _MOST_NAMED else ""
            files = words.count(len(unused), f"kind == {kind!r}", counting(kind))
            yield words.sentence(f"Warning: {files} can't be used ({named}{more}). {meaning}")


def _recipes(study: Study) -> Iterator[Recipe]:
    """Those of the study's sweeps that the engine trained; scripts and imported runs have none."""
    return (cell.recipe for sweep in study.sweeps for cell in sweep.cells if cell.script is None)


def majorities(study: Study) -> pd.DataFrame:
    """How many dev examples there are and how many are of the most frequent class, a row a metric and a dev split.

    Columns: `metric`, `majority_correct`, `dev_examples`, `share` (of the class), `others` (examples of other classes).
    """
    table = study.runs[["metric", "majority_correct", "dev_examples"]].dropna().drop_duplicates(ignore_index=True)
    table = table.astype({"majority_correct": int, "dev_examples": int})
    others = table["dev_examples"] - table["majority_correct"]
    return table.assign(share=table["majority_correct"] / table["dev_examples"], others=others)


def _balance(study: Study) -> Iterator[str]:
    """What accuracy can't show, where one class is nearly all of a dev split."""
    kinds = {recipe.task.kind for recipe in _recipes(study)}
    for row in majorities(study).to_dict("records"):
        examples = row["majority_correct"], row["dev_examples"]
        for text in label_notes.unbalanced(row["metric"], *examples, classes=kinds != {"choice"}):
            words, key = Words("majorities"), ["metric", "majority_correct", "dev_examples"]
            words.value(row, key, "dev_examples", "{:,}".format)
            if row["others"]:
                for name, form in (("majority_correct", "{:,}"), ("others", "{:,}"), ("share", "{:.3f}")):
                    words.value(row, key, name, form.format)
            yield words.sentence(text)


def _thresholds(study: Study) -> Iterator[str]:
    """That thresholds of labels were chosen on the dev split that scores are of."""
    if any(recipe.task.threshold == "dev" for recipe in _recipes(study)):
        test = " Test scores, by the same thresholds, are not." if study.runs["test_score"].notna().any() else ""
        yield (
            "The probability above which a label is given was chosen for each run on the dev split (`label_threshold` "
            f"in its record): dev scores are optimistic, as the threshold was fitted to the same examples.{test}"
        )


def _not_resampled(study: Study) -> Iterator[str]:
    """What the page leaves out of very many cells whose answers are kept."""
    if len(study.cells) > MOST_RESAMPLED and study.sweeps:
        words = Words("cells")
        cells = words.count(len(study.cells), "", "{:,}".format)
        yield words.sentence(
            "Dev-set sampling noise and selection bias are estimated by resampling the answers of only the first "
            f"{MOST_RESAMPLED} of {cells} cells."
        )


def _unknown_tokens(study: Study) -> Iterator[str]:
    """A warning where more than a few tokens of the runs' data are unknown to the tokenizer."""
    share = pd.to_numeric(study.runs["unknown_share"]).max()
    models = dict.fromkeys(recipe.model.name for recipe in _recipes(study))
    if share > vocabulary.WARN_ABOVE:  # NaN is not
        words = Words("runs")
        words.summary("max", share, "unknown_share", "unknown_share > 0", vocabulary.percent)
        model = next(iter(models)) if len(models) == 1 else "one of the models"
        yield words.sentence(f"Warning: {vocabulary.words(share, model)}")


def _last_bits(study: Study) -> Iterator[str]:
    """Of runs without bias correction, how far a single one can be trusted to come out alike elsewhere."""
    corrected = [recipe.bias_correction for recipe in _recipes(study) if recipe.optimizer in ("adamw", "lamb")]
    if not all(corrected):
        yield (
            "Without bias correction a single result depends on the last bits: at learning rates where runs fail, "
            "rounding errors grow tenfold within 20 updates, so such a run may end differently on another kind of "
            "machine. Failure rates carry over; single scores do not."
        )


def completeness(study: Study) -> Sentence:
    """How many runs were planned, and what became of them."""
    words, row = Words("all_runs"), row_at(all_runs(study), 0)
    names = ("finished", "crashed", "missing", *(("unreadable",) if study.unreadable else ()))
    states = ", ".join(f"{words.value(row, [], name, str)} {name}" for name in names)
    cells = words.count(len(study.cells), "", counting("cell"), "cells")
    if len(study.sweeps) == 1:
        words.summary("min", min(study.sweeps[0].due), "planned", table="cells")
        words.summary("max", max(study.sweeps[0].due), "planned", table="cells")
        size = f"{study.sweeps[0].size} = {words.value(row, [], 'planned', str)}"
    else:
        size = f"{cells}, {words.value(row, [], 'planned', counting('run'))}"
    text = f"Planned: {size}; {states}."
    if row["finished"] < row["planned"]:
        unread = ", unreadable" if study.unreadable else ""
        text += f" Rates are over finished runs; crashed{unread} and missing runs are missing data and never count as "
        text += "failed."
    return words.sentence(" ".join([text, *_seeds_by_rule(study, words)]))


def seed_rule(study: Study) -> pd.DataFrame:
    """How far seeds that are added by rule have come, in one row; none of fixed seeds.

    Columns: `looks`, `runs` planned, `waiting` (not ended), `at_most` (seeds a cell), `fixed` (runs, were all cells to
    have these), `most` (seeds of the cell with most), `level` (runs, were all cells to have as many), `lacking` (cells
    to be known better), `full` and `crashing` ones of them.
    """
    standing = stopping.of_study(study)
    if standing is None:
        return pd.DataFrame()
    sweep, decision = standing.sweep, standing.decision
    assert sweep.rule is not None
    lacking = decision.lacking if decision else ()
    crashed = study.runs.groupby("cell")["status"].agg(lambda states: bool((states == "crashed").all()))
    crashing = sum(bool(crashed[index]) for index in lacking)
    row = {"looks": standing.looks, "runs": sum(sweep.due), "waiting": standing.waiting, "at_most": sweep.rule.at_most}
    row |= {"fixed": len(study.cells) * sweep.rule.at_most, "most": max(sweep.due), "lacking": len(lacking)}
    row |= {"level": len(study.cells) * max(sweep.due), "full": len(lacking) - crashing, "crashing": crashing}
    return pd.DataFrame([row])


def seed_goals(study: Study) -> pd.DataFrame:
    """The comparisons that the last decision on seeds tells of: `axis`, `value`, `reference`, `pairs`, `difference`.

    The difference has `_low` and `_high`, as the decision saw them, and `words`.
    """
    standing = stopping.of_study(study)
    told = standing.decision.comparisons if standing and standing.decision else ()
    rows = [
        (one.axis, one.value, one.reference, one.pairs, *dataclasses.astuple(one.contrast.difference), one.size)
        for one in told
    ]
    columns = ["axis", "value", "reference", "pairs", "difference", "difference_low", "difference_high", "words"]
    table = pd.DataFrame(rows, columns=columns)
    return object_columns(table, [dict(zip(columns, row, strict=True)) for row in rows], "value", "reference")


def _seeds_by_rule(study: Study, words: Words) -> Iterator[str]:
    """How seeds were added, why no more are, and what fixed ones would have cost; of a sweep with a rule."""
    standing = stopping.of_study(study)
    if standing is None:
        return
    rule, row = study.sweeps[0].rule, row_at(seed_rule(study), 0)
    assert rule is not None
    yield f"Seeds are added by rule ({rule.words})."
    text = stopping.words(standing)
    for name in ("looks", "runs", "waiting", "lacking", "full", "crashing"):
        words.value(row, [], name, str, "seed_rule")
    if standing.decision is not None and standing.decision.why in text:
        for comparison in seed_goals(study).to_dict("records"):
            if comparison["pairs"]:
                key, size = ["axis", "value", "reference"], str(comparison["words"])
                words.value(comparison, key, "difference", as_is(size), "seed_goals")
                words.value(comparison, key, "pairs", counting("pair"), "seed_goals")
    words.claims[:] = [claim for claim in words.claims if claim.table != "seed_rule" or claim.words in text]
    yield text
    yield (
        "Failure rates and their differences have confidence sequences, which hold at every look; a difference is over "
        "pairs of runs with the same seed and the same other settings."
    )
    if standing.waiting:
        return
    at_most, cost = (words.value(row, [], name, "{:,}".format, "seed_rule") for name in ("at_most", "fixed"))
    fixed = f"The same {at_most} seeds in every cell would have cost {cost} runs"
    if min(standing.sweep.due) < row["most"] < rule.at_most:
        most, level = (words.value(row, [], name, "{:,}".format, "seed_rule") for name in ("most", "level"))
        fixed += f", and as many as the cell that got most ({most}) {level}"
    yield f"{fixed}."


def about_scores(study: Study) -> str:
    """What the scores of the page are."""
    metrics = sorted({str(name) for name in study.runs["metric"].dropna()}) or ["score"]
    named = " / ".join(map(words, metrics))
    if not study.sweeps:
        return f"Scores are the column {named}; {'higher' if study.higher_is_better else 'lower'} is better."
    tested = " Test scores come from the same weights, on examples that were never used for selection."
    better = f"{'higher' if study.higher_is_better else 'lower'} is better"
    if any(sweep.is_script for sweep in study.sweeps):
        unit = f"as the script gives them; {better}"
    elif not set(metrics) <= set(get_args(BuiltIn)) - set(REGRESSION):
        unit = better
    else:
        unit = "as fractions" if study.higher_is_better else f"over all tokens of the answers; {better}"
    return (
        f"Scores are dev {named} at the end of training, {unit}; only “best mean” uses each run's best "
        f"evaluation.{tested if study.runs['test_score'].notna().any() else ''}"
    )
