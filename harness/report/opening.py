"""What the tables say, in sentences: made from the numbers alone, and no further than they go."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.analysis.analyze import Analysis
from harness.analysis.cells import axes_by_weight, main_axis
from harness.common.text import show
from harness.records.study import SOURCE, numbers
from harness.report.formatting import against, interval, percent, points, rate, score, unknown
from harness.stats import proportions

NORMAL_95 = 1.96
FEW_SEEDS = 10  # runs a cell below which the report says what they can't tell


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _p(value: float) -> str:
    return "p < 0.0001" if value < 1e-4 else f"p = {value:.2g}"


def _short(arm: pd.Series) -> str:
    """The second arm of a comparison: `with it` after `without bias correction`."""
    if arm["axis"] == "bias_correction":
        return "with it" if arm["value"] else "without it"
    return str(arm["phrase"])


def _runs(n: int, kind: str = "") -> str:
    return f"{n} {kind}{'run' if n == 1 else 'runs'}"


def _counted(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def _pairs(n: int) -> str:
    return f"{_counted(n, 'pair')} of cells"


def incomplete(runs: pd.DataFrame) -> str:
    """`12 of the 72 planned runs are missing and 2 crashed`; empty for a complete study."""
    missing, crashed = (int((runs["status"] == status).sum()) for status in ("missing", "crashed"))
    if not missing and not crashed:
        return ""
    parts = [f"{missing} {'is' if missing == 1 else 'are'} missing"] if missing else []
    parts += [f"{crashed} crashed"] if crashed else []
    return f"of the {_runs(len(runs), 'planned ')} {' and '.join(parts)}"


def answer(found: Analysis) -> list[str]:
    """The sentences that open the report: how often runs fail, where, and what spread, axes, seeds and baselines say.

    Pooled rates are over the judged runs of all other settings; what is missing or crashed is said in the first.
    """
    parts = _seed_parts(found)[:1]
    sentences = [_how_often(found), _where(found), *helped(found), _drivers_in_short(found), *parts]
    sentences += against_baselines(found)[:1] if len(found.baselines) else []
    sentences += [_noise_in_short(found), _few_seeds(found)]
    return [_capital(sentence) for sentence in sentences if sentence]


# ------------------------------------------------------------------------------------------------- failing, and where


def _main_arms(found: Analysis) -> pd.DataFrame:
    """The two rows of `arms` that the opening compares; empty where no axis has two values."""
    pooled = found.arms
    two = [axis for axis in dict.fromkeys(pooled["axis"]) if (pooled["axis"] == axis).sum() == 2]
    return pooled[pooled["axis"] == two[0]] if two else pooled[:0]


def _how_often(found: Analysis) -> str:
    cells = found.cells
    finished, judged = int(cells["finished"].sum()), int(cells["judged"].sum())
    failed = int(cells["failed"].fillna(0).sum())
    gaps = incomplete(found.runs)
    tail = f"; {gaps}." if gaps else "."
    if 0 < judged < finished:
        tail = f"; whether {_runs(finished - judged, 'more finished ')} failed is not known{tail}"
    if finished == 0:
        return f"nothing is known yet: {gaps}."
    if judged == 0:
        return (
            f"whether any of {_runs(finished, 'finished ')} failed is not known: the score of the majority class was "
            f"not given{tail}"
        )
    pair = _main_arms(found)
    if failed == 0:
        upper = 100 * proportions.wilson(0, judged)[1]
        split = [f"{row['judged']} {row['phrase']}" for _, row in pair.iterrows()]
        which = f" ({' and '.join(split)})" if split else ""
        return (
            f"0 of {_runs(judged, 'finished ')}{which} failed; "
            f"the rate over these settings may still be up to {upper:.0f} % (95 % confidence){tail}"
        )
    if len(pair) == 2 and (pair["judged"] > 0).all():
        first, second = (row for _, row in pair.iterrows())
        rates = [rate(arm["failed"], arm["judged"]) for arm in (first, second)]
        p = proportions.fisher(first["failed"], first["judged"], second["failed"], second["judged"])
        caveat = "" if first["balanced"] else _shared(found, str(first["axis"]))
        return (
            f"of {_runs(first['judged'])} {first['phrase']} {first['failed']} failed ({rates[0]}), "
            f"of {second['judged']} {_short(second)} {second['failed']} "
            f"({rates[1]}; Fisher's exact {_p(p)}{caveat}){tail}"
        )
    only = pair[pair["judged"] > 0]
    lacking = "".join(f"; none {row['phrase']} is finished" for _, row in pair[pair["judged"] == 0].iterrows())
    which = f"{_runs(judged)} {only.iloc[0]['phrase']}" if len(pair) == 2 else _runs(judged, "finished ")
    return f"of {which} {failed} failed ({rate(failed, judged)}){lacking}{tail}"


def _shared(found: Analysis, axis: str) -> str:
    """What of an unbalanced comparison can be compared all else equal."""
    row = found.contrasts[found.contrasts["axis"] == axis].iloc[0]
    if not row["strata"]:
        return ", though not over the same other settings; they have none in common"
    settings = "the one setting" if row["strata"] == 1 else f"the {row['strata']} settings"
    return (
        f", though not over the same other settings; over {settings} that both have {row['reference_failed']} of "
        f"{row['reference_judged']} against {row['failed']} of {row['judged']}"
    )


def _where(found: Analysis) -> str:
    cells, labels = found.cells, [cell.label for cell in found.study.cells]
    finished, judged, scored = (int(cells[name].sum()) for name in ("finished", "judged", "scored"))
    failed = int(cells["failed"].fillna(0).sum())
    if finished == 0:
        return "how often and where runs fail stands here once some are finished."
    clauses = []
    if judged and failed == judged == finished:
        clauses.append("no run learned more than the majority class, so a small spread here is failing, not stability")
    elif failed and len(cells) > 1:
        clauses.append(_worst(found))
    if scored == 0:
        clauses.append("no run has a score, for all of them diverged")
    elif cells["scored"].max() == 1:
        clauses.append("one seed a cell does not show the spread over seeds")
    elif not failed and len(cells) > 1:
        widest = cells["sd"].idxmax()
        clauses.append(f"the spread is widest at {labels[widest]} (sd {score(cells['sd'][widest])})")
    if scored and (failed < judged or judged < finished):
        clauses.append(_level(found))
    chance = int(cells["at_chance"].sum())
    if chance:
        clauses.append(
            f"{'one more run' if chance == 1 else f'{chance} more runs'} ended at chance, not failed by the definition "
            "and not trained either"
        )
    return "; ".join(clauses) + "."


def helped(found: Analysis) -> list[str]:
    """Of named recipes or methods, three or more: which fail less than the first, which more; and so for the score."""
    axis = next((name for name in ("recipe", "method") if name in found.study.axes), None)
    values = found.study.values(axis) if axis else []
    if axis is None or len(values) < 3:
        return []
    first, said = show(values[0]), []
    rows = found.contrasts[found.contrasts["axis"] == axis]
    if rows["p"].notna().any():
        k, n = (int(rows[f"reference_{name}"].max()) for name in ("failed", "judged"))
        clear = rows["p_holm"] < 0.05
        parts = [
            f"{kind} fail with {_listed(rows[clear & side], lambda row: f'{row.failed} of {row.judged}')}"
            for kind, side in (("fewer runs", rows["difference"] < 0), ("more runs", rows["difference"] > 0))
            if (clear & side).any()
        ]
        said.append(_against(f"{axis} “{first}” ({k} of {n} failed)", parts, len(rows) - int(clear.sum()), "failing"))
    if len(found.study.axes) == 1 and len(found.pair_levels):
        pairs = found.pair_levels[found.pair_levels["reference"] == 0]
        pairs = pairs.assign(value=[dict(found.study.cells[index].axes)[axis] for index in pairs["cell"]])
        clear = pairs["p_holm"] < 0.05
        better = pairs["difference"] > 0 if found.study.higher_is_better else pairs["difference"] < 0
        parts = [
            f"the mean score is {kind} with {_listed(pairs[clear & side], lambda row: score(row.mean))}"
            for kind, side in (("better", better), ("worse", ~better))
            if (clear & side).any()
        ]
        if len(pairs):
            mean = score(float(pairs["reference_mean"].iloc[0]))
            said.append(_against(f"{axis} “{first}” (mean {mean})", parts, len(pairs) - int(clear.sum()), "the mean"))
    return said


def _listed(rows: pd.DataFrame, number: Callable[[Any], str]) -> str:
    return ", ".join(f"{show(row.value)} ({number(row)})" for row in rows.itertuples())


def _against(reference: str, parts: list[str], rest: int, of: str) -> str:
    """What differs from a reference, and of how many others that is not shown."""
    if rest:
        if parts:
            others = "the other" if rest == 1 else f"the other {rest}"
        else:
            others = "both" if rest == 2 else f"all {rest}"
        parts = [*parts, f"for {others} no difference in {of} is shown"]
    return f"against the {reference} {'; '.join(parts)} (Holm-adjusted p < 0.05)."


def _worst(found: Analysis) -> str:
    """Where the failure rate is highest: the cell, or what the cells have in common."""
    cells, places = found.cells, found.study.cells
    rates = cells["failed"].astype(float) / cells["judged"].where(cells["judged"] > 0)
    worst = list(rates.index[rates == rates.max()])
    k, n = int(cells.loc[worst, "failed"].sum()), int(cells.loc[worst, "judged"].sum())
    if len(worst) == 1:
        return f"the failure rate is highest at {places[worst[0]].label} ({k} of {n})"
    shared = [pair for pair in places[worst[0]].axes if all(pair in places[index].axes for index in worst)]
    common = (
        ", all with " + ", ".join(f"{name.replace('_', ' ')} {show(value)}" for name, value in shared) if shared else ""
    )
    return f"the failure rate is highest in {len(worst)} of {len(cells)} cells{common} ({k} of {n})"


def _level(found: Analysis) -> str:
    """Which cell has the best mean, or that the dev set does not tell; and whether more epochs raise the mean."""
    cells, higher = found.cells, found.study.higher_is_better
    best = cells["mean"].idxmax() if higher else cells["mean"].idxmin()
    row = cells.loc[best]
    spread = f"sd {score(row['sd'])}, " if row["scored"] > 1 else ""
    level = f"{score(row['mean'])} ({spread}n = {int(row['scored'])})"
    noise = sampling(found)
    if cells["mean"].notna().sum() < 2:
        return f"the mean score is {level}" + (f", from {score(row['min'])} to {score(row['max'])}" if spread else "")
    if noise is not None and not noise.tells:
        losses = _losses(found)
        return (
            f"{noise.examples} dev examples do not tell the cell means apart "
            f"({noise.lowest:.3f} to {noise.highest:.3f})" + (f", {losses}" if losses else "")
        )
    return f"the best mean score, {level}, is that of {found.study.cells[best].label}" + _epochs(found)


def _epochs(found: Analysis) -> str:
    """In how many settings the most epochs have a better mean than the fewest."""
    study = found.study
    if "epochs" not in study.axes or not study.sweeps:
        return ""
    values = sorted(value for value in study.values("epochs") if isinstance(value, int))
    if len(values) < 2:
        return ""
    few, many = values[0], values[-1]
    means = {cell.axes: found.cells["mean"][index] for index, cell in enumerate(study.cells)}
    gains = []
    for axes, mean in means.items():
        if dict(axes)["epochs"] == few:
            more = means.get(tuple((name, many if name == "epochs" else value) for name, value in axes), math.nan)
            gains.append(more - mean)
    gains = [gain for gain in gains if not np.isnan(gain)]
    if not gains:
        return ""
    return (
        f"; {many} epochs have a higher mean than {few} in {sum(gain > 0 for gain in gains)} of {len(gains)} settings"
    )


_MOST_NAMED = 3  # comparisons, in a sentence


def failing(found: Analysis) -> list[str]:
    """How sure the differences in failing are, and how much hangs on the definition."""
    said: list[str] = []
    cells = found.cells
    if not cells["judged"].sum():
        return said
    tested = found.contrasts[found.contrasts["p"].notna()]
    sure = tested["p_holm"] < 0.05
    for _, row in tested[sure].iterrows():
        said.append(
            f"{_capital(against(row['axis'], row['value'], row['reference']))}: the failure rate differs by "
            f"{interval(row, 'difference', percent)}, all else equal (Cochran-Mantel-Haenszel, Holm-adjusted "
            f"{_p(row['p_holm'])})."
        )
    rest = tested[~sure]
    if len(rest) > _MOST_NAMED:
        said.append(
            f"For {len(rest)} of {len(tested)} comparisons of failing by axis the data do not show a difference "
            "(Holm-adjusted p of 0.05 or more); that is no proof of none."
        )
    elif len(rest):
        named = "; ".join(
            f"{against(row['axis'], row['value'], row['reference'])}, {interval(row, 'difference', percent)}"
            for _, row in rest.iterrows()
        )
        said.append(
            f"No difference in failing is shown, which is no proof of none, for {named} (all else equal; each interval "
            "by itself, Holm-adjusted p of 0.05 or more)."
        )
    definitions = found.definitions
    counts = []
    floor = "variance" if found.runs["label_variance"].notna().any() else "entropy"
    words = {"binomial": "not above the majority at 5 %", "entropy": f"with the training loss at the labels' {floor}"}
    words["threshold"] = f"worse than {score(found.threshold)}"
    for name, text in words.items():
        if f"{name}_of" in definitions and definitions[f"{name}_of"].sum():
            k, n = (int(definitions[f"{name}_{part}"].sum()) for part in ("failed", "of"))
            counts.append(f"{k} of {n} {text}")
    if counts:
        k, n = (int(definitions[f"majority_{part}"].sum()) for part in ("failed", "of"))
        said.append(f"By the definition {k} of {_runs(n)} failed; by others {', '.join(counts)}.")
    return said


def spreading(found: Analysis) -> list[str]:
    """What the spread is made of: no cell where all fail is taken for stable."""
    said = []
    table, labels = found.spread, [cell.label for cell in found.study.cells]
    cells = found.cells
    all_failed = [
        index
        for index in table.index
        if cells["judged"][index] > 1 and cells["failed"][index] == cells["judged"][index]
    ]
    if all_failed:
        named = "; ".join(labels[index] for index in all_failed[:4]) + ("; …" if len(all_failed) > 4 else "")
        said.append(
            f"In {len(all_failed)} of {_counted(len(table), 'cell')} every run failed ({named}): a small sd there is "
            "failing, not stability."
        )
    mixed = table[(table["between"] > 0.5) & (table["failed"] > 0)]
    if len(mixed):
        widest = mixed["sd"].idxmax()
        ok = table["ok_sd"][widest]
        alone = "" if unknown(ok) else f"; the successful alone have sd {score(ok)}"
        said.append(
            f"In {_counted(len(mixed), 'cell')} most of the variance lies between failed and "
            f"successful runs ({percent(table['between'][widest])} of it at {labels[widest]}{alone})."
        )
    return said


def levelling(found: Analysis) -> list[str]:
    """Which pairs of cells differ in their means after Holm's adjustment."""
    table = found.pair_levels
    if not len(table):
        return []
    sure = table[table["p_holm"] < 0.05]
    known = int(table["welch"].notna().sum())
    if not known:
        return ["No pair of cells has two scores on both sides that spread: their means cannot be compared."]
    return [
        f"Of {_pairs(known)} that differ in {_axis_name(found)} alone, the mean score differs in {len(sure)} after "
        "Holm's adjustment (Welch)."
    ]


