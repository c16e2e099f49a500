"""What comes first on the page: how often runs fail, what decides it, what is best, and how far that goes."""

from __future__ import annotations

import math

import pandas as pd

from harness.analysis.analyze import Analysis
from harness.analysis.comparisons import main_axis, reference
from harness.analysis.failures import all_runs
from harness.analysis.verdicts import level_to_beat
from harness.common import metrics as metric_names
from harness.common.text import count_noun, show
from harness.records.study import SOURCE, numbers
from harness.report.claims import Claim, Sentence, Summary, Words, row_at
from harness.report.formatting import Row, percent, score, unknown
from harness.report.sections import baselines, best, dev_set, importance, seed_budget, seed_parts
from harness.report.wording import (
    arm_sizes,
    can_be_shown,
    contrast_claim,
    failing_alone,
    failure_test,
    main_arms,
    named_cells,
    p_clause,
    points_words,
    rate_claim,
    rate_words,
    run_count,
    setting,
    spaced,
)

_MOST_ARMS = 8  # whose rates are given one by one
_MOST_UNDECIDED = 3  # comparisons, in the opening
_ROUNDING = 1e-9  # of standard deviations: the first of cells that differ by less has the widest spread
_MANY_LACKING = 0.2  # of a cell's runs, by which it is behind another
_MISLEADING = 0.1  # by which a difference of pooled rates may be off the one all else equal


def answer(analysis: Analysis) -> list[str]:
    """The sentences that open the report: the failure rates first, and last what else the sections found out."""
    texts: list[str] = [how_often(analysis), *rates(analysis), *all_else_equal(analysis)]
    texts += [*best.sentences(analysis), *best.recommendation(analysis), *covers(analysis), *_lacking(analysis)]
    texts += [where(analysis), importance.in_short(analysis), *seed_parts.largest_parts(analysis)[:1]]
    texts += baselines.sentences(analysis)[:1] if len(analysis.baselines) else []
    texts += [dev_set.in_short(analysis), seed_budget.few_seeds(analysis)]
    return [text if isinstance(text, Sentence) else Sentence(text) for text in texts if text]


def multiplicity(analysis: Analysis) -> str:
    """How many comparisons were made and what was adjusted."""
    n = analysis.comparisons
    if not n:
        return "No hypothesis was tested."
    return (
        f"{n} {'hypothesis was' if n == 1 else 'hypotheses were'} tested (failure rates by axis and by pair of "
        "cells, spread and mean by pair); “p, Holm” is adjusted within its axis or table. Runs of different cells "
        "share their seeds, which the tests of differences leave aside: what seeds do alike in both cancels."
    )


# ----------------------------------------------------------------------------------------------------------- how often


def incomplete(runs: pd.DataFrame) -> str:
    """`12 of the 72 planned runs are missing and 2 crashed`; empty for a complete study."""
    counts = {status: int((runs["status"] == status).sum()) for status in ("missing", "crashed", "unreadable")}
    verbs = {"missing": "is missing", "crashed": "crashed", "unreadable": "has an unreadable record"}
    plural = {"missing": "are missing", "crashed": "crashed", "unreadable": "have unreadable records"}
    parts = [f"{count} {(verbs if count == 1 else plural)[status]}" for status, count in counts.items() if count]
    if not parts:
        return ""
    number, _, rest = parts[0].partition(" ")
    parts[0] = f"{number} of the {run_count(len(runs), 'planned ')} {rest}"
    return " and ".join(parts) if len(parts) < 3 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def how_often(analysis: Analysis) -> Sentence:
    """How many runs failed, what failing means, and what is not known."""
    cells = analysis.cells
    finished, judged = int(cells["finished"].sum()), int(cells["judged"].sum())
    failed = int(cells["failed"].fillna(0).sum())
    words, row = Words("all_runs"), row_at(all_runs(analysis.study), 0)
    lacking = gaps(analysis, words, row)
    tail = f"; {lacking}." if lacking else "."
    if finished == 0:
        return words.sentence(f"no run has finished yet: {lacking}.")
    if judged == 0:
        runs = words.value(row, [], "finished", lambda n: run_count(n, "finished "))
        return words.sentence(f"it is not known whether any of {runs} failed: no majority-class score was given{tail}")
    if judged < finished:
        unjudged = words.count(
            finished - judged, "status == 'finished' and outcome not in ('ok', 'failed')",
            lambda n: run_count(n, "more finished "), "runs",
        )  # fmt: skip
        tail = f"; for {unjudged} it is not known whether they failed{tail}"
    share = ""
    if len(cells) == 1:
        words.claims.append(rate_claim(cells.iloc[0], "every run", "cells", "cell"))
        share = f" ({rate_words(words.claims[-1]).partition('(')[2]}"
    elif failed == 0:
        words.claims.append(rate_claim(row, "every run", "all_runs"))
        share = f", which is compatible with a failure rate of up to {percent(row['failed_high'])} (95 % CI)"
    of = words.value(row, [], "judged", lambda n: run_count(n, "finished "))
    text = f"{words.summary('sum', failed, 'failed')} of {of} failed{share}. {failing_means(analysis, words)}{tail}"
    return words.sentence(text)


