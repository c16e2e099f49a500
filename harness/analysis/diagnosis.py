"""Why runs fail, as tables: from what was recorded while they trained, and from losses and scores alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from harness.analysis import early_warning as early
from harness.analysis.verdicts import judged_runs, untrained_loss
from harness.config import schedules
from harness.config.recipe import Recipe
from harness.records import early_signals
from harness.records.record import Recording
from harness.records.study import Study, numbers
from harness.stats import bootstrap

# A failed run whose loss lies above this share of the labels' entropy (of a regression: their variance) has not fitted
# its training data; one below has, and does not generalise: the two groups of Figure 8 in Mosbach et al. (2021).
FITTED = 0.5
# A gradient has vanished where a layer's norm is below this share of what runs that learn have at that point of
# training, from some point on to the end; in a run, where that is so of half of its layers.
VANISHED = 0.1
PLACES = 100  # of a run, at which the gradients of runs of any length are compared
FEWEST = 3  # runs that learn, of which a cell's own median is the reference
_PERMUTATIONS = 4_999
_PERMUTED_AT_ONCE = 100_000  # numbers, so that it takes little memory
# The verdicts of runs that are lost.
LOST = ("failed", "diverged", "near chance")
KINDS = ("ok", "near chance", "not optimised", "not generalised", "diverged", "not told")


@dataclass(frozen=True)
class Gradients:
    """The gradient norms of recorded runs by part: `norms` [R, PLACES, G] as log10, of the `rows` [R] of the runs."""

    parts: tuple[str, ...]
    rows: np.ndarray
    norms: np.ndarray
    steps: np.ndarray  # [R]
    lost: np.ndarray  # [R] bool

    def layer(self, name: str) -> np.ndarray:
        """Log10 of the norm of a layer, attention and feed-forward together, or of another part, [R, PLACES]."""
        own = [part == name or part.startswith(f"{name} ") for part in self.parts]
        with np.errstate(divide="ignore"):
            found: np.ndarray = np.log10((10.0 ** (2 * self.norms[:, :, own].astype(np.float64))).sum(axis=2)) / 2
        return found

    @property
    def layers(self) -> list[str]:
        """The numbered layers, lowest first."""
        return list(dict.fromkeys(part.split()[0] for part in self.parts if part[0].isdigit()))


@dataclass(frozen=True)
class Diagnosis:
    """Every table of it, and of the figures what they draw; `lost` runs are those that failed or ended near chance."""

    finished: int  # runs of which it is known whether they failed
    recorded: int
    kinds: pd.DataFrame
    fates: pd.DataFrame  # a row a finished run: kind, final loss, vanished
    gradients: pd.DataFrame
    step_sizes: pd.DataFrame
    early_warning: pd.DataFrame
    stopping: pd.DataFrame
    shared_seeds: pd.DataFrame
    rule: early.Kept | None
    norms: Gradients | None
    recorded_lost: int
    never_finite: int  # recorded runs that `norms` lacks: from 1 % of training on no gradient was finite and above 0
    compared: tuple[int, ...]  # rows of the runs whose gradients are compared
    both: bool  # whether they are those of the cells with both outcomes, else of all
    sizes: Mapping[int, np.ndarray]  # cell -> effective size of each update, in its largest learning rates [S]

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Name and table, in the order of the page; `fates` goes with the runs' own."""
        return {
            name: table for name, table in vars(self).items() if isinstance(table, pd.DataFrame) and name != "fates"
        }


def diagnose(study: Study, runs: pd.DataFrame) -> Diagnosis:
    """Make every table from a study's runs with their `verdict` (see `cells.runs`)."""
    finished = runs[judged_runs(runs)]
    steps = planned_steps(finished)
    recorded: list[tuple[int, Recording]] = []
    signals: list[np.ndarray] = []
    clipped: dict[int, list[float]] = {}
    recipes = _recipes(study)
    for row in finished.index:
        curves = study.curves(int(row))
        if curves is None or (recording := curves.recording) is None:
            continue
        cell = int(finished["cell"][row])
        if recipes and (limit := recipes[cell].max_grad_norm) is not None:
            clipped.setdefault(cell, []).append(float((curves.grad_norm > limit).mean()))
        recorded.append((int(row), recording))
        signals.append(early_signals.signals(curves.train_loss, steps[int(row)], curves.eval_step, recording))
    rows = np.array([row for row, _ in recorded], dtype=int)
    told = early_signals.of_runs(signals)
    lost = finished["verdict"].isin(LOST)
    norms, never_finite = _norms(recorded, steps, finished)
    fates = _fates(finished, norms)
    warnings, rule = _early(told, lost.reindex(rows).to_numpy(dtype=bool), finished["cell"].reindex(rows).to_numpy())
    compared, both = _compared(finished, norms)
    sizes = step_sizes(study, finished, steps)
    return Diagnosis(
        finished=len(finished),
        recorded=len(recorded),
        recorded_lost=int(lost.reindex(rows).sum()),
        kinds=_kinds(study, fates, rows),
        fates=fates,
        gradients=_gradients(norms, compared),
        step_sizes=_largest(study, sizes, {cell: float(np.mean(shares)) for cell, shares in clipped.items()}),
        early_warning=warnings,
        stopping=_stopping(study, finished, rows, rule),
        shared_seeds=shared_seeds(study, finished),
        rule=rule,
        norms=norms,
        never_finite=never_finite,
        compared=compared,
        both=both,
        sizes=sizes,
    )


