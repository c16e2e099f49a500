"""What the runs say, as tables and sentences: failure rates with intervals, spread, arms, noise of the dev set."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from harness.sweep import Scalar, Sweep, show

LEVEL = 0.05  # one-sided, for "not above the majority"
NEAR_ENTROPY = 0.95  # a training loss of this share of the labels' entropy has learned next to nothing
NORMAL_95 = 1.96


# ------------------------------------------------------------------------------------------------- intervals, marks


def wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval for a rate of k in n, as fractions; (NaN, NaN) for n = 0 (Wilson 1927, by scipy)."""
    if n == 0:
        return float("nan"), float("nan")
    interval = stats.binomtest(int(k), int(n)).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def rate(k: int, n: int) -> str:
    """A failure rate as people read it, `63 % [46, 78]` with Wilson's 95 % interval; `not known` for n = 0."""
    if n == 0:
        return "not known"
    low, high = wilson(k, n)
    return f"{100 * k / n:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def _numbers(table: pd.DataFrame, column: str) -> pd.Series:
    return pd.to_numeric(table[column]).astype(float)


def _finished(table: pd.DataFrame) -> pd.Series:
    return table["status"] == "finished"


def _failed(table: pd.DataFrame) -> pd.Series:
    return _finished(table) & (table["outcome"] == "failed")


def at_chance(table: pd.DataFrame) -> pd.Series:
    """Which finished runs are above the majority by count, yet not told from it: not trained, though not failed.

    True where the right answers are not above the majority's share at 5 % (one-sided exact binomial test) and the mean
    training loss of the last epoch is at least 0.95 of the labels' entropy. False for failed runs, and where either is
    not known (a regression).
    """
    right, examples = _numbers(table, "correct"), _numbers(table, "dev_examples")
    share = _numbers(table, "majority_correct") / examples
    p_value = pd.Series(stats.binom.sf(right - 1, examples, share), index=table.index)  # NaN where not known
    flat = _numbers(table, "final_train_loss") >= NEAR_ENTROPY * _numbers(table, "label_entropy")
    return _finished(table) & (table["outcome"] == "ok") & (p_value > LEVEL) & flat


# ------------------------------------------------------------------------------------------------------------ tables


def cells(sweep: Sweep, table: pd.DataFrame) -> pd.DataFrame:
    """One row a cell, in the plan's order: counts, failure rate and the spread of the scores.

    Columns: one per axis; `planned`, `finished`, `crashed`, `missing`; `scored` (finished with a score: a run that
    diverged has none); `failed` of `finished` with Wilson's bounds `failed_low`, `failed_high`; `constant`, `diverged`,
    `collapsed` (reasons of the failed); `at_chance`; `mean`, `sd` (n - 1), `min`, `median`, `max` of the final score
    over the scored; `best_mean` of the best score; `loss` (mean of the last epoch's training loss, nats); `majority`.
    NaN where not known.
    """
    marked = at_chance(table)
    rows = []
    for index, cell in enumerate(sweep.cells):
        here = table[table["cell"] == index]
        done = here[_finished(here)]
        scores = _numbers(done, "final_score").dropna()
        failed = int(_failed(here).sum())
        low, high = wilson(failed, len(done))
        row: dict[str, object] = dict(cell.axes)
        row |= {
            "planned": len(here),
            "finished": len(done),
            "crashed": int((here["status"] == "crashed").sum()),
            "missing": int((here["status"] == "missing").sum()),
            "scored": len(scores),
            "failed": failed,
            "failed_low": low,
            "failed_high": high,
        }
        row |= {reason: int((done["reason"] == reason).sum()) for reason in ("constant", "diverged", "collapsed")}
        row |= {
            "at_chance": int(marked[here.index].sum()),
            "mean": scores.mean(),
            "sd": scores.std(ddof=1),
            "min": scores.min(),
            "median": scores.median(),
            "max": scores.max(),
            "best_mean": _numbers(done, "best_score").mean(),
            "loss": _numbers(done, "final_train_loss").mean(),
            "majority": _numbers(done, "majority_score").mean(),
        }
        rows.append(row)
    result = pd.DataFrame(rows)
    for axis in sweep.axes:  # as objects: pandas would turn an axis of 1.0 and `none` into 1.0 and NaN
        result[axis] = pd.Series([dict(cell.axes)[axis] for cell in sweep.cells], dtype=object)
    return result


def _values(sweep: Sweep, axis: str) -> list[Scalar]:
    return list(dict.fromkeys(dict(cell.axes)[axis] for cell in sweep.cells))