def _axis_name(found: Analysis) -> str:
    axis = main_axis(found.study)
    return "" if axis is None else "the study" if axis == SOURCE else axis.replace("_", " ")


# ------------------------------------------------------------------------------------------- the noise of the dev set


@dataclass(frozen=True)
class Sampling:
    """What a finite dev set allows to tell; accuracies as fractions."""

    examples: int
    near: float  # the mean final accuracy, at which the error is taken
    error: float  # binomial standard deviation of one accuracy
    needed: float  # difference of two single runs that 95 % asks for, were their errors independent
    lowest: float  # cell means
    highest: float

    @property
    def tells(self) -> bool:
        """Whether the largest difference between cell means is beyond what two single runs differ by by chance."""
        return self.highest - self.lowest >= self.needed


def sampling(found: Analysis) -> Sampling | None:
    """The sampling error of one accuracy on the (smallest) dev set; None for other metrics and without scores."""
    floor = found.noise_floor
    known = floor[(floor["known_from"] != "")]
    metrics = set(found.runs["metric"].dropna())
    if not len(known) or not (metrics == {"accuracy"} or (known["known_from"] == "counts").all()):
        return None
    scored = numbers(found.runs[found.runs["status"] == "finished"], "final_score").dropna()
    examples, near = int(known["examples"].min()), float(scored.mean())
    error = float(np.sqrt(near * (1 - near) / examples))
    means = found.cells["mean"].dropna()
    return Sampling(examples, near, error, NORMAL_95 * 2**0.5 * error, float(means.min()), float(means.max()))


