"""Numbers and tables as people read them: an analysis in words and columns, as text, Markdown, LaTeX and CSV."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup, escape

from harness.analysis.analyze import Analysis
from harness.common.text import Scalar, name_cell, show
from harness.records.study import Study
from harness.stats import proportions

Row = Mapping[str, Any]
MOST_ROWS = 200  # of a table on the page; its file has them all


# -------------------------------------------------------------------------------------------------------------- numbers


def unknown(value: object) -> bool:
    """Whether a value of a table is not known."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def score(value: float | None) -> str:
    """A score, a difference of scores or a loss: three decimals, fewer for large ones; `–` where not known."""
    if value is None or unknown(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    digits = 3 if size < 10 else 2 if size < 100 else 1 if size < 1e5 else 0
    text = f"{value:.{digits}f}" if size < 1e12 else f"{value:.4g}"
    return text.replace("-", "−") if float(text) else text.removeprefix("-")


def percent(value: float | None, digits: int = 0) -> str:
    """A share in per cent; `–` where not known."""
    if value is None or unknown(value):
        return "–"
    text = f"{100 * value:.{digits}f}"
    return (text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")) + " %"


def points(fraction: float | None) -> str:
    """A difference of accuracies in percentage points."""
    return "–" if fraction is None or unknown(fraction) else f"{100 * fraction:.1f}".replace("-", "−") + " points"


def p_value(value: float | None) -> str:
    """A p value with two digits; `< 0.0001` below that."""
    return "–" if value is None or unknown(value) else "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def rate(k: int, n: int) -> str:
    """A failure rate as people read it, `63 % [46, 78]` with Wilson's 95 % interval; `not known` for n = 0."""
    if n == 0:
        return "not known"
    low, high = proportions.wilson(k, n)
    return f"{100 * k / n:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def interval(row: Row, name: str, form: Callable[[float | None], str] = score) -> str:
    """An estimate with its interval, `0.81 [0.79, 0.83]`, from the columns `name`, `name_low`, `name_high`."""
    value, low, high = (row[key] for key in (name, f"{name}_low", f"{name}_high"))
    if unknown(value):
        return "–"
    bounds = "" if unknown(low) or unknown(high) else f" [{form(low)}, {form(high)}]".replace(" %", "")
    return form(value) + bounds


def against(axis: str, value: object, reference: object) -> str:
    """What is compared on an axis: `lr 3e-5 against 2e-5`."""
    return f"{axis.replace('_', ' ')} {show(value)} against {show(reference)}"


def integer(value: object) -> str:
    """A count; `–` where not known."""
    return "–" if unknown(value) else str(int(str(value).removesuffix(".0")))


# --------------------------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class Table:
    """A table as text: its header and rows; `numeric` says which columns are numbers, to be set right."""

    name: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]

    @property
    def left_out(self) -> int:
        """How many rows the page does not show."""
        return max(len(self.rows) - MOST_ROWS, 0)

    @property
    def shown(self) -> tuple[tuple[str, ...], ...]:
        """The rows on the page."""
        return self.rows[:MOST_ROWS]


Column = tuple[str, Callable[[Row], str]]


def _build(
    name: str, caption: str, table: pd.DataFrame, columns: Iterable[Column], place: Iterable[Column] = ()
) -> Table:
    """Words in the columns of `place`, numbers in those of `columns`; one that nowhere knows anything is left out."""
    left, right = list(place), list(columns)
    rows = table.to_dict("records")
    texts = [[form(row) for row in rows] for _, form in (*left, *right)]
    keep = [index for index, column in enumerate(texts) if index < len(left) or any(text != "–" for text in column)]
    return Table(
        name,
        caption,
        tuple((*left, *right)[index][0].replace("95 %", "95\u00a0%") for index in keep),  # they break nowhere else
        tuple(tuple(texts[index][row] for index in keep) for row in range(len(rows))),
        tuple(index >= len(left) for index in keep),
    )


def _axes(study: Study) -> list[Column]:
    def of(axis: str) -> Callable[[Row], str]:
        return lambda row: show(dict(study.cells[row["cell"]].axes)[axis])

    return [(axis.replace("_", " "), of(axis)) for axis in study.axes] or [("recipe", lambda row: "the only one")]


def _pair(study: Study) -> list[Column]:
    """Where a pair of cells stands, and what of it is compared: `bias correction on against off`."""

    def differing(row: Row) -> tuple[str, Scalar, Scalar]:
        a, b = (study.cells[row[name]].axes for name in ("reference", "cell"))
        return next((name, value, other) for (name, other), (_, value) in zip(a, b, strict=True) if value != other)

    def compared(row: Row) -> str:
        name, value, other = differing(row)
        return against(name, value, other)

    def shared(row: Row) -> str:
        name = differing(row)[0]
        axes = [pair for pair in study.cells[row["cell"]].axes if pair[0] != name]
        return name_cell(axes) if axes else "–"

    return [("at", shared), ("compared", compared)]


def _number(name: str, form: Callable[[Any], str] = score) -> Callable[[Row], str]:
    return lambda row: form(row[name])


def _with_interval(name: str, form: Callable[[float | None], str] = score) -> Callable[[Row], str]:
    return lambda row: interval(row, name, form)


def _k_of_n(k: str, n: str) -> Callable[[Row], str]:
    return lambda row: "–" if unknown(row[k]) or unknown(row[n]) or not row[n] else f"{int(row[k])}/{int(row[n])}"


_TESTED: list[Column] = [
    ("tested", _k_of_n("tested", "finished")),
    ("test mean", _number("test_mean")),
    ("test sd", _number("test_sd")),
]


def _cells(found: Analysis) -> Table:
    columns: list[Column] = [
        ("finished", lambda row: f"{row['finished']}/{row['planned']}"),
        ("failed", lambda row: "–" if unknown(row["failed"]) else f"{row['failed']}/{row['judged']}"),
        ("rate [95 %]", lambda row: "not known" if unknown(row["failed"]) else rate(row["failed"], row["judged"])),
        (
            "exact [95 %]",
            lambda row: (
                "–" if unknown(row["exact_low"]) else f"[{100 * row['exact_low']:.0f}, {100 * row['exact_high']:.0f}]"
            ),
        ),
        ("at chance", _number("at_chance", integer)),
        ("n", _number("scored", integer)),
        *((name.replace("_", " "), _number(name)) for name in ("mean", "sd", "min", "median", "max", "best_mean")),
        *(_TESTED if "tested" in found.cells else ()),
        ("crashed", _number("crashed", integer)),
        ("missing", _number("missing", integer)),
    ]
    caption = "One row a cell; scores are final scores; rates with Wilson's and with Clopper and Pearson's interval"
    return _build("cells", caption, found.cells, columns, _axes(found.study))


def _definitions(found: Analysis) -> Table:
    names = {"majority": "at or below the majority", "binomial": "not above it at 5 %"}
    names["entropy"] = f"loss at {'variance' if found.runs['label_variance'].notna().any() else 'entropy'}"
    if found.threshold is not None:
        names["threshold"] = f"{'below' if found.study.higher_is_better else 'above'} {score(found.threshold)}"
    columns = [(words, _k_of_n(f"{name}_failed", f"{name}_of")) for name, words in names.items()]
    caption = "Failed runs under other definitions of failing, of the runs for which each can be told"
    return _build("definitions", caption, found.definitions, columns, _axes(found.study))


def _arms(found: Analysis) -> Table:
    place: list[Column] = [
        ("axis", lambda row: row["axis"].replace("_", " ")),
        ("value", lambda row: show(row["value"])),
    ]
    columns: list[Column] = [
        ("failed", _k_of_n("failed", "judged")),
        ("rate [95 %]", lambda row: rate(row["failed"], row["judged"])),
        ("mean score", _number("mean")),
        ("mean training loss", _number("loss")),
    ]
    return _build("arms", "Pooled over the other axes", found.arms, columns, place)


def _contrasts(found: Analysis) -> Table:
    place: list[Column] = [
        (
            "compared",
            lambda row: against(row["axis"], row["value"], row["reference"]),
        ),
    ]
    columns: list[Column] = [
        ("failed", _k_of_n("failed", "judged")),
        ("against", _k_of_n("reference_failed", "reference_judged")),
        ("risk difference [95 %]", _with_interval("difference", percent)),
        ("odds ratio [95 %]", _with_interval("odds_ratio")),
        ("strata (informative)", lambda row: f"{row['strata']} ({row['informative']})"),
        ("CMH p", _number("p", p_value)),
        ("p, Holm", _number("p_holm", p_value)),
        ("Fisher p, pooled", _number("fisher", p_value)),
    ]
    caption = (
        "Failing by axis, each value against the first, stratified by all other settings (Mantel-Haenszel; "
        "Cochran-Mantel-Haenszel test)"
    )
    return _build("contrasts", caption, found.contrasts, columns, place)


def _pair_failures(found: Analysis) -> Table:
    columns: list[Column] = [
        ("failed", _k_of_n("failed", "judged")),
        ("against", _k_of_n("reference_failed", "reference_judged")),
        ("risk difference [95 %]", _with_interval("difference", percent)),
        ("odds ratio [95 %]", _with_interval("odds_ratio")),
        ("Fisher p", _number("fisher", p_value)),
        ("p, Holm", _number("p_holm", p_value)),
    ]
    caption = "Failing, cell against cell (Newcombe's and exact intervals, Fisher's exact test)"
    return _build("pair_failures", caption, found.pair_failures, columns, _pair(found.study))


def _spread(found: Analysis) -> Table:
    columns: list[Column] = [
        ("n", _number("scored", integer)),
        ("failed of n", _number("failed", integer)),
        ("sd [95 %]", _with_interval("sd")),
        ("IQR", _number("iqr")),
        ("MAD", _number("mad")),
        ("between failed and ok", _number("between", percent)),
        ("within ok", _number("within_ok", percent)),
        ("within failed", _number("within_failed", percent)),
        ("sd of the ok", _number("ok_sd")),
        ("sd of the failed", _number("failed_sd")),
    ]
    caption = "The spread of each cell's scores (BCa bootstrap) and what its variance is made of"
    return _build("spread", caption, found.spread, columns, _axes(found.study))


def _pair_spreads(found: Analysis) -> Table:
    columns: list[Column] = [
        ("sd", _number("sd")),
        ("against", _number("reference_sd")),
        ("ratio [95 %]", _with_interval("ratio")),
        ("Levene p", _number("levene", p_value)),
        ("Brown-Forsythe p", _number("brown_forsythe", p_value)),
        ("permutation p", _number("permutation", p_value)),
        ("p, Holm", _number("p_holm", p_value)),
    ]
    caption = (
        "Spread, cell against cell; p, Holm, is Brown and Forsythe's (Levene's, about the mean, rejects too often "
        "where scores are skewed)"
    )
    return _build("pair_spreads", caption, found.pair_spreads, columns, _pair(found.study))


_LEVELS: list[Column] = [
    ("n", _number("scored", integer)),
    ("mean [95 %]", _with_interval("mean")),
    ("median [95 %]", _with_interval("median")),
    ("interquartile mean [95 %]", _with_interval("iqm")),
]


def _level(found: Analysis) -> Table:
    return _build("level", "The level of each cell's scores (BCa bootstrap)", found.level, _LEVELS, _axes(found.study))


def _pooled_level(found: Analysis) -> Table:
    place: list[Column] = [
        ("axis", lambda row: row["axis"].replace("_", " ")),
        ("value", lambda row: show(row["value"])),
    ]
    caption = "The level pooled over the other axes (bootstrap within cells)"
    return _build("pooled_level", caption, found.pooled_level, _LEVELS, place)


def _pair_levels(found: Analysis) -> Table:
    columns: list[Column] = [
        ("mean", _number("mean")),
        ("against", _number("reference_mean")),
        ("difference [95 %]", _with_interval("difference")),
        ("P(better) [95 %]", _with_interval("improvement")),
        ("Hedges' g [95 %]", _with_interval("effect")),
        ("Welch p", _number("welch", p_value)),
        ("Mann-Whitney p", _number("mann_whitney", p_value)),
        ("permutation p", _number("permutation", p_value)),
        ("p, Holm", _number("p_holm", p_value)),
    ]
    caption = "Level, cell against cell; Holm's adjustment is of Welch's p"
    return _build("pair_levels", caption, found.pair_levels, columns, _pair(found.study))


def _noise_floor(found: Analysis) -> Table:
    def hundred(name: str) -> Callable[[Row], str]:
        return lambda row: "–" if unknown(row[name]) else f"{100 * row[name]:.2f}"

    def training(row: Row) -> str:
        if unknown(row["training"]):
            return "–"
        return f"{100 * row['training']:.2f} [{100 * row['training_low']:.2f}, {100 * row['training_high']:.2f}]"

    columns: list[Column] = [
        ("runs", _number("runs", lambda value: integer(value) if value else "–")),
        ("examples", _number("examples", integer)),
        ("accuracy", _number("accuracy")),
        ("sd over seeds", hundred("observed")),
        ("binomial error", hundred("binomial")),
        ("bootstrap error", hundred("example_bootstrap")),
        ("training alone [95 %]", training),
        ("share of the dev set", _number("dev_share", percent)),
        ("error of the mean", hundred("mean_error")),
        ("of it seeds", hundred("seed_error")),
        ("of it examples", hundred("example_error")),
        ("Fleiss κ", _number("fleiss_kappa")),
        ("disagreement", _number("disagreement", lambda value: percent(value, 1))),
        ("JS divergence", _number("jensen_shannon")),
        ("accuracy of the vote", _number("voted")),
    ]
    caption = "Spread and errors of the accuracy in percentage points, and how far the runs of a cell agree"
    return _build("noise_floor", caption, found.noise_floor, columns, _axes(found.study))


def _pair_noise(found: Analysis) -> Table:
    place: list[Column] = [*_pair(found.study), ("seeds", lambda row: row["seeds"])]
    columns: list[Column] = [("difference in accuracy [95 %]", _with_interval("difference"))]
    caption = "Accuracy, cell against cell, seeds and dev examples drawn anew together (multi-bootstrap)"
    return _build("pair_noise", caption, found.pair_noise, columns, place)


def _flips(found: Analysis) -> Table:
    columns: list[Column] = [
        ("dev example", _number("example", integer)),
        ("label", _number("label", integer)),
        ("right", _k_of_n("right", "runs")),
        ("churn", _number("churn", percent)),
    ]
    caption = "The examples that flip most: churn is how often two runs of one cell disagree (examples count from 0)"
    return _build("flips", caption, found.flips, columns)


def _with_sd(name: str) -> Callable[[Row], str]:
    return lambda row: score(row[name]) + ("" if unknown(row[f"{name}_sd"]) else f" ± {score(row[f'{name}_sd'])}")


_SCORES = {
    "accuracy": "accuracy", "f1": "F1 of class 1", "f1_macro": "macro F1", "f1_micro": "micro F1",
    "matthews_correlation": "Matthews", "ece": "ECE", "pearson": "Pearson", "spearman": "Spearman",
    "f1_entity": "entity F1", "entity_precision": "precision", "entity_recall": "recall",
}  # fmt: skip


def _scores(found: Analysis) -> Table:
    table = found.scores
    words = _SCORES | ({"accuracy": "accuracy of words"} if "f1_entity" in table else {})
    columns: list[Column] = [
        ("runs", _number("runs", integer)),
        *((f"{text} ± sd", _with_sd(name)) for name, text in words.items() if name in table),
    ]
    caption = "The final answers on the dev set by other scores: means over the runs of a cell, sd over the runs"
    return _build("scores", caption, table, columns, _axes(found.study))


def _calibration(found: Analysis) -> Table:
    """One row a cell; the file has every run."""
    grouped = found.calibration.groupby("cell", sort=False)
    by_cell = grouped[["accuracy", "confidence", "ece", "brier"]]
    cells = by_cell.mean().join(by_cell.std().add_suffix("_sd")).join(grouped["ece"].agg(["size", "max"])).reset_index()
    columns: list[Column] = [
        ("runs", _number("size", integer)),
        ("accuracy", _number("accuracy")),
        ("mean confidence", _number("confidence")),
        ("ECE ± sd", _with_sd("ece")),
        ("highest ECE", _number("max")),
        ("Brier score ± sd", _with_sd("brier")),
    ]
    caption = "Calibration on the dev set: means over the runs of a cell"
    return _build("calibration", caption, cells, columns, _axes(found.study))


_MOST_CLASSES = 10  # whose answers have a column each on the page


def _confusion(found: Analysis) -> Table:
    table = found.confusion
    answers = [name for name in table.columns if str(name).startswith("as_") and not str(name).endswith("_sd")]

    place: list[Column] = [*_axes(found.study), ("class", lambda row: str(row["label"]))]
    columns: list[Column] = [
        ("runs", _number("runs", integer)),
        *(
            (f"answered {name.removeprefix('as_')}", _number(name, integer))
            for name in (answers if len(answers) <= _MOST_CLASSES else ())
        ),
        ("precision ± sd", _with_sd("precision")),
        ("recall ± sd", _with_sd("recall")),
    ]
    caption = "What the examples of each class were answered as, summed over the runs of a cell; sd over the runs"
    return _build("confusion", caption, table, columns, place)


def _best_of_n(found: Analysis) -> Table:
    """One row a cell, a column for some numbers of seeds; the file has all of them."""
    table = found.best_of_n
    largest = int(table["n"].max()) if len(table) else 0
    chosen = [n for n in dict.fromkeys((1, 2, 3, 5, 10, 20, 50, largest)) if n <= largest]
    by_cell = {(row["cell"], row["n"]): row for row in table.to_dict("records")}
    cells = pd.DataFrame({"cell": list(dict.fromkeys(table["cell"]))})

    def best(n: int) -> Callable[[Row], str]:
        def text(row: Row) -> str:
            here = by_cell.get((row["cell"], n))
            if here is None:
                return "–"
            return interval({"x": here["expected"], "x_low": here["low"], "x_high": here["high"]}, "x")

        return text

    columns: list[Column] = [(f"best of {n}" if n > 1 else "one run", best(n)) for n in chosen]
    caption = "Expected best score of n seeds (Dodge et al. 2019) with its bootstrap interval"
    return _build("best_of_n", caption, cells, columns, _axes(found.study))


def _selection(found: Analysis) -> Table:
    source = {"test": "test set", "halves": "halves of the dev set"}
    columns: list[Column] = [
        ("seeds", _number("n", integer)),
        ("mean", _number("mean")),
        ("best seed", _number("best")),
        ("reported too high by [95 % of splits]", _with_interval("too_high")),
        ("known from", lambda row: source.get(row["known_from"], "–")),
    ]
    caption = "What picking the best seed by its dev score reports too high"
    return _build("selection", caption, found.selection, columns, _axes(found.study))


def _budget(found: Analysis) -> Table:
    table = found.budget
    chosen = sorted(set(table["n"]))
    by_cell = {(row["cell"], row["n"]): row for row in table.to_dict("records")}
    cells = pd.DataFrame({"cell": list(dict.fromkeys(table["cell"]))})

    def half(n: int) -> Callable[[Row], str]:
        def text(row: Row) -> str:
            here = by_cell.get((row["cell"], n))
            if here is None or (unknown(here["mean_half_width"]) and unknown(here["rate_half_width"])):
                return "–"
            return f"{score(here['mean_half_width'])} · {percent(here['rate_half_width'])}"

        return text

    columns: list[Column] = [(f"{n} seeds", half(n)) for n in chosen]
    caption = "Half-width of the 95 % interval of the mean score · of the failure rate, at other numbers of seeds"
    return _build("budget", caption, cells, columns, _axes(found.study))


def _never_failed(found: Analysis) -> Table:
    columns: list[Column] = [
        ("runs", _number("judged", lambda value: f"0 of {value} failed")),
        ("rate at most, exact", _number("exact", lambda value: percent(value, 1))),
        ("rule of three", _number("rule_of_three", lambda value: percent(value, 1))),
    ]
    caption = "Where no run failed: the highest rate that 95 % confidence leaves room for (one-sided)"
    return _build("never_failed", caption, found.never_failed, columns, _axes(found.study))


def _needed(found: Analysis) -> Table:
    judged = found.cells["judged"]

    def mean(row: Row) -> str:
        if not unknown(row["for_mean"]):
            return str(row["for_mean"])
        return "> 1000" if row["now"] > 1 else "–"  # one score a cell tells no spread

    def failure(row: Row) -> str:
        if not unknown(row["for_failure"]):
            return str(row["for_failure"])
        return "> 1000" if judged[row["reference"]] and judged[row["cell"]] else "–"

    columns: list[Column] = [
        ("runs now", _number("now", integer)),
        ("to tell the means apart", mean),
        ("to tell the rates apart", failure),
    ]
    caption = "Seeds a cell for a power of 80 % at 5 %, would further runs fall out as these did"
    return _build("needed", caption, found.needed, columns, _pair(found.study))


def _seed_factors(found: Analysis) -> Table:
    place: list[Column] = [
        *_axes(found.study),
        ("of", lambda row: row["of"]),
        ("part", lambda row: row["reason"] or row["term"].replace("_seed", "")),
    ]
    columns: list[Column] = [
        ("runs", _number("runs", integer)),
        ("variance", _number("variance", lambda value: "–" if unknown(value) else f"{value:.3g}".replace("-", "−"))),
        (
            "share [95 %]",
            lambda row: interval({"x": row["share"], "x_low": row["low"], "x_high": row["high"]}, "x", percent),
        ),
    ]
    caption = "Variance components of the crossed seed parts (random-effects analysis of variance)"
    return _build("seed_factors", caption, found.seed_factors, columns, place)


def _drivers_of_score(found: Analysis) -> Table:
    columns: list[Column] = [
        ("df", _number("df", integer)),
        ("η²", _number("eta_squared", lambda value: percent(value, 1))),
        ("ω²", _number("omega_squared", lambda value: percent(value, 1))),
        ("F", _number("F", lambda value: "–" if unknown(value) else f"{value:.2f}")),
        ("p", _number("p", p_value)),
        ("fANOVA", _number("fanova", lambda value: percent(value, 1))),
    ]
    caption = "Share of each setting in the variance of the score (factorial ANOVA, type II; fANOVA by random forest)"
    place: list[Column] = [("setting", lambda row: row["term"].replace("_", " "))]
    return _build("drivers_of_score", caption, found.drivers_of_score, columns, place)


def _drivers_of_failing(found: Analysis) -> Table:
    columns: list[Column] = [
        ("df", _number("df", integer)),
        ("χ²", _number("chi2", lambda value: "–" if unknown(value) else f"{value:.2f}")),
        ("p", _number("p", p_value)),
        ("share of χ²", _number("share", percent)),
    ]
    place: list[Column] = [
        ("setting", lambda row: row["factor"].replace("_", " ") + (f" ({row['note']})" if row.get("note") else ""))
    ]
    caption = "What drives failing (Firth's penalised logistic regression, likelihood-ratio tests)"
    return _build("drivers_of_failing", caption, found.drivers_of_failing, columns, place)


def _effects_on_failing(found: Analysis) -> Table:
    place: list[Column] = [
        ("setting", lambda row: row["factor"].replace("_", " ")),
        ("value", lambda row: show(row["value"])),
    ]
    columns: list[Column] = [
        ("failure rate, adjusted", _number("rate", percent)),
        (
            "difference to the first [95 %]",
            lambda row: interval({"x": row["difference"], "x_low": row["low"], "x_high": row["high"]}, "x", percent),
        ),
    ]
    caption = "Averaged marginal effects: the failure rate were every run set to that value"
    return _build("effects_on_failing", caption, found.effects_on_failing, columns, place)


def _baselines(found: Analysis) -> Table:
    table = found.baselines.rename(columns={"accuracy": "dev"})
    several = table["task"].nunique() > 1
    place: list[Column] = [
        *([("task", lambda row: row["task"])] if several else []),
        ("cell or baseline", lambda row: row["what"]),
    ]
    columns: list[Column] = [
        ("runs", lambda row: "any seed" if not unknown(row["sd"]) and row["runs"] == 1 else str(row["runs"])),
        ("failed", _k_of_n("failed", "judged")),
        ("mean [95 % over seeds]", _with_interval("mean")),
        ("sd", _number("sd")),
        ("accuracy [95 % over dev examples]", _with_interval("dev")),
        ("accuracy above the best baseline [95 %]", _with_interval("difference")),
    ]
    caption = "The cells beside simple classifiers on the same splits; differences over seeds and the same dev examples"
    return _build("baselines", caption, table, columns, place)


def _against_the_paper(found: Analysis) -> Table:
    def published(row: Row) -> str:
        return (
            f"{100 * row['published_mean']:.1f} ± {100 * row['published_sd']:.1f}, max {100 * row['published_max']:.1f}"
        )

    def own(row: Row) -> str:
        if unknown(row["cell"]):
            return "–"
        mean, low, high = (100 * row[name] for name in ("mean", "mean_low", "mean_high"))
        bounds = f" [{low:.1f}, {high:.1f}]" if row["sd"] > 0 else ""  # equal scores know nothing of their error
        return f"{mean:.1f}{bounds} ± {100 * row['sd']:.1f}"

    place: list[Column] = [
        ("published recipe", lambda row: f"{row['recipe']}, {row['task'].upper()}"),
        (
            "version",
            lambda row: row["version"] + (" (not checked against the paper)" if row["status"] == "unchecked" else ""),
        ),
        ("published mean ± sd", published),
        (
            "here",
            lambda row: "–" if unknown(row["cell"]) else found.study.cells[int(row["cell"])].label,
        ),
        ("mean [95 %] ± sd", own),
        ("verdict", lambda row: row["verdict"]),
        ("why", lambda row: row["why"]),
    ]
    caption = "Numbers of Mosbach et al. (2021), in per cent, 25 runs each"
    return _build("against_the_paper", caption, found.against_the_paper, (), place)


def _kinds(found: Analysis) -> Table:
    def count(name: str) -> Callable[[Row], str]:
        return lambda row: integer(row[name]) if row[name] else "–"

    columns: list[Column] = [
        ("finished", _number("finished", integer)),
        ("learned", _number("ok", integer)),
        ("at chance", count("at_chance")),
        ("failed: not optimised", count("not_optimised")),
        ("failed: not generalised", count("not_generalised")),
        ("diverged", count("diverged")),
        ("failed: not told", count("not_told")),
        ("gradients vanished", lambda row: f"{row['vanished']} of {row['failed_recorded']}" if row["failed_recorded"]
         else "–"),
    ]  # fmt: skip
    return _build("kinds", "What became of the runs", found.diagnosis.kinds, columns, _axes(found.study))


def _gradients(found: Analysis) -> Table:
    columns: list[Column] = [
        ("farthest apart at", lambda row: percent(row["at"])),
        ("lost runs", lambda row: f"{row['lost_norm']:.2g}"),
        ("others", lambda row: f"{row['others_norm']:.2g}"),
        ("orders of magnitude", lambda row: f"{row['orders']:.1f}".replace("-", "−")),
        ("at the end", lambda row: f"{row['end_orders']:.1f}".replace("-", "−")),
    ]
    caption = "Median gradient norms where lost runs and others are farthest apart, by part of the network"
    return _build("gradients", caption, found.diagnosis.gradients, columns, [("part", lambda row: row["part"])])


def _step_sizes(found: Analysis) -> Table:
    columns: list[Column] = [
        ("updates", _number("updates", integer)),
        ("largest, in learning rates", lambda row: f"{row['largest']:.2f}"),
        ("at update", _number("at", integer)),
        ("largest", lambda row: show(float(f"{row['largest_rate']:.3g}"))),
        ("clipped updates", lambda row: percent(row["clipped"])),
    ]
    caption = "The largest effective update by the schedule and bias correction"
    return _build("step_sizes", caption, found.diagnosis.step_sizes, columns, _axes(found.study))


def _early_warning(found: Analysis) -> Table:
    columns: list[Column] = [
        ("training done", lambda row: percent(row["share"], 1)),
        ("AUC [95 %]", lambda row: interval(row, "auc")),
        ("AUC within cells", _number("within")),
        ("caught", _k_of_n("caught", "lost")),
        ("false alarms", _k_of_n("false", "others")),
    ]
    caption = "How well each signal tells lost runs at each point of training, by leave-one-cell-out"
    place: list[Column] = [("signal", lambda row: row["signal"])]
    return _build("early_warning", caption, found.diagnosis.early_warning, columns, place)


def _stopping(found: Analysis) -> Table:
    columns: list[Column] = [
        ("runs", _number("runs", integer)),
        ("stopped", _number("stopped", integer)),
        ("wrongly", _number("wrongly", integer)),
        ("failed", _number("failed", integer)),
        ("failed or stopped", _number("failed_after", integer)),
        ("mean", _number("mean")),
        ("mean of those left", _number("mean_after")),
        ("time saved", lambda row: percent(row["saved"])),
    ]
    caption = "What stopping runs by the rule would have changed"
    return _build("stopping", caption, found.diagnosis.stopping, columns, _axes(found.study))


def _shared_seeds(found: Analysis) -> Table:
    columns: list[Column] = [
        ("cells", _number("cells", integer)),
        ("seeds", _number("seeds", integer)),
        ("mean rank correlation", _number("correlation")),
        ("p, permutation", lambda row: p_value(row["p"])),
    ]
    caption = "Whether the same seeds do badly in different cells (those whose runs differ)"
    return _build("shared_seeds", caption, found.diagnosis.shared_seeds, columns, [("of", lambda row: row["of"])])


MADE: Mapping[str, Callable[[Analysis], Table]] = {
    "cells": _cells,
    "definitions": _definitions,
    "arms": _arms,
    "contrasts": _contrasts,
    "pair_failures": _pair_failures,
    "spread": _spread,
    "pair_spreads": _pair_spreads,
    "level": _level,
    "pooled_level": _pooled_level,
    "pair_levels": _pair_levels,
    "noise_floor": _noise_floor,
    "pair_noise": _pair_noise,
    "flips": _flips,
    "scores": _scores,
    "calibration": _calibration,
    "confusion": _confusion,
    "best_of_n": _best_of_n,
    "selection": _selection,
    "budget": _budget,
    "never_failed": _never_failed,
    "needed": _needed,
    "seed_factors": _seed_factors,
    "drivers_of_score": _drivers_of_score,
    "drivers_of_failing": _drivers_of_failing,
    "effects_on_failing": _effects_on_failing,
    "baselines": _baselines,
    "against_the_paper": _against_the_paper,
    "kinds": _kinds,
    "gradients": _gradients,
    "step_sizes": _step_sizes,
    "early_warning": _early_warning,
    "stopping": _stopping,
    "shared_seeds": _shared_seeds,
}


def tables(found: Analysis) -> dict[str, Table]:
    """Every table that has rows, by the name of the analysis's; that of the noise where some is known."""
    named = found.tables
    made = {name: make(found) for name, make in MADE.items() if len(named[name])}
    return {name: table for name, table in made.items() if any(table.numeric) or name != "noise_floor"}


# ---------------------------------------------------------------------------------------------------------- as files

_FORMULA = set("=+-@\t\r\n＝＋－＠")  # how a formula starts; spreadsheets take the full-width signs too


def json_value(value: object) -> object:
    """A table's value as JSON has it: plain numbers, None for what is not known."""
    if value is pd.NA:
        return None
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"  # an odds ratio can be: JSON has no word for it
    return None if isinstance(value, float) and math.isnan(value) else value


def json_rows(table: pd.DataFrame) -> list[dict[str, object]]:
    """A table as JSON has it, a row each."""
    return [{str(key): json_value(value) for key, value in row.items()} for row in table.to_dict("records")]


def csv(table: pd.DataFrame, floats: str | None = None) -> str:
    """A table as CSV; texts that a spreadsheet would run as a formula get an apostrophe before them (OWASP)."""

    def safe(value: object) -> object:
        if not isinstance(value, str):
            return value
        line = (
            re.sub("\r\n?", "\n", value) if "\r" in value else value
        )  # pandas puts no quotes about a lone \r, which ends a line for some
        return f"'{line}" if line[:1] in _FORMULA else line

    guarded = table.rename(columns=safe)
    for place, dtype in enumerate(guarded.dtypes):
        if pd.api.types.is_object_dtype(dtype) or pd.api.types.is_string_dtype(dtype):
            guarded.isetitem(place, [safe(value) for value in guarded.iloc[:, place]])
    return str(guarded.to_csv(index=False, lineterminator="\n", float_format=floats))


def markdown_text(text: object) -> Markup:
    """Text as Markdown shows it: no markup of its own taken over, no cell or line broken."""
    plain = str(escape(" ".join(str(text).split()))).replace("&#39;", "'").replace("&#34;", '"')
    return Markup(re.sub(r"([|\\`*\[\]~$])", r"\\\1", plain).replace("_", "\\_"))


def markdown(table: Table) -> str:
    """A table as Markdown, with its caption above."""

    def line(texts: Sequence[str]) -> str:
        return f"| {' | '.join(texts)} |"

    rule = "|" + "|".join(" ---: " if right else " --- " for right in table.numeric) + "|"
    rows = [line([markdown_text(text) for text in row]) for row in (table.header, *table.rows)]
    return "\n".join([f"{markdown_text(table.caption)}", "", rows[0], rule, *rows[1:]]) + "\n"


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "–": "--", "−": "$-$", "×": r"$\times$", "·": r"$\cdot$", "±": r"$\pm$", "∞": r"$\infty$", "κ": r"$\kappa$",
    "η": r"$\eta$", "ω": r"$\omega$", "χ": r"$\chi$", "²": r"\textsuperscript{2}", "τ": r"$\tau$", '"': "''",
    "|": r"\textbar{}",
}  # fmt: skip


def latex_text(text: object) -> str:
    """Text as LaTeX sets it: nothing in it is a command."""
    return "".join(_TEX.get(letter, letter) for letter in " ".join(str(text).split()))


def latex(table: Table) -> str:
    r"""A table for `\input` into a paper that loads booktabs."""

    def line(texts: Sequence[str]) -> str:
        return " & ".join(re.sub(r"([][*])", r"{\1}", latex_text(text)) for text in texts) + r" \\"

    columns = "".join("r" if right else "l" for right in table.numeric)
    rows = [line(row) for row in table.rows]
    start = ["% needs booktabs. " + " ".join(table.caption.split()), f"\\begin{{tabular}}{{{columns}}}", "\\toprule"]
    return "\n".join([*start, line(table.header), "\\midrule", *rows, "\\bottomrule", "\\end{tabular}", ""])