def _phrase(axis: str, value: Scalar) -> str:
    """`without bias correction`, `of the recipe usual`, `with epochs 3`."""
    if axis == "bias_correction":
        return "with bias correction" if value else "without bias correction"
    return f"of the recipe {show(value)}" if axis == "recipe" else f"with {axis} {show(value)}"


def arms(sweep: Sweep, table: pd.DataFrame) -> pd.DataFrame:
    """Failures pooled for each value of each axis; bias correction first, then named recipes, then as in the plan.

    Columns: `axis`, `value`, `phrase` (how a sentence names it), `planned`, `finished`, `failed`, `failed_low`,
    `failed_high` (Wilson, 95 %), `mean` (of the final scores), `loss`, `loss_min`, `loss_max` (last epoch's training
    loss, nats), `p` (Fisher's exact test, two-sided, of an axis with two values; else NaN), and `balanced`: whether all
    values of the axis were planned over the same other settings.
    """
    rows = []
    order = sorted(sweep.axes, key=lambda axis: (axis != "bias_correction", axis != "recipe"))
    for axis in order:
        values = _values(sweep, axis)
        found: list[dict[str, object]] = []
        counts, settings = [], []
        for value in values:
            members = [i for i, cell in enumerate(sweep.cells) if dict(cell.axes)[axis] == value]
            others = [tuple(pair for pair in sweep.cells[i].axes if pair[0] != axis) for i in members]
            here = table[table["cell"].isin(members)]
            done = here[_finished(here)]
            loss = _numbers(done, "final_train_loss")
            failed = int(_failed(here).sum())
            low, high = wilson(failed, len(done))
            counts.append((failed, len(done) - failed))
            settings.append(set(others))
            found.append(
                {"axis": axis, "value": value, "phrase": _phrase(axis, value), "planned": len(here)}
                | {"finished": len(done), "failed": failed, "failed_low": low, "failed_high": high}
                | {"mean": _numbers(done, "final_score").mean()}
                | {"loss": loss.mean(), "loss_min": loss.min(), "loss_max": loss.max()}
            )
        testable = len(values) == 2 and all(sum(count) for count in counts)
        p = float(stats.fisher_exact(counts).pvalue) if testable else float("nan")
        balanced = all(other == settings[0] for other in settings)
        rows += [row | {"p": p, "balanced": balanced} for row in found]
    columns = ["axis", "value", "phrase", "planned", "finished", "failed", "failed_low", "failed_high"]
    columns += ["mean", "loss", "loss_min", "loss_max", "p", "balanced"]
    result = pd.DataFrame(rows, columns=columns)
    result["value"] = pd.Series([row["value"] for row in rows], dtype=object)
    return result


def rerun_command(sweep: Sweep, trial: str, prefix: str | None = None) -> str:
    """The command that trains one trial again; `prefix` stands before `--trial` where the default does not fit."""
    prefix = prefix or f"harness rerun {shlex.quote(sweep.name)} --profile {shlex.quote(sweep.profile)}"
    return f"{prefix} --trial {trial}"


def seed_name(run: pd.Series) -> str:
    """The seed of a run of the table; its three parts where one integer does not drive them all."""
    init, order, dropout = (run[f"{part}_seed"] for part in ("init", "order", "dropout"))
    together = run["seed"] == init == order == dropout
    return str(run["seed"]) if together else f"init {init}, order {order}, dropout {dropout}"


def failed_runs(sweep: Sweep, table: pd.DataFrame, prefix: str | None = None) -> pd.DataFrame:
    """The failed runs and those at chance, in the plan's order, each with the command that trains it again.

    Columns: `trial`, `cell` (its index), `seed`, `verdict` (`failed` or `at chance`), `reason`, `score`, `best`,
    `majority`, `loss`, `command`.
    """
    marked = at_chance(table)
    chosen = table[_failed(table) | marked]
    return pd.DataFrame(
        {
            "trial": chosen["trial"],
            "cell": chosen["cell"],
            "seed": [seed_name(run) for _, run in chosen.iterrows()],
            "verdict": np.where(marked[chosen.index], "at chance", "failed"),
            "reason": [reason if isinstance(reason, str) else "" for reason in chosen["reason"]],
            "score": _numbers(chosen, "final_score"),
            "best": _numbers(chosen, "best_score"),
            "majority": _numbers(chosen, "majority_score"),
            "loss": _numbers(chosen, "final_train_loss"),
            "command": [rerun_command(sweep, trial, prefix) for trial in chosen["trial"]],
        }
    ).reset_index(drop=True)


# ------------------------------------------------------------------------------------------- the noise of the dev set


@dataclass(frozen=True)
class Noise:
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