def _losses(found: Analysis) -> str:
    """How the training losses of the two main arms compare; empty where they are not known."""
    pair = _main_arms(found).dropna(subset=["loss"])
    if len(pair) != 2:
        return ""
    first, second = (row for _, row in pair.iterrows())
    low, high = (first, second) if first["loss"] < second["loss"] else (second, first)
    apart = low["loss_max"] < high["loss_min"]
    verdict = "no two runs overlap: the losses tell the arms apart" if apart else "single runs overlap"
    return (
        f"mean training loss in the last epoch {first['loss']:.3f} {first['phrase']}, "
        f"{second['loss']:.3f} {_short(second)} ({verdict})"
    )


def _trained(found: Analysis) -> pd.DataFrame:
    """The cells whose spread has something to tell of training: answers kept, some spread, and no failed run."""
    floor = found.noise_floor
    clean = (found.cells["failed"].fillna(0) == 0).to_numpy()
    return floor[clean & floor["dev_share"].notna().to_numpy() & (floor["runs"] > 2)]


def _noise_in_short(found: Analysis) -> str:
    table = _trained(found)
    if not len(table):
        return ""
    share, sizes = float(table["dev_share"].median()), table["examples"].unique()
    examples = f" of {sizes[0]} examples" if len(sizes) == 1 else ""
    where = "cells where no run failed" if len(table) > 1 else "cell where no run failed"
    return (
        f"in the {len(table) if len(table) > 1 else ''} {where} ".replace("  ", " ")
        + f"the finite dev set{examples} makes {percent(share)} of the variance over seeds"
        + (" (median)" if len(table) > 1 else "")
        + (": most of what is left of the spread is noise of measuring" if share > 0.5 else "")
        + "."
    )


