"""What the answers on the dev set tell: sampling noise, calibration, confusion, flips, baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.analysis.cells import NAN, by_cell, cell_groups, cell_scores, failure_counts, spread_out, with_axes
from harness.analysis.comparisons import pairs
from harness.analysis.outcomes import Outcomes, crossed_cells
from harness.analysis.score_scale import cut_to_scale
from harness.analysis.verdicts import failed_runs, finished_runs, judged_runs, of_positions
from harness.common import metrics, scorers
from harness.records.record import Curves
from harness.records.study import Study
from harness.stats import calibration as calibrating
from harness.stats import dev_noise, means
from harness.stats.bootstrap import rng
from harness.stats.estimate import Estimate

# ---------------------------------------------------------------------------------------- the noise of the dev set


@dataclass(frozen=True)
class DevAnswers:
    """What the scored runs of one cell answered on the dev set: logits [R, N, C], labels [N], rows of the table [R]."""

    logits: np.ndarray
    labels: np.ndarray
    rows: tuple[int, ...]

    @property
    def correct(self) -> np.ndarray:
        """Which answers are right [R, N]."""
        correct: np.ndarray = self.logits.argmax(axis=2) == self.labels
        return correct


def read_answers(study: Study) -> list[DevAnswers | None]:
    """The answers of each cell's scored runs; None where no run kept them, for a regression or a token task.

    Words of one sentence are no examples to draw by themselves, and it is entities that are scored; nor are several
    answers to one question.
    """
    if not study.sweeps:
        return [None] * len(study.cells)
    table = study.runs[finished_runs(study.runs) & study.runs["final_score"].notna()]
    by_cell: list[DevAnswers | None] = []
    for of_cell in cell_groups(table, len(study.cells)):
        rows = sorted(int(row) for row in of_cell.index)  # resampling draws by position: their order is not to matter
        curves = [(row, arrays) for row in rows if (arrays := study.curves(row)) is not None]
        curves = [(row, own) for row, own in curves if own.labels.dtype.kind == "i" and not own.sentences.size]
        if not curves:
            by_cell.append(None)
            continue
        same = _of_one_dev_set(curves)
        labels = same[0][1].labels
        logits = np.stack([arrays.logits for _, arrays in same])
        by_cell.append(DevAnswers(logits, labels, tuple(row for row, _ in same)))
    return by_cell


def _of_one_dev_set(curves: list[tuple[int, Curves]]) -> list[tuple[int, Curves]]:
    """The runs of a cell that answered the dev set that most of them did; a damaged one costs no more than itself."""
    sets: dict[tuple[bytes, int], list[tuple[int, Curves]]] = {}
    for row, arrays in curves:
        sets.setdefault((arrays.labels.tobytes(), arrays.logits.shape[1]), []).append((row, arrays))
    return max(sets.values(), key=len)  # among equals the first


def noise_floor(study: Study, answered: Sequence[DevAnswers | None]) -> pd.DataFrame:
    """How much of each cell's spread over seeds the finite dev set makes, and how far its runs agree.

    Columns: `cell`, one per axis, `runs`, `examples`, `known_from` (`answers`: the dev logits that the records keep;
    `counts`: only the number of examples is known; empty: neither, or the metric is no accuracy), `accuracy` (mean),
    `binomial`, `example_bootstrap` (error of one accuracy), `observed` (sd over seeds), `training` with `_low`, `_high`
    (sd over seeds that an infinite dev set would leave; from counts alone only its bounds), `training_variance` (its
    square before it is cut at 0), `dev_share` (of the observed variance), `mean_error`, `seed_error`, `example_error`
    (of the cell's mean), `mean_low`, `mean_high`; `fleiss_kappa`, `consistency`, `disagreement`, `jensen_shannon`,
    `voted` (accuracy of the runs' majority vote).
    """
    of_floor = ["binomial", "example_bootstrap", "observed", "training", "training_low", "training_high"]
    of_floor += ["training_variance", "dev_share", "mean_error", "seed_error", "example_error", "mean_low", "mean_high"]
    of_agreement = ["fleiss_kappa", "consistency", "disagreement", "jensen_shannon"]
    rows: list[dict[str, object]] = []
    counted = study.runs[finished_runs(study.runs) & study.runs["correct"].notna()]
    sizes = by_cell(counted, "dev_examples", len(study.cells))
    for index, (scores, examples, answers) in enumerate(zip(cell_scores(study), sizes, answered, strict=True)):
        row: dict[str, object] = {"cell": index, "runs": 0, "examples": None, "known_from": ""}
        if answers is not None:
            floor = dev_noise.floor(answers.correct, rng("floor"))
            agree = dev_noise.agreement(answers.logits, answers.labels)
            row |= {"runs": floor.runs, "examples": floor.examples, "known_from": "answers", "accuracy": floor.mean}
            row |= {name: getattr(floor, name) for name in of_floor}
            row |= {name: getattr(agree, name) for name in of_agreement}
            row |= {"voted": agree.accuracy_if_voted}
        elif len(examples) and examples[0] == examples[-1]:
            row |= {"runs": len(scores), "examples": int(examples[0]), "known_from": "counts"}
            row |= {"accuracy": scores.mean(), "observed": scores.std(ddof=1) if len(scores) > 1 else NAN}
            told = dev_noise.counts_only(scores, int(examples[0]))
            row |= {"binomial": told.binomial, "training_low": told.training_least, "training_high": told.observed}
        rows.append(row)
    names = ["accuracy", *of_floor, *of_agreement, "voted"]
    table = pd.DataFrame(rows, columns=["cell", "runs", "examples", "known_from", *names])
    table["examples"] = pd.array(table["examples"].tolist(), dtype="Int64")
    table[names] = table[names].astype(float)
    ends = ["training_low", "training_high", "mean_low", "mean_high"]
    table.loc[table["cell"].isin(crossed_cells(study)), ends] = NAN  # they take runs as independent
    return with_axes(study, table)


def pair_noise(study: Study, answered: Sequence[DevAnswers | None]) -> pd.DataFrame:
    """Accuracies of cells that differ on the main axis alone, over seeds and the dev examples that they share.

    Columns: `reference`, `cell`, `difference` (cell minus reference, of the runs whose answers are kept) with `_low`,
    `_high` (`stats.dev_noise.difference`; none where seed parts are crossed, for it takes runs as independent). Pairs
    whose answers are not kept, or are of different examples, are left out.
    """

    def difference_of(a: int, b: int) -> Estimate | None:
        first, second = answered[a], answered[b]
        if first is None or second is None or not np.array_equal(first.labels, second.labels):
            return None
        over_seeds = means.minus(accuracy_over_seeds(study, first), accuracy_over_seeds(study, second))
        return dev_noise.difference(second.correct, first.correct, over_seeds)

    return pair_differences(study, difference_of)


def pair_differences(study: Study, difference_of: Callable[[int, int], Estimate | None]) -> pd.DataFrame:
    """`pair_noise` from what a function says of a cell and its reference; None leaves the pair out."""
    rows: list[dict[str, object]] = []
    crossed = crossed_cells(study)
    for a, b in pairs(study):
        estimate = difference_of(a, b)
        if estimate is None:
            continue
        if not crossed.isdisjoint((a, b)):
            estimate = Estimate(estimate.value, NAN, NAN)
        row: dict[str, object] = {"reference": a, "cell": b}
        rows.append(row | spread_out("difference", estimate))
    table = pd.DataFrame(rows, columns=["reference", "cell", "difference", "difference_low", "difference_high"])
    return cut_to_scale(study, table, (), ("difference",))


def accuracy_over_seeds(study: Study, answers: DevAnswers) -> Estimate:
    """The mean accuracy of one cell's independent runs on these examples, as `Outcomes.mean` tells it."""
    chance = float(np.bincount(answers.labels).max() / len(answers.labels))
    return mean_over_seeds(study, answers.rows, answers.correct.mean(axis=1), chance)


def mean_over_seeds(study: Study, rows: Sequence[int], scores: np.ndarray, chance: float) -> Estimate:
    """The mean of the scores [R] of independent runs, rows of the study's table, as `Outcomes.mean` tells it."""
    runs = study.runs.loc[list(rows)]
    failed, judged = failed_runs(runs).to_numpy(), bool(judged_runs(runs).all())
    return Outcomes(scores, failed & judged, judged, chance, None).mean()


def calibration(study: Study, answered: Sequence[DevAnswers | None]) -> pd.DataFrame:
    """How far the confidence of each run can be believed, from the dev logits that its record keeps.

    Columns: `cell`, one per axis, `trial`, `seed`, `accuracy`, `confidence` (mean probability of the answered class),
    `ece` (expected calibration error, 15 bins), `brier` (0 to 2).
    """
    rows: list[tuple[object, ...]] = []
    columns = ["cell", "trial", "seed", "accuracy", "confidence", "ece", "brier"]
    trials, seeds = study.runs["trial"].to_dict(), study.runs["seed"].to_dict()  # by label, as `rows` are
    for index, answers in ((index, answers) for index, answers in enumerate(answered) if answers is not None):
        chances = calibrating.probabilities(answers.logits)
        each = (
            (chances.argmax(axis=2) == answers.labels).mean(axis=1),
            chances.max(axis=2).mean(axis=1),
            calibrating.expected_errors(chances, answers.labels),
            calibrating.briers(chances, answers.labels),
        )
        for row, *numbers_of_run in zip(answers.rows, *(values.tolist() for values in each), strict=True):
            rows.append((index, trials[row], seeds[row], *numbers_of_run))
    return with_axes(study, pd.DataFrame(rows, columns=columns))


def scores(study: Study, answered: Sequence[DevAnswers | None]) -> pd.DataFrame:
    """What the dev logits that the records keep are worth by every metric that fits them: mean and sd over the runs.

    Columns: `cell`, one per axis, `runs`, and for each of `accuracy`, `f1` (of class 1; with two classes alone),
    `f1_macro`, `f1_micro`, `matthews_correlation`, `ece`, for a regression `pearson` and `spearman`, for a token task
    `accuracy` (of words), `f1_entity`, `entity_precision`, `entity_recall`, where a text has any number of labels
    `accuracy` (of decisions), `f1_labels`, `f1_labels_macro`, of answers in a context `squad_f1` and `squad_exact`, of
    several answers a question `question_match` beside those of classes, its mean and `_sd`; a column that no cell knows
    is left out. Of multiple choice it is `accuracy` and `ece` alone.
    """
    rows: list[dict[str, object]] = []
    others = {*metrics.REGRESSION, *scorers.VALUES, metrics.ENTITIES, *metrics.MANY_LABELS, *metrics.SPANS}
    table = (
        study.runs[finished_runs(study.runs) & study.runs["final_score"].notna()] if study.sweeps else study.runs[:0]
    )
    for index, (answers, of_cell) in enumerate(zip(answered, cell_groups(table, len(study.cells)), strict=True)):
        each: list[dict[str, float]] = []
        if answers is not None:
            chances = calibrating.probabilities(answers.logits)
            errors = calibrating.expected_errors(chances, answers.labels).tolist()
            each = [
                {**metrics.every_score(logits, answers.labels), "ece": error}
                for logits, error in zip(answers.logits, errors, strict=True)
            ]
        else:
            arrays = [own for row in of_cell.index if (own := study.curves(int(row))) is not None and own.labels.size]
            if set(of_cell["metric"]) <= others:
                each = [
                    metrics.every_score(own.logits, own.labels, own.sentences if own.sentences.size else None)
                    for own in arrays
                ]
            else:
                each = [_of_questions(own) for own in arrays if own.sentences.size]
        if each:
            by_run = pd.DataFrame(each)
            both = {"": by_run.mean(), "_sd": by_run.std(ddof=1)}
            means = {f"{name}{end}": value[name] for name in by_run for end, value in both.items()}
            rows.append({"cell": index, "runs": len(each)} | means)
    known = (
        *metrics.CLASSIFICATION, "question_match", "ece", *metrics.REGRESSION, *metrics.MANY_LABELS, *metrics.SPANS,
        metrics.ENTITIES, "entity_precision", "entity_recall",
    )  # fmt: skip
    if of_positions(study):
        known = ("accuracy", "ece")
    names = [f"{name}{end}" for name in known for end in ("", "_sd")]
    columns = [name for name in names if any(name in row for row in rows)]
    return with_axes(study, pd.DataFrame(rows, columns=["cell", "runs", *columns]))


def _of_questions(curves: Curves) -> dict[str, float]:
    """What answers are worth of which each question has several, and the share of questions that are all right."""
    scores = metrics.every_score(curves.logits, curves.labels)
    return scores | {"question_match": metrics.question_match(curves.logits, curves.labels, curves.sentences)}


def confusion(study: Study, answered: Sequence[DevAnswers | None]) -> pd.DataFrame:
    """Which classes the runs of each cell tell apart, summed over its runs; one row a class.

    Columns: `cell`, one per axis, `label` (its index), `runs`, `examples` (of that class, times runs), `answered` (how
    often it was), `precision`, `recall` (of the sums; NaN for a class that is never answered, or never there), each
    with `_sd` over the runs, and `as_0`, `as_1`, …: how often examples of the class were answered so, with `_sd`
    of the count in a single run.
    """
    rows: list[dict[str, object]] = []
    for index, answers in enumerate(answered):
        if answers is None:
            continue
        runs, _, classes = answers.logits.shape
        outcomes = answers.labels * classes + answers.logits.argmax(axis=2) + classes**2 * np.arange(runs)[:, None]
        tables = np.bincount(outcomes.ravel(), minlength=runs * classes**2).reshape(runs, classes, classes)
        total = tables.sum(axis=0)  # [C, C], rows are labels, columns answers
        for label in range(classes):
            row: dict[str, object] = {"cell": index, "label": label, "runs": runs, "examples": int(total[label].sum())}
            row |= {"answered": int(total[:, label].sum())}
            for name, axis in (("precision", 1), ("recall", 2)):
                of = tables.sum(axis=axis)[:, label]
                each = tables[of > 0, label, label] / of[of > 0]
                row[name] = total[label, label] / of.sum() if of.sum() else NAN
                row[f"{name}_sd"] = each.std(ddof=1) if len(each) > 1 else NAN
            row |= {f"as_{answer}": int(total[label, answer]) for answer in range(classes)}
            apart = tables[:, label].std(axis=0, ddof=1) if runs > 1 else np.full(classes, NAN)
            rows.append(row | {f"as_{answer}_sd": value for answer, value in enumerate(apart.tolist())})
    columns = ["cell", "label", "runs", "examples", "answered", "precision", "precision_sd", "recall", "recall_sd"]
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)
    for name in table.columns:
        if name.startswith("as_") and not name.endswith("_sd"):
            table[name] = table[name].astype("Int64")
    return with_axes(study, table)


def flips(study: Study, answered: Sequence[DevAnswers | None], most: int = 20) -> pd.DataFrame:
    """The dev examples whose answer depends most on the seed, by the mean churn within cells.

    Columns: `example` (its place in the dev set), `label`, `right`, `runs` (over these cells), `churn` (probability
    that two runs of one cell disagree on it, mean over the cells with two runs or more). Over the cells in which no run
    failed, where there are such: a failed run answers one class, which tells nothing of an example. Empty where answers
    are not kept or the cells have different dev sets.
    """
    counts = failure_counts(study)
    several = [(answer, counts[index][0]) for index, answer in enumerate(answered) if answer and len(answer.rows) > 1]
    chosen = [answer for answer, failed in several if not failed] or [answer for answer, _ in several]
    if not chosen or any(not np.array_equal(answer.labels, chosen[0].labels) for answer in chosen):
        return pd.DataFrame(columns=["example", "label", "right", "runs", "churn"])
    each = [dev_noise.flips(answer.logits, answer.labels).sort_values("example") for answer in chosen]
    table = pd.DataFrame(
        {
            "example": each[0]["example"].to_numpy(),
            "label": each[0]["label"].to_numpy(),
            "right": sum(part["right"].to_numpy() for part in each),
            "runs": sum(part["runs"].to_numpy() for part in each),
            "churn": sum(part["churn"].to_numpy() for part in each) / len(each),
        }
    )
    order = table.sort_values(["churn", "example"], ascending=[False, True], kind="stable")
    return order[order["churn"] > 0].head(most).reset_index(drop=True)