def noise(sweep: Sweep, table: pd.DataFrame) -> Noise | None:
    """The sampling error of one accuracy on the (smallest) dev set; None for other metrics and without scores."""
    scored = table[_finished(table) & _numbers(table, "final_score").notna()]
    if scored.empty or set(scored["metric"]) != {"accuracy"}:
        return None
    examples = int(_numbers(scored, "dev_examples").min())
    near = float(_numbers(scored, "final_score").mean())
    error = float(np.sqrt(near * (1 - near) / examples))
    means = cells(sweep, table)["mean"].dropna()
    return Noise(examples, near, error, NORMAL_95 * 2**0.5 * error, float(means.min()), float(means.max()))


def _main_arms(sweep: Sweep, table: pd.DataFrame) -> pd.DataFrame:
    """The two rows of `arms` that the opening compares; empty where no axis has two values."""
    pooled = arms(sweep, table)
    two = [axis for axis in dict.fromkeys(pooled["axis"]) if (pooled["axis"] == axis).sum() == 2]
    return pooled[pooled["axis"] == two[0]] if two else pooled[:0]


def _losses(sweep: Sweep, table: pd.DataFrame) -> str:
    """How the training losses of the two main arms compare; empty where they are not known."""
    pair = _main_arms(sweep, table).dropna(subset=["loss"])
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


def noise_note(sweep: Sweep, table: pd.DataFrame) -> list[str]:
    """What the dev set can and cannot tell, as sentences; empty before anything has a score.

    The sampling error is the binomial standard deviation sqrt(p (1 - p) / examples).
    """
    found, losses = noise(sweep, table), _losses(sweep, table)
    note = []
    if found is not None:
        note.append(
            f"One accuracy near {found.near:.2f} on {found.examples} dev examples has a sampling error (one standard "
            f"deviation) of {_points(found.error)}; two single runs must differ by about {_points(found.needed)} "
            "before 95 % confidence tells them apart, were their errors independent (runs on the same examples share "
            "part of theirs, and a mean over seeds averages training noise, not the choice of examples)."
        )
        gap = found.highest - found.lowest
        if gap > 0 and found.tells:
            note.append(f"The largest difference between cell means is {_points(gap)}, beyond that.")
        elif gap > 0:
            note.append(
                f"The largest difference between cell means is {_points(gap)}, within that: {found.examples} examples "
                f"do not tell {found.lowest:.3f} from {found.highest:.3f}, and the means do not rank the recipes."
            )
    elif _numbers(table, "final_score").notna().any():
        note.append("The sampling error of this metric on a finite dev set has no simple formula and is not given.")
    if losses:
        note.append(f"{_capital(losses)}.")
    return note


# ------------------------------------------------------------------------------------------------------- the sentences


def _points(fraction: float) -> str:
    return f"{100 * fraction:.1f} points"


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


def incomplete(table: pd.DataFrame) -> str:
    """`12 of the 72 planned runs are missing and 2 crashed`; empty for a complete sweep."""
    missing, crashed = (int((table["status"] == status).sum()) for status in ("missing", "crashed"))
    if not missing and not crashed:
        return ""
    parts = [f"{missing} {'is' if missing == 1 else 'are'} missing"] if missing else []
    parts += [f"{crashed} crashed"] if crashed else []
    return f"of the {_runs(len(table), 'planned ')} {' and '.join(parts)}"


def answer(sweep: Sweep, table: pd.DataFrame) -> list[str]:
    """The two sentences that open the report, made from the numbers: how often runs fail, and where.

    Pooled rates are over the finished runs of all other settings; what is missing or crashed is said in the first.
    """
    return [_capital(_how_often(sweep, table)), _capital(_where(sweep, table))]


def _how_often(sweep: Sweep, table: pd.DataFrame) -> str:
    finished, failed = int(_finished(table).sum()), int(_failed(table).sum())
    gaps = incomplete(table)
    tail = f"; {gaps}." if gaps else "."
    if finished == 0:
        return f"nothing is known yet: {gaps}."
    pair = _main_arms(sweep, table)
    if failed == 0:
        upper = 100 * wilson(0, finished)[1]
        split = [f"{row['finished']} {row['phrase']}" for _, row in pair.iterrows()]
        which = f" ({' and '.join(split)})" if split else ""
        return (
            f"0 of {_runs(finished, 'finished ')}{which} failed; "
            f"the rate over these settings may still be up to {upper:.0f} % (95 % confidence){tail}"
        )
    if len(pair) == 2 and (pair["finished"] > 0).all():
        first, second = (row for _, row in pair.iterrows())
        rates = [rate(arm["failed"], arm["finished"]) for arm in (first, second)]
        caveat = "" if first["balanced"] else ", though not over the same other settings"
        return (
            f"of {_runs(first['finished'])} {first['phrase']} {first['failed']} failed ({rates[0]}), "
            f"of {second['finished']} {_short(second)} {second['failed']} "
            f"({rates[1]}; Fisher's exact {_p(first['p'])}{caveat}){tail}"
        )
    only = pair[pair["finished"] > 0]
    lacking = "".join(f"; none {row['phrase']} is finished" for _, row in pair[pair["finished"] == 0].iterrows())
    which = f"{_runs(finished)} {only.iloc[0]['phrase']}" if len(pair) == 2 else _runs(finished, "finished ")
    return f"of {which} {failed} failed ({rate(failed, finished)}){lacking}{tail}"