def noise(found: Analysis) -> list[str]:
    """What the dev set can and cannot tell; empty before anything has a score."""
    said, losses = [], _losses(found)
    sample = sampling(found)
    if sample is not None:
        said.append(
            f"One accuracy near {sample.near:.2f} on {sample.examples} dev examples has a sampling error (one standard "
            f"deviation) of {points(sample.error)}; two single runs must differ by about {points(sample.needed)} "
            "before 95 % confidence tells them apart, were their errors independent (runs on the same examples share "
            "part of theirs, and a mean over seeds averages training noise, not the choice of examples)."
        )
        gap = sample.highest - sample.lowest
        if gap > 0 and sample.tells:
            said.append(f"The largest difference between cell means is {points(gap)}, beyond that.")
        elif gap > 0:
            said.append(
                f"The largest difference between cell means is {points(gap)}, within that: {sample.examples} examples "
                f"do not tell {sample.lowest:.3f} from {sample.highest:.3f}, and the means do not rank the recipes."
            )
    elif found.cells["scored"].sum():
        said.append("The sampling error of this metric on a finite dev set has no simple formula and is not given.")
    floor = found.noise_floor
    if (floor["known_from"] == "counts").any():
        said.append(
            "Only scores and numbers of examples are known, not the single answers: how much of the spread is training "
            "and how much the choice of dev examples cannot be told apart."
        )
    for _, row in _trained(found).nlargest(1, "observed").iterrows():
        label = found.study.cells[row["cell"]].label
        said.append(
            f"At {label}, the widest cell without a failed run, accuracies spread by {points(row['observed'])} over "
            f"{row['runs']} seeds; an infinite dev set would leave {points(row['training'])} "
            f"[{100 * row['training_low']:.1f}, {100 * row['training_high']:.1f}] of that, and two runs disagree on "
            f"{percent(row['disagreement'], 1)} of the examples."
        )
    table = found.pair_noise.dropna(subset=["difference_low"])
    if len(table):
        sure = (table["difference_low"] > 0) | (table["difference_high"] < 0)
        said.append(
            f"With the choice of dev examples counted in, {int(sure.sum())} of {_counted(len(table), 'pair')} of cells "
            f"that differ in {_axis_name(found)} alone differ in accuracy (95 %, each pair by itself)."
        )
    return [*said, *([f"{_capital(losses)}."] if losses else [])]