def gaps(analysis: Analysis, words: Words, row: Row) -> str:
    """As `incomplete`, with its claims."""
    text = incomplete(analysis.runs)
    if text:
        for name in ("planned", "missing", "crashed", "unreadable"):
            if row.get(name):
                words.value(row, [], name, str)
    return text


def failing_means(analysis: Analysis, words: Words | None = None) -> str:
    """What a failed run is, with the score that it does not exceed; the claim goes to the words of a sentence."""
    runs = analysis.runs
    names = sorted({metric_names.words(str(name)) for name in runs["metric"].dropna()}) or ["score"]
    metrics = [name.removeprefix("final ") for name in names]  # an imported column may be called `final_score`
    majority = numbers(runs, "majority_score").dropna()
    scripts = [cell.script.script for sweep in analysis.study.sweeps for cell in sweep.cells[:1] if cell.script]
    if scripts and all(script.failed_below is not None for script in scripts):
        side = "below" if analysis.study.higher_is_better else "above"
        return f"Failed means a final {' / '.join(metrics)} {side} {score(scripts[0].failed_below)}"
    if not len(majority) and not analysis.study.sweeps:
        return "Whether a run failed was decided before these runs were imported"
    if not len(majority) and scripts and all(script.threshold is None for script in scripts):
        return "Whether a run failed is not known: the sweep file has neither majority nor failed_below"
    if not len(majority):
        return "Failed means a final score that is no better than always giving the same answer"
    side = "at or below" if analysis.study.higher_is_better else "at or above"
    words = words or Words("runs")
    ends: list[tuple[Summary, float]] = [("min", majority.min()), ("max", majority.max())]
    scores = (
        words.summary(kind, float(value), "majority_score", "majority_score == majority_score", score, "runs")
        for kind, value in (ends if majority.min() < majority.max() else ends[:1])
    )
    score_of = " to ".join(scores)
    level = level_to_beat(analysis.study)
    if level == "untouched model":
        return f"Failed means a final {' / '.join(metrics)} {side} that of the {level}, {score_of}"
    always = "giving" if level == "best set of labels" else "answering"
    return f"Failed means a final {' / '.join(metrics)} {side} that of always {always} the {level}, {score_of}"


# ------------------------------------------------------------------------------------------------------ rates of arms


def rates(analysis: Analysis) -> list[Sentence]:
    """The failure rate of each value of the main axis; not where these would mislead."""
    arms, axis = main_arms(analysis), main_axis(analysis.study)
    judged = arms[arms["judged"] > 0]
    if axis is None or not len(judged) or len(arms) > _MOST_ARMS or analysis.cells["failed"].fillna(0).sum() == 0:
        return []
    by = "study" if axis == SOURCE else spaced(axis)
    if not judged["balanced_counts"].all() and _pooling_misleads(analysis, judged):
        return [
            Sentence(
                f"failure rates pooled by {by} would mislead and are not given here: runs with different {by} are "
                "spread differently over the other settings."
            )
        ]
    claims = [
        rate_claim(row, setting(axis, row["value"]), "arms", "axis", "value") for row in judged.to_dict("records")
    ]
    listed, places = [], list[Claim]()
    for claim in claims:
        alone = failing_alone(analysis, axis, claim.row[1][1])
        listed.append(f"{show(claim.row[1][1])}: {rate_words(claim)}" + (f", all {alone[0]}" if alone else ""))
        places += alone[1:] if alone else []
    separator = "; " if places else ", "
    none = "".join(
        f"; no run {row['phrase']} has finished" if not row["finished"] else f"; not known for runs {row['phrase']}"
        for _, row in arms[arms["judged"] == 0].iterrows()
    )
    caveat = (
        ""
        if judged["balanced_counts"].all()
        else f" Runs with different {by} are spread differently over the other settings, so these rates are not "
        "comparable; the next sentence compares within the same settings."
    )
    return [Sentence(f"failure rate by {by}: {separator.join(listed)}{none}.{caveat}", *claims, *places)]