def _where(sweep: Sweep, table: pd.DataFrame) -> str:
    by_cell = cells(sweep, table)
    finished, failed, scored = (int(by_cell[name].sum()) for name in ("finished", "failed", "scored"))
    if finished == 0:
        return "how often and where runs fail stands here once some are finished."
    clauses = []
    if failed == finished:
        clauses.append("no run learned more than the majority class, so a small spread here is failing, not stability")
    elif failed and len(by_cell) > 1:
        clauses.append(_worst(sweep, by_cell))
    if scored == 0:
        clauses.append("no run has a score, for all of them diverged")
    elif by_cell["scored"].max() == 1:
        clauses.append("one seed a cell does not show the spread over seeds")
    elif not failed and len(by_cell) > 1:
        widest = by_cell["sd"].idxmax()
        clauses.append(f"the spread is widest at {sweep.cells[widest].label} (sd {by_cell['sd'][widest]:.3f})")
    if scored and failed < finished:
        clauses.append(_level(sweep, table, by_cell))
    chance = int(by_cell["at_chance"].sum())
    if chance:
        clauses.append(
            f"{'one more run' if chance == 1 else f'{chance} more runs'} ended at chance, not failed by the definition "
            "and not trained either"
        )
    return "; ".join(clauses) + "."


def _worst(sweep: Sweep, by_cell: pd.DataFrame) -> str:
    """Where the failure rate is highest: the cell, or what the cells have in common."""
    rates = by_cell["failed"] / by_cell["finished"].where(by_cell["finished"] > 0)
    worst = list(rates.index[rates == rates.max()])
    k, n = int(by_cell.loc[worst, "failed"].sum()), int(by_cell.loc[worst, "finished"].sum())
    if len(worst) == 1:
        return f"the failure rate is highest at {sweep.cells[worst[0]].label} ({k} of {n})"
    shared = [pair for pair in sweep.cells[worst[0]].axes if all(pair in sweep.cells[index].axes for index in worst)]
    common = (
        ", all with " + ", ".join(f"{name.replace('_', ' ')} {show(value)}" for name, value in shared) if shared else ""
    )
    return f"the failure rate is highest in {len(worst)} of {len(by_cell)} cells{common} ({k} of {n})"


def _level(sweep: Sweep, table: pd.DataFrame, by_cell: pd.DataFrame) -> str:
    """Which cell has the best mean, or that the dev set does not tell; and whether more epochs raise the mean."""
    known = by_cell["mean"].notna().sum()
    best = by_cell["mean"].idxmax()
    row = by_cell.loc[best]
    spread = f"sd {row['sd']:.3f}, " if row["scored"] > 1 else ""
    level = f"{row['mean']:.3f} ({spread}n = {int(row['scored'])})"
    found = noise(sweep, table)
    if known < 2:
        return f"the mean score is {level}" + (f", from {row['min']:.3f} to {row['max']:.3f}" if spread else "")
    if found is not None and not found.tells:
        losses = _losses(sweep, table)
        return (
            f"{found.examples} dev examples do not tell the cell means apart "
            f"({found.lowest:.3f} to {found.highest:.3f})" + (f", {losses}" if losses else "")
        )
    return f"the best mean score, {level}, is that of {sweep.cells[best].label}" + _epochs(sweep, by_cell)


def _epochs(sweep: Sweep, by_cell: pd.DataFrame) -> str:
    """In how many settings the most epochs have a higher mean than the fewest."""
    if "epochs" not in sweep.axes:
        return ""
    values = sorted(int(str(value)) for value in _values(sweep, "epochs"))
    few, many = values[0], values[-1]
    means = {cell.axes: by_cell["mean"][index] for index, cell in enumerate(sweep.cells)}
    gains = []
    for axes, mean in means.items():
        if dict(axes)["epochs"] == few:
            more = means.get(tuple((name, many if name == "epochs" else value) for name, value in axes), float("nan"))
            gains.append(more - mean)
    gains = [gain for gain in gains if not np.isnan(gain)]
    if few == many or not gains:
        return ""
    return (
        f"; {many} epochs have a higher mean than {few} in {sum(gain > 0 for gain in gains)} of {len(gains)} settings"
    )