# --------------------------------------------------------------------------------------------- seeds, best of n, axes


def _few_seeds(found: Analysis) -> str:
    judged = found.cells["judged"][found.cells["judged"] > 0]
    if not len(judged) or judged.median() >= FEW_SEEDS:
        return ""
    n = int(judged.median())
    upper = 100 * proportions.wilson(0, n)[1]
    return (
        f"{n} {'seed' if n == 1 else 'seeds'} a cell cannot tell 0 % from {upper:.0f} %: "
        f"the interval of 0 failed in {n} is 0–{upper:.0f} %."
    )


def scored(found: Analysis) -> list[str]:
    """What is not told of a token task, and why."""
    if "f1_entity" not in set(found.runs["metric"].dropna()):
        return []
    return [
        "The score is the F1 of entities, right in start, end and type; a run failed that found none rightly, as "
        "always answering O does. What needs one answer an example is not shown for token tasks: the noise of the dev "
        "set, agreement, flips, confusion, calibration, differences to baselines."
    ]


def calibrated(found: Analysis) -> list[str]:
    """How far confidence and accuracy lie apart, and which classes are never answered."""
    table, labels = found.calibration, [cell.label for cell in found.study.cells]
    if not len(table):
        return []
    cells = table.groupby("cell", sort=False)[["ece", "accuracy", "confidence"]].mean()
    low, high = cells["ece"].idxmin(), cells["ece"].idxmax()
    over = cells["confidence"][high] - cells["accuracy"][high]
    side = "above" if over > 0 else "below"
    where = f"from {score(cells['ece'][low])} ({labels[low]}) to " if len(cells) > 1 else ""
    at = f" ({labels[high]})" if len(cells) > 1 else ""
    said = [
        f"The expected calibration error, a mean over runs, is {where}{score(cells['ece'][high])}{at}, where the mean "
        f"confidence lies {points(abs(over))} {side} the accuracy."
    ]
    never = found.confusion[(found.confusion["answered"] == 0) & (found.confusion["examples"] > 0)]
    if len(never):
        count = never["cell"].nunique()
        said.append(f"In {_counted(count, 'cell')} no run ever answers some class that the dev set has.")
    return said