def planned_steps(finished: pd.DataFrame) -> dict[int, int]:
    """The updates that each run was planned to have: the most of its cell, for some stop early."""
    most = numbers(finished, "steps").groupby(finished["cell"]).transform("max")
    return {int(row): int(value) for row, value in most.dropna().items()}


# ------------------------------------------------------------------------------------------------------ kinds of runs


def _fates(finished: pd.DataFrame, norms: Gradients | None) -> pd.DataFrame:
    """A row a finished run: `cell`, `kind`, `loss` (final, over the labels' entropy or, of a regression, variance),
    `vanished` (updates, NaN: not) and `vanished_layers` (how many).
    """
    loss = numbers(finished, "final_train_loss") / untrained_loss(finished).replace(0, np.nan)
    kind = finished["verdict"].astype(object)
    failed = kind == "failed"
    kind[failed] = "not told"
    kind[failed & (loss > FITTED)] = "not optimised"
    kind[failed & (loss <= FITTED)] = "not generalised"
    table = pd.DataFrame({"cell": finished["cell"], "kind": kind, "loss": loss})
    table["vanished"], table["vanished_layers"] = np.nan, np.nan
    if norms is not None:
        for row, (update, layers) in _vanished(finished, norms).items():
            table.loc[row, ["vanished", "vanished_layers"]] = update, layers
    return table


def _kinds(study: Study, fates: pd.DataFrame, recorded: np.ndarray) -> pd.DataFrame:
    """A row a cell: finished runs by kind, and of the failed ones those recorded and those whose gradients vanished."""
    rows = []
    for index in range(len(study.cells)):
        here = fates[fates["cell"] == index]
        failed = here[~here["kind"].isin(["ok", "near chance"])]
        known = failed[failed.index.isin(recorded)]
        counts = {kind.replace(" ", "_"): int((here["kind"] == kind).sum()) for kind in KINDS}
        rows.append(
            {"cell": index, "finished": len(here)}
            | counts
            | {"failed_recorded": len(known), "vanished": int(known["vanished"].notna().sum())}
        )
    return pd.DataFrame(rows)


# ---------------------------------------------------------------------------------------------------------- gradients


def _norms(
    recorded: Sequence[tuple[int, Recording]], steps: Mapping[int, int], finished: pd.DataFrame
) -> tuple[Gradients | None, int]:
    """The gradients of the runs that have the parts of most, and how many of these had none that is finite and above 0.

    The latter are left out. None where nobody had one.
    """
    kinds: dict[tuple[str, ...], int] = {}
    for _, recording in recorded:
        parts = tuple(recording.layers.tolist())
        kinds[parts] = kinds.get(parts, 0) + 1
    if not kinds:
        return None, 0
    parts = max(kinds, key=lambda names: kinds[names])
    chosen = [(row, one) for row, one in recorded if tuple(one.layers.tolist()) == parts and len(one.update)]
    found = np.full((len(chosen), PLACES, len(parts)), np.nan, dtype=np.float32)
    for number, (row, recording) in enumerate(chosen):
        updates = np.ceil(np.arange(1, PLACES + 1) / PLACES * steps[row])
        at = np.searchsorted(recording.update, updates, side="right") - 1
        made = (at >= 0) & (updates <= recording.update[-1] + steps[row] / PLACES)  # not what a stopped run never did
        with np.errstate(divide="ignore", invalid="ignore"):
            found[number, made] = np.log10(recording.layer_norm[at[made]])
    found[~np.isfinite(found)] = np.nan
    known = np.flatnonzero(np.isfinite(found).any(axis=(1, 2)))
    rows = [chosen[place][0] for place in known]
    if not rows:
        return None, len(chosen)
    lost = finished["verdict"].loc[rows].isin(LOST).to_numpy()
    norms = Gradients(parts, np.array(rows), found[known], np.array([steps[row] for row in rows]), lost)
    return norms, len(chosen) - len(rows)