def _pooling_misleads(analysis: Analysis, arms: pd.DataFrame) -> bool:
    """Whether a difference of pooled rates is far from that all else equal, or has the other sign."""
    axis = main_axis(analysis.study)
    pooled = {row["value"]: row["failed"] / row["judged"] for row in arms.to_dict("records")}
    for row in analysis.contrasts[analysis.contrasts["axis"] == axis].to_dict("records"):
        if row["value"] in pooled and row["reference"] in pooled:
            difference = pooled[row["value"]] - pooled[row["reference"]]
            if unknown(row["difference"]) or difference * row["difference"] < 0:
                return True
            if abs(difference - row["difference"]) > _MISLEADING:
                return True
    return False


def all_else_equal(analysis: Analysis) -> list[Sentence]:
    """How the failure rates of the main axis differ within the same other settings: the one primary test."""
    axis = main_axis(analysis.study)
    rows = analysis.contrasts[analysis.contrasts["axis"] == axis]
    tested = [row for row in rows.to_dict("records") if not unknown(row["p"])]
    if not len(rows) or not analysis.cells["failed"].fillna(0).sum():
        return []
    if not tested:
        if (main_arms(analysis)["judged"] > 0).sum() < 2:
            return []
        return [Sentence(f"no setting was run with two values of {spaced(str(axis))}, so nothing compares them.")]
    told = [row for row in tested if can_be_shown(row)]
    if not told:
        most = max(tested, key=lambda row: int(row["judged"]) + int(row["reference_judged"]))
        return [
            Sentence(
                f"too few runs to compare failure rates by {'study' if axis == SOURCE else spaced(str(axis))}: however "
                f"{arm_sizes(most)} had ended, the test would have shown no difference."
            )
        ]
    claims = [contrast_claim(analysis, row) for row in told]
    clear = [claim for claim in claims if claim.decided]
    start = "all else equal, " if len(analysis.study.axes) > 1 else ""
    strata = max(int(row["strata"]) for row in told)
    how = f"{failure_test(analysis)}{f', {strata} settings' if strata > 1 else ''}"
    if len(claims) == 1:
        (claim,) = claims
        verb = "changes the failure rate by" if clear else "makes no significant difference to the failure rate:"
        return [
            Sentence(
                f"{start}{claim.subject} {verb} {points_words(claim.estimate)} ({how}, {p_clause(claim.p)}).", claim
            )
        ]
    by = "the study" if axis == SOURCE else spaced(str(axis))
    versus = setting(str(axis), reference(analysis.study, str(axis)))
    start += "pair by pair" if analysis.study.compared.all_pairs else f"compared with {versus}"
    note = f"{how}; Holm-adjusted over {count_noun(len(claims), 'comparison')}, each interval on its own"
    if not clear:
        text = f"{start}, no two values of {by} differ significantly in failure rate ({note})."
        if not analysis.study.compared.all_pairs:
            text = f"{start}, no other value of {by} has a significantly different failure rate ({note})."
        return [Sentence(text, *claims)]
    parts = [f"by {points_words(claim.estimate)} with {_compared(analysis, claim)}" for claim in clear[:_MOST_ARMS]]
    if len(clear) > _MOST_ARMS:
        parts.append(f"{len(clear) - _MOST_ARMS} more")
    rest = [claim for claim in claims if not claim.decided]
    others = f"; no significant difference for {_others(analysis, rest)}" if rest else ""
    return [Sentence(f"{start}, the failure rate changes {'; '.join(parts)}{others} ({note}).", *claims)]