def against_baselines(found: Analysis) -> list[str]:
    """Whether the best cell beats the best of the simple classifiers, and by how much."""
    study, said = found.study, []
    lacking = [name for sweep in study.sweeps for name in sweep.baselines]
    lacking = [name for name in dict.fromkeys(lacking) if name not in set(found.baselines["what"])]
    for task, here in found.baselines.groupby("task", sort=False):
        cells, others = here[here["cell"].notna() & here["mean"].notna()], here[here["cell"].isna()]
        if not len(cells):
            continue
        top, other = cells.loc[cells["mean"].idxmax()], others.loc[others["mean"].idxmax()]
        gap, where = top["mean"] - other["mean"], f"On {task} the" if found.baselines["task"].nunique() > 1 else "The"
        text = (
            f"{where} best cell, {top['what']} (mean {score(top['mean'])} of {_runs(int(top['runs']))}), "
            + ("equals" if abs(gap) < 1e-12 else f"is {score(abs(gap))} {'above' if gap > 0 else 'below'}")
            + f" the best baseline, {other['what']} ({score(other['mean'])}"
            + (f" of {_runs(int(other['runs']))}" if other["runs"] > 1 else "")
            + ")"
        )
        low, high = top["difference_low"], top["difference_high"]
        if not unknown(low):
            side = "beats it" if low > 0 else "falls short of it" if high < 0 else "is not told from it"
            bounds = f"{points(top['difference'])} [{100 * low:.1f}, {100 * high:.1f}]".replace("-", "−")
            text += f"; the difference in accuracy over seeds and the same dev examples is {bounds}: fine-tuning {side}"
            text += " (the best cell was picked on these examples, which flatters it)" if len(cells) > 1 else ""
        said.append(f"{text}.")
        below = int((cells["mean"] <= other["mean"]).sum())
        if 0 != below < len(cells):
            said.append(f"{below} of {len(cells)} cells have a mean at or below {other['what']}'s.")
    kinds = found.baselines[found.baselines["cell"].isna()].drop_duplicates("what")
    if len(kinds):
        said.append("; ".join(f"{row['what']}: {row['settings']}" for _, row in kinds.iterrows()) + ".")
    if lacking:
        said.append(
            f"Of the baselines that the sweep asks for {', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not "
            "trained on these data yet: the next `harness sweep` does it."
        )
    return said