def _compared(finished: pd.DataFrame, norms: Gradients | None) -> tuple[tuple[int, ...], bool]:
    """The rows whose gradients are held against each other: of cells with both outcomes, or else all."""
    if norms is None:
        return (), False
    here = finished.loc[norms.rows]
    lost = pd.Series(norms.lost, index=here.index)
    both = lost.groupby(here["cell"]).transform(lambda values: values.any() and not values.all()).astype(bool)
    return tuple(here.index[both] if both.any() else here.index), bool(both.any())


def _gradients(norms: Gradients | None, compared: Sequence[int]) -> pd.DataFrame:
    """A row a part: medians of the lost runs and the others where they are farthest apart and at the end.

    Columns: `part`, `lost` and `others` (runs), `orders` (log10 of others over lost, where its size is largest),
    `at` (share of training), `lost_norm` and `others_norm` there, `end_orders`.
    """
    columns = ["part", "lost", "others", "orders", "at", "lost_norm", "others_norm", "end_orders"]
    if norms is None:
        return pd.DataFrame(columns=columns)
    chosen = np.isin(norms.rows, compared)
    lost = norms.lost[chosen]
    if not lost.any() or lost.all():
        return pd.DataFrame(columns=columns)
    rows = []
    for number, part in enumerate(norms.parts):
        values = norms.norms[chosen, :, number].astype(float)
        bad, good = (_median(values[which]) for which in (lost, ~lost))
        gap = good - bad
        if np.isnan(gap).all():
            continue
        at = int(np.nanargmax(np.abs(gap)))
        end = gap[~np.isnan(gap)][-1]
        rows.append(
            dict(zip(columns, [part, int(lost.sum()), int((~lost).sum()), gap[at], (at + 1) / PLACES], strict=False))
            | {"lost_norm": 10 ** bad[at], "others_norm": 10 ** good[at], "end_orders": end}
        )
    return pd.DataFrame(rows, columns=columns)


def _median(values: np.ndarray) -> np.ndarray:
    """The median over runs [R, PLACES], NaN where no run is."""
    found = np.full(values.shape[1], np.nan)
    known = ~np.isnan(values).all(axis=0)
    found[known] = np.nanmedian(values[:, known], axis=0)
    return found


