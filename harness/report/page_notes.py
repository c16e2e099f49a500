"""What the page says before any result: a tokenizer that does not fit, bits that do not carry over, rare classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pandas as pd

from harness.analysis import score_scale, seed_use, stopping
from harness.analysis.analyze import MOST_RESAMPLED
from harness.common.metrics import BuiltIn, words
from harness.common.text import count_noun
from harness.config.recipe import Recipe
from harness.data import label_notes, vocabulary
from harness.records.study import Study

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
    scales = (*score_scale.other_scales(study), *score_scale.edited_thresholds(study))
    of_scripts = (*seed_use.ignored_seeds(study), *scales)
    return (*set_aside(study), *study.notes, *of_scripts, *of_runs)


def set_aside(study: Study) -> Iterator[str]:
    """The files of the study that can't be used, the first of them by name, and what that means for the page."""
    files = study.set_aside.files
    records = [file for file in files if file.file.endswith(".json")]
    arrays = [file for file in files if not file.file.endswith(".json")]
    for kind, unused, meaning in (
        ("record", records, "Their runs count as unreadable, neither crashed nor missing."),
        ("array file", arrays, "Their runs count with the scores of their records, without curves and answers."),
    ):
        if unused:
            named = "; ".join(f"{file.file}: {file.reason}" for file in unused[:_MOST_NAMED])
            more = f"; and {len(unused) - _MOST_NAMED} more" if len(unused) > _MOST_NAMED else ""
            yield f"Warning: {count_noun(len(unused), kind)} can't be used ({named}{more}). {meaning}"


def _recipes(study: Study) -> Iterator[Recipe]:
    """Those of the study's sweeps that the engine trained; scripts and imported runs have none."""
    return (cell.recipe for sweep in study.sweeps for cell in sweep.cells if cell.script is None)


def _balance(study: Study) -> Iterator[str]:
    """What accuracy can't show, where one class is nearly all of a dev split."""
    counted = study.runs[["metric", "majority_correct", "dev_examples"]].dropna().drop_duplicates()
    for metric, most, examples in counted.itertuples(index=False):
        yield from label_notes.unbalanced(metric, int(most), int(examples))


def _thresholds(study: Study) -> Iterator[str]:
    """That thresholds of labels were chosen on the dev split that scores are of."""
    if any(recipe.task.threshold == "dev" for recipe in _recipes(study)):
        chosen = pd.to_numeric(study.runs["label_threshold"]).fillna(0.5)[study.runs["final_score"].notna()]
        values = f" ({chosen.min():g} to {chosen.max():g})" if len(chosen) else ""
        test = " Test scores, by the same thresholds, are not." if study.runs["test_score"].notna().any() else ""
        yield (
            f"The probability above which a label is given was chosen for each run on the dev split{values}: dev "
            f"scores are optimistic, as the threshold was fitted to the same examples.{test}"
        )


def _not_resampled(study: Study) -> Iterator[str]:
    """What the page leaves out of very many cells whose answers are kept."""
    if len(study.cells) > MOST_RESAMPLED and study.sweeps:
        yield (
            "Dev-set sampling noise and selection bias are estimated by resampling the answers of only the first "
            f"{MOST_RESAMPLED} of {len(study.cells):,} cells."
        )


def _unknown_tokens(study: Study) -> Iterator[str]:
    """A warning where more than a few tokens of the runs' data are unknown to the tokenizer."""
    share = pd.to_numeric(study.runs["unknown_share"]).max()
    models = dict.fromkeys(recipe.model.name for recipe in _recipes(study))
    if share > vocabulary.WARN_ABOVE:  # NaN is not
        yield f"Warning: {vocabulary.words(share, next(iter(models)) if len(models) == 1 else 'one of the models')}"


def _last_bits(study: Study) -> Iterator[str]:
    """Of runs without bias correction, how far a single one can be trusted to come out alike elsewhere."""
    corrected = [recipe.bias_correction for recipe in _recipes(study) if recipe.optimizer in ("adamw", "lamb")]
    if not all(corrected):
        yield (
            "Without bias correction a single result depends on the last bits: at learning rates where runs fail, "
            "rounding errors grow tenfold within 20 updates, so such a run may end differently on another kind of "
            "machine. Failure rates carry over; single scores do not."
        )


def completeness(study: Study) -> str:
    """How many runs were planned, and what became of them."""
    names = ("finished", "crashed", "missing", *(("unreadable",) if study.unreadable else ()))
    counts = {status: int((study.runs["status"] == status).sum()) for status in names}
    states = ", ".join(f"{count} {status}" for status, count in counts.items())
    if len(study.sweeps) == 1:
        size = f"{study.sweeps[0].size} = {len(study.runs)}"
    else:
        size = f"{count_noun(len(study.cells), 'cell')}, {count_noun(len(study.runs), 'run')}"
    text = f"Planned: {size}; {states}."
    if counts["finished"] < len(study.runs):
        unread = ", unreadable" if study.unreadable else ""
        text += f" Rates are over finished runs; crashed{unread} and missing runs are missing data and never count as "
        text += "failed."
    return " ".join([text, *_seeds_by_rule(study)])


def _seeds_by_rule(study: Study) -> Iterator[str]:
    """How seeds were added, why no more are, and what fixed ones would have cost; of a sweep with a rule."""
    standing = stopping.of_study(study)
    if standing is None:
        return
    rule, due, cells = study.sweeps[0].rule, standing.sweep.due, len(study.cells)
    assert rule is not None
    yield f"Seeds are added by rule ({rule.words})."
    yield stopping.words(standing)
    yield (
        "Failure rates and their differences have confidence sequences, which hold at every look; a difference is over "
        "pairs of runs with the same seed and the same other settings."
    )
    if standing.waiting:
        return
    fixed = f"The same {rule.at_most} seeds in every cell would have cost {cells * rule.at_most:,} runs"
    if min(due) < max(due) < rule.at_most:
        fixed += f", and as many as the cell that got most ({max(due)}) {cells * max(due):,}"
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
    elif not set(metrics) <= set(get_args(BuiltIn)):
        unit = better
    else:
        unit = "as fractions" if study.higher_is_better else f"over all tokens of the answers; {better}"
    return (
        f"Scores are dev {named} at the end of training, {unit}; only “best mean” uses each run's best "
        f"evaluation.{tested if study.runs['test_score'].notna().any() else ''}"
    )