def best(found: Analysis) -> list[str]:
    """What reporting the best seed instead of the mean makes of the scores."""
    table = found.best_of_n
    if not len(table):
        return []
    by_cell = table.groupby("cell")["expected"].agg(["first", "last"])
    gain = (by_cell["last"] - by_cell["first"]).abs()
    widest = gain.idxmax()
    n = int(table[table["cell"] == widest]["n"].max())
    if n < 2:
        return []
    said = [
        f"Reporting the best of {n} seeds instead of one run changes the score by {score(gain[widest])}, from "
        f"{score(by_cell['first'][widest])} to {score(by_cell['last'][widest])}, at {found.study.cells[widest].label}."
    ]
    high = found.selection.dropna(subset=["too_high"])
    clean = high[(found.cells["failed"].fillna(0) == 0).to_numpy()[high["cell"].astype(int)]]
    if len(clean):  # where runs fail, the best is more than a lucky one
        high = clean
    if len(high) and high["too_high"].max() > 0:
        row = high.loc[high["too_high"].idxmax()]
        source = "on the test set" if row["known_from"] == "test" else "on the half of the dev set that did not pick it"
        said.append(
            f"The picked seed's dev score is too high by up to {score(row['too_high'])} "
            f"({found.study.cells[row['cell']].label}), measured {source}."
        )
    return said


def budget(found: Analysis) -> list[str]:
    """How many seeds would settle it."""
    said = []
    few = _few_seeds(found)
    if few:
        said.append(_capital(few))
    for name, test in (("for_failure", "failure rates"), ("for_mean", "means")):
        known = found.needed.dropna(subset=[name])
        if not len(known):
            continue
        enough = known[known[name] <= known["now"]]
        short = known[known[name] > known["now"]]
        text = f"The {test} of {len(enough)} of {_pairs(len(found.needed))} are told apart by the seeds there are"
        if len(short):
            row = short.loc[short[name].astype(int).idxmin()]
            text += (
                f"; the next, {found.study.cells[row['cell']].label}, would take {row[name]} seeds a cell "
                f"({row['now']} now)"
            )
        said.append(f"{text} (power 80 %, 5 %, would further runs fall out as these did).")
    return said