def _others(analysis: Analysis, claims: list[Claim]) -> str:
    """The comparisons that are not decided, with what their intervals leave possible if they are few."""
    if len(claims) > _MOST_UNDECIDED:
        return f"the other {len(claims)}"
    return "; ".join(f"{_compared(analysis, claim)}, {points_words(claim.estimate)}" for claim in claims)


def _compared(analysis: Analysis, claim: Claim) -> str:
    value, first = claim.row[1][1], claim.row[2][1]
    return f"{show(value)} vs. {show(first)}" if analysis.study.compared.all_pairs else show(value)


# ------------------------------------------------------------------------------------------------------ how far it goes


def covers(analysis: Analysis) -> list[Sentence]:
    """What the results are of, and what they say nothing of."""
    study = analysis.study
    if not analysis.cells["finished"].sum():
        return []
    recipes = [cell.recipe for sweep in study.sweeps for cell in sweep.cells if cell.script is None]
    models = " / ".join(dict.fromkeys(recipe.model.name for recipe in recipes))
    tasks = " / ".join(dict.fromkeys(recipe.task.name for recipe in recipes))
    what = f"model {models} on task {tasks}" if recipes and not study.imports else "the model and task of these runs"
    least, most = int(analysis.cells["finished"].min()), int(analysis.cells["finished"].max())
    words = Words("cells")
    runs = words.summary("max", most, "finished", form=lambda n: count_noun(int(n), "run"))
    of_each = f"{'up to ' if least < most else ''}{runs}{' per recipe' if len(analysis.cells) > 1 else ''}"
    return [
        words.sentence(
            f"these results cover {what} with {of_each} and the settings that were tried; they say "
            "nothing of other models, tasks, data sizes or values."
        )
    ]


def _lacking(analysis: Analysis) -> list[Sentence]:
    """Where more runs lack than elsewhere: what is said there is of those that finished alone."""
    cells = analysis.cells
    lacking = cells["planned"] - cells["finished"]
    shares = lacking / cells["planned"].where(cells["planned"] > 0)
    uneven = shares.max() - shares.min() > _MANY_LACKING and lacking.max() - lacking.min() > 1
    if not cells["finished"].sum() or not uneven:
        return []
    row, words = row_at(cells, shares.idxmax()), Words("cells")
    finished, planned = (words.value(row, ["cell"], name, str) for name in ("finished", "planned"))
    what = "crashed, missing and unreadable" if analysis.study.unreadable else "crashed and missing"
    return [
        words.sentence(
            f"{what} runs are spread unevenly: {finished} of {planned} finished at "
            f"{analysis.study.cells[row['cell']].label}. Rates and means are of finished runs and would be biased if "
            "the others are lacking for the same reason as runs fail."
        )
    ]


# --------------------------------------------------------------------------------------------------------------- where


def where(analysis: Analysis) -> Sentence:
    """Where runs fail most, where scores spread most, and what is near chance."""
    cells, words, key = analysis.cells, Words("cells"), ["cell"]
    finished, judged, scored = (int(cells[name].sum()) for name in ("finished", "judged", "scored"))
    failed = int(cells["failed"].fillna(0).sum())
    if finished == 0:
        return Sentence("failure rates appear here once runs have finished.")
    clauses = []
    if judged and failed == judged == finished:
        small = ", so a small spread here means failure, not stability" if cells["scored"].max() > 1 else ""
        clauses.append(f"no run did better than the {level_to_beat(analysis.study)}{small}")
    elif failed and len(cells) > 1 and (worst := _worst(analysis, words)):
        clauses.append(worst)
    if scored == 0:
        clauses.append("no run has a score because all of them diverged")
    elif cells["scored"].max() == 1:
        clauses.append("one seed per cell cannot show the spread over seeds")
    elif not failed and len(cells) > 1 and cells["sd"].max() - cells["sd"].min() > _ROUNDING:
        row = row_at(cells, cells.index[cells["sd"] > cells["sd"].max() - _ROUNDING][0])
        clauses.append(
            f"the observed spread is widest at {analysis.study.cells[row['cell']].label} "
            f"(sd {words.value(row, key, 'sd', score)}, n = {words.value(row, key, 'scored', str)})"
        )
    if len(cells) == 1 and scored and (failed < judged or judged < finished):
        row = row_at(cells, 0)
        spread = f"sd {words.value(row, key, 'sd', score)}, " if row["scored"] > 1 else ""
        ends = (words.value(row, key, end, score) for end in ("min", "max"))
        range_of = f", from {' to '.join(ends)}" if spread else ""
        mean, n = words.value(row, key, "mean", score), words.value(row, key, "scored", str)
        clauses.append(f"the mean score is {mean} ({spread}n = {n}){range_of}")
    clauses += [clause for clause in (_epochs(analysis, words), _near_chance(analysis, words)) if clause]
    return words.sentence("; ".join(clauses) + "." if clauses else "")