def _vanished(finished: pd.DataFrame, norms: Gradients) -> dict[int, tuple[float, int]]:
    """Of each lost run whose gradients vanished: the update from which on half of the layers' had, and how many had.

    The reference is the median of the runs that learn, of its own cell where there are three, else of all.
    """
    verdicts = finished["verdict"].reindex(norms.rows)
    cells = finished["cell"].reindex(norms.rows).to_numpy()
    learns, lost = (verdicts == "ok").to_numpy(), norms.lost
    layers = norms.layers
    if not learns.any() or not lost.any() or not layers:
        return {}
    by_layer = np.stack([norms.layer(name) for name in layers], axis=2)  # [R, PLACES, layers]
    found: dict[int, tuple[float, int]] = {}
    for cell in np.unique(cells[lost]):
        own = learns & (cells == cell)
        good = by_layer[own if own.sum() >= FEWEST else learns]
        reference = np.stack([_median(good[:, :, place]) for place in range(len(layers))], axis=1)
        for run in np.flatnonzero(lost & (cells == cell)):
            known = ~np.isnan(by_layer[run]).all(axis=1)
            if not known.any():
                continue
            low = (by_layer[run] < reference + math.log10(VANISHED))[: int(np.flatnonzero(known)[-1]) + 1]
            # From where on a layer is low to the end; PLACES where it is not at the end.
            since = [len(low) - int(np.argmin(layer[::-1])) if not layer.all() else 0 for layer in low.T]
            gone = sorted(place for place in since if place < len(low))
            half = -(-len(layers) // 2)
            if len(gone) >= half:
                update = math.ceil((gone[half - 1] + 1) / PLACES * norms.steps[run])
                found[int(norms.rows[run])] = float(update), len(gone)
    return found


# ---------------------------------------------------------------------------------------------------- sizes of updates


def effective_sizes(recipe: Recipe, steps: int) -> np.ndarray:
    """The size of each update [steps] in units of the recipe's learning rate: schedule × what lacking correction adds.

    Without bias correction AdamW's step is (1 − β1^t) / √(1 − β2^t) times that with it (Mosbach et al. 2021, Figure 6:
    6.57 times at t = 12 for β 0.9 and 0.999).
    """
    found = np.array([schedules.factor(step, steps, recipe) for step in range(steps)])
    return found if recipe.bias_correction else found / correction_factors(recipe, steps)


def correction_factors(recipe: Recipe, steps: int) -> np.ndarray:
    """What bias correction multiplies the size of update t = 1 … steps by, [steps]: √(1 − β2^t) / (1 − β1^t)."""
    corrected = recipe.model_copy(update={"bias_correction": True})
    return np.array([schedules.correction(step, corrected) for step in range(1, steps + 1)])


def _recipes(study: Study) -> list[Recipe]:
    """The recipe of each cell; none where the study is not of sweeps alone."""
    recipes = [cell.recipe for sweep in study.sweeps for cell in sweep.cells if cell.script is None]
    return recipes if len(recipes) == len(study.cells) else []


def step_sizes(study: Study, finished: pd.DataFrame, steps: Mapping[int, int]) -> dict[int, np.ndarray]:
    """The effective sizes by cell, of the cells that AdamW trains and whose number of updates is known."""
    recipes = _recipes(study)
    if not recipes:
        return {}
    of_cell = {int(finished["cell"][row]): count for row, count in steps.items()}
    return {
        cell: effective_sizes(recipes[cell], count)
        for cell, count in sorted(of_cell.items())
        if recipes[cell].optimizer == "adamw"
    }


def _largest(study: Study, sizes: Mapping[int, np.ndarray], clipped: Mapping[int, float]) -> pd.DataFrame:
    """A row a cell: the largest effective update, where it comes, and how many updates were clipped.

    Columns: `cell`, `correction`, `updates`, `largest` (in learning rates), `at` (update), `largest_rate` (absolute),
    `clipped` (mean share over the recorded runs; NaN where none is, or nothing limits the norm).
    """
    recipes = _recipes(study)
    rows = []
    for cell, found in sizes.items():
        at = int(np.argmax(found))
        recipe = recipes[cell]
        row = {"cell": cell, "correction": recipe.bias_correction, "updates": len(found), "largest": found[at]}
        rows.append(row | {"at": at + 1, "largest_rate": found[at] * recipe.lr, "clipped": clipped.get(cell, math.nan)})
    return pd.DataFrame(rows, columns=["cell", "correction", "updates", "largest", "at", "largest_rate", "clipped"])


# ------------------------------------------------------------------------------------------------------ early warning


def _early(signals: np.ndarray, lost: np.ndarray, cells: np.ndarray) -> tuple[pd.DataFrame, early.Kept | None]:
    """How well each signal tells lost runs at each share of training, and the first rule that holds.

    Columns: `share`, `signal`, `lost`, `others` (recorded runs), `auc`, `auc_low`, `auc_high`, `within` (pairs of one
    cell alone) and how many `pairs` that is of; of a rule with at most 1 % false alarms where it was learned: `above`
    (whether it takes a run for lost that is above its threshold), `threshold` (learned from all cells), `caught`,
    `false` (by leave-one-cell-out).
    """
    columns = ["share", "signal", "lost", "others", "auc", "auc_low", "auc_high", "within", "pairs", "above"]
    columns += ["threshold", "caught", "false"]
    counts = [int(lost.sum()), int((~lost).sum())]
    if not lost.any() or lost.all() or len(np.unique(cells)) < 2:
        return pd.DataFrame(columns=columns), None
    rows = []
    rules: list[list[early.Kept | None]] = []
    rng = bootstrap.rng("early warning")
    for place, share in enumerate(early_signals.SHARES):
        rules.append([early.held(signals, lost, cells, place, column) for column in range(len(early_signals.SIGNALS))])
        for column, (name, kept) in enumerate(zip(early_signals.SIGNALS, rules[-1], strict=True)):
            told = early.telling(signals[:, place, column], lost, cells, rng)
            values = [share, name, *counts, told.auc.value, told.auc.low, told.auc.high, told.within, told.pairs]
            of_rule = [kept.rule.sign > 0, kept.rule.value, kept.caught, kept.false] if kept else [None] + [np.nan] * 3
            rows.append([*values, *of_rule])
    return pd.DataFrame(rows, columns=columns), early.first_that_holds(rules[:-1])


def _stopping(study: Study, finished: pd.DataFrame, rows: np.ndarray, kept: early.Kept | None) -> pd.DataFrame:
    """What stopping by the rule would have changed, a row a cell: runs stopped, rightly and wrongly, the rate of
    failing before and after (a stopped run counted as failed), the mean score of all and of what is left and how far it
    is above, the `seconds` of training, and how many of them and what share of them are saved.
    """
    columns = ["cell", "runs", "stopped", "wrongly", "failed", "failed_after", "mean", "mean_after", "shift"]
    columns += ["seconds", "seconds_saved", "saved"]
    if kept is None:
        return pd.DataFrame(columns=columns)
    here = finished.loc[rows].assign(stopped=kept.alarms)
    found = []
    for index in range(len(study.cells)):
        own = here[here["cell"] == index]
        if not len(own):
            continue
        failed, left = own["outcome"] == "failed", own[~own["stopped"]]
        lost = own["verdict"].isin(LOST)
        seconds = numbers(own, "lane_seconds")
        total, saved = seconds.sum(), (1 - kept.rule.share) * seconds[own["stopped"]].sum()
        mean = numbers(own, "final_score").mean()
        mean_after = numbers(left, "final_score").mean() if len(left) else np.nan
        found.append(
            [index, len(own), int(own["stopped"].sum()), int((own["stopped"] & ~lost).sum()), int(failed.sum()),
             int((failed | own["stopped"]).sum()), mean, mean_after, mean_after - mean, total, saved,
             saved / total if total else np.nan]
        )  # fmt: skip
    return pd.DataFrame(found, columns=columns)


# -------------------------------------------------------------------------------------------------------------- seeds


def shared_seeds(study: Study, finished: pd.DataFrame) -> pd.DataFrame:
    """Whether the same seeds do badly in different cells: the mean rank correlation over pairs of cells.

    A row for `score` (a diverged run is the worst) and for `failing`. Columns: `of`, `cells` (those that vary), `seeds`
    (those that all of them have), `correlation`, `p` (one-sided, seeds permuted within cells; 4,999 times). Spearman's
    correlation with mid-ranks; of failing it is the phi coefficient.
    """
    rows = []
    parts = finished[["init_seed", "order_seed", "dropout_seed"]].itertuples(index=False)
    seed = ["/".join(map(str, seeds)) for seeds in parts]
    sign = 1.0 if study.higher_is_better else -1.0
    score = (sign * numbers(finished, "final_score")).fillna(-np.inf)
    failing = (finished["outcome"] == "failed").astype(float)
    for of, values in (("score", score), ("failing", failing)):
        table = pd.DataFrame({"cell": finished["cell"], "seed": seed, "value": values})
        table = table.drop_duplicates(["cell", "seed"]).pivot(index="cell", columns="seed", values="value")
        found = _correlation(table, bootstrap.rng(f"seeds {of}"))
        rows.append({"of": of} | dict(zip(["cells", "seeds", "correlation", "p"], found, strict=True)))
    return pd.DataFrame(rows)


def _correlation(table: pd.DataFrame, rng: np.random.Generator) -> tuple[int, int, float, float]:
    """Cells, seeds, mean correlation over pairs of rows of a table [cells, seeds] and its permutation p."""
    table = table[table.nunique(axis=1) > 1]
    table = table[table.notna().sum(axis=1) >= max(3, table.notna().sum(axis=1).max() if len(table) else 0)]
    table = table.dropna(axis=1)
    table = table[table.nunique(axis=1) > 1]
    cells, seeds = table.shape
    if cells < 2 or seeds < 3:
        return cells, seeds, math.nan, math.nan
    ranks = stats.rankdata(table.to_numpy(), axis=1)
    ranks = ranks - ranks.mean(axis=1, keepdims=True)
    ranks /= np.sqrt((ranks**2).sum(axis=1, keepdims=True))

    def mean(of: np.ndarray) -> np.ndarray:
        return np.asarray(((of.sum(axis=-2) ** 2).sum(axis=-1) - cells) / (cells * (cells - 1)))

    seen = float(mean(ranks))
    at_once = max(1, _PERMUTED_AT_ONCE // ranks.size)
    drawn = np.concatenate(
        [
            mean(rng.permuted(np.tile(ranks, (min(at_once, _PERMUTATIONS - start), 1, 1)), axis=-1))
            for start in range(0, _PERMUTATIONS, at_once)
        ]
    )
    return cells, seeds, seen, (1 + int((drawn >= seen - 1e-12).sum())) / (1 + _PERMUTATIONS)