def _drivers_in_short(found: Analysis) -> str:
    study = found.study
    if len(axes_by_weight(study)) < 2:
        return ""
    clauses = []
    failing_table, score_table = found.drivers_of_failing, found.drivers_of_score
    known = failing_table.dropna(subset=["share"]) if len(failing_table) else failing_table
    if len(known) > 1 and known["p"].min() < 0.05:
        top = known.loc[known["share"].idxmax()]
        clauses.append(f"failing hangs most on {_words(top['factor'])} ({percent(top['share'])} of the explained χ²)")
    terms = score_table[(score_table["term"] != "residual")] if len(score_table) else score_table
    terms = terms.dropna(subset=["eta_squared"]) if len(terms) else terms
    terms = terms[terms["p"] < 0.05] if len(terms) > 1 else terms[:0]
    if len(terms):
        top = terms.loc[terms["eta_squared"].idxmax()]
        residual = score_table[score_table["term"] == "residual"]["eta_squared"]
        seeds = f", seeds within cells for {percent(float(residual.iloc[0]))}" if len(residual) else ""
        clauses.append(
            f"{_words(top['term'])} accounts for {percent(top['eta_squared'])} of the variance of the score{seeds}"
        )
    return "; ".join(clauses) + "." if clauses else ""


def _words(term: str) -> str:
    return term.replace("_", " ")


def drivers(found: Analysis) -> list[str]:
    """Which settings drive score and failing; what the shares mean."""
    short = _drivers_in_short(found)
    if not axes_by_weight(found.study):
        return ["Nothing varies but the seed, so there is nothing to rank."]
    if not found.cells["finished"].sum():
        return ["What drives score and failing stands here once runs are finished."]
    said = [_capital(short)] if short else []
    if not len(found.drivers_of_failing) or unknown(found.drivers_of_failing["share"].max()):
        failed, judged = int(found.cells["failed"].fillna(0).sum()), int(found.cells["judged"].sum())
        why = f"{failed} of {_runs(judged)} failed" if judged else "whether runs failed is not known"
        if 0 < failed < judged:
            why = "; ".join(f"{_words(row['factor'])} {row['note']}" for _, row in found.drivers_of_failing.iterrows())
        said.append(f"What drives failing cannot be told: {why}.")
    return said


def seeds(found: Analysis) -> list[str]:
    """Which seed part makes the spread, where the parts are crossed."""
    table = found.seed_factors
    if not len(table):
        together = (
            "One integer drives head, order and dropout of each run: their parts in the spread cannot be told apart. "
            "Cross them (`init_seed: 1..5`, `order_seed: 1..5`) to see."
        )
        return [together] if found.study.sweeps else []
    lacking = [f"Variance components are not known: {why}." for why in sorted(set(table["reason"]) - {""})]
    return [*map(_capital, _seed_parts(found)[:6]), *lacking]


def _seed_parts(found: Analysis) -> list[str]:
    """For each cell whose seed parts are crossed, the part that makes most of the variance of score and failing."""
    table, said = found.seed_factors, []
    for cell, here in table[table["reason"] == ""].groupby("cell", sort=False):
        where = f"at {found.study.cells[int(cell)].label}, " if len(found.study.cells) > 1 else ""
        for of, words in (("score", "the variance of the score"), ("failing", "the variance of failing (0 or 1)")):
            parts = here[(here["of"] == of) & here["share"].notna()]
            single = parts[~parts["term"].str.contains("×")]
            if not len(single):
                continue
            top = single.loc[single["share"].idxmax()]
            bounds = [percent(top[name]).removesuffix(" %") for name in ("low", "high")]
            rest = float(parts["share"].sum() - single["share"].sum())
            said.append(
                f"{where}of the parts of the seed {_part(top['term'])} alone makes the largest part of {words}, "
                f"{percent(top['share'])} [{', '.join(bounds)}]; {percent(rest)} is parts together, and what is left."
            )
    return said


def _part(term: str) -> str:
    """Names of seed parts in words: `the order of the data`."""
    words = {"init": "the head's initialisation", "order": "the order of the data", "dropout": "dropout"}
    return " with ".join(words.get(part, part) for part in term.replace("_seed", "").split(" + "))


def multiplicity(found: Analysis) -> str:
    """How many comparisons were made and what was adjusted."""
    n = found.comparisons
    if not n:
        return "No hypothesis was tested."
    return (
        f"{n} {'hypothesis was' if n == 1 else 'hypotheses were'} tested (failing by axis and by pairs of cells, "
        "spread and level by pairs); “p, Holm” is adjusted within its table. Runs of different cells share their "
        "seeds, which the tests leave aside."
    )