def _near_chance(analysis: Analysis, words: Words) -> str:
    chance = int(analysis.cells["near_chance"].sum())
    more = " more" if analysis.cells["failed"].fillna(0).sum() else ""
    where = "over all recipes " if len(analysis.cells) > 1 else ""  # a clause before it may be of one recipe
    if chance < 2:
        return f"{where}one{more} run is near chance, but not counted as failed" if chance else ""
    runs = words.summary("sum", chance, "near_chance", form=lambda n: f"{n}{more} runs are")
    return f"{where}{runs} near chance, but not counted as failed"


def _worst(analysis: Analysis, words: Words) -> str:
    """Where the observed failure rate is highest: the cells, or what they have in common; empty if it is everywhere."""
    cells = analysis.cells
    rates = cells["failed"].astype(float) / cells["judged"].where(cells["judged"] > 0)
    worst = list(rates.index[rates == rates.max()])
    k, n = int(cells.loc[worst, "failed"].sum()), int(cells.loc[worst, "judged"].sum())
    if len(worst) == len(cells) or cells.loc[worst, "judged"].max() < 2:  # of one run a rate is no rate
        return ""
    named = named_cells(analysis, worst)
    which = f"cell in {(*worst, -1)}"
    if len(worst) > 1:
        of = words.count(len(cells), "True", lambda n: count_noun(n, "recipe"))
        named = f"{words.count(len(worst), which)} of {of}" + (f", {named}" if named else "")
    counts = (words.summary("sum", total, column, which) for total, column in ((k, "failed"), (n, "judged")))
    return f"the observed failure rate is highest at {named} ({' of '.join(counts)})"


def epochs_compared(analysis: Analysis) -> pd.DataFrame:
    """A row a setting that was trained with the fewest and with the most epochs: `few`, `many`, and `gain`.

    The gain is the mean score with the most epochs less that with the fewest; settings without both are left out.
    """
    study, columns = analysis.study, ["few", "many", "gain"]
    if "epochs" not in study.axes or not study.sweeps or study.sweeps[0].is_script:
        return pd.DataFrame(columns=columns)
    values = sorted(value for value in study.values("epochs") if isinstance(value, int))
    if len(values) < 2:
        return pd.DataFrame(columns=columns)
    few, many = values[0], values[-1]
    means = {cell.axes: analysis.cells["mean"][index] for index, cell in enumerate(study.cells)}
    rows = []
    for axes, mean in means.items():
        if dict(axes)["epochs"] == few:
            longer = tuple((name, many if name == "epochs" else value) for name, value in axes)
            rows.append((few, many, means.get(longer, math.nan) - mean))
    return pd.DataFrame(rows, columns=columns).dropna(ignore_index=True)


def _epochs(analysis: Analysis, words: Words) -> str:
    """In how many settings the most epochs have a higher observed mean than the fewest."""
    table = epochs_compared(analysis)
    if table.empty:
        return ""
    row = table.iloc[0]
    few, many = int(row["few"]), int(row["many"])
    higher = words.count(int((table["gain"] > 0).sum()), "gain > 0", table="epochs_compared")
    settings = words.count(len(table), "", lambda n: count_noun(n, "setting"), "epochs_compared")
    return f"{many} epochs have a higher observed mean than {few} in {higher} of {settings}"
