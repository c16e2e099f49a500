"""What `import harness` gives to notebooks and scripts; the command line uses the same functions."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.common import hub, notebook
from harness.common.errors import HarnessError
from harness.common.text import count_noun, show
from harness.config.trials import Sweep, expand
from harness.execution import follow, lookup
from harness.execution.function_study import study
from harness.execution.loaded_sweep import LoadedSweep, Settings, load_sweep, refuse_search, settings
from harness.execution.seed_growth import grown
from harness.report.plots import Plots

if TYPE_CHECKING:
    import pandas as pd

    from harness.analysis.analyze import Analysis
    from harness.execution.rerun import RerunComparison
    from harness.records.record import Curves
    from harness.records.study import Study

__all__ = [
    "LoadedSweep", "Plots", "Results", "TrialCurves", "load_sweep", "of_sweep", "open", "read_runs", "refuse_search",
    "run", "settings", "study",
]  # fmt: skip
_RESULTS = Path("results")


def run(
    sweep: LoadedSweep | str | Path,
    *,
    results: str | Path = _RESULTS,
    in_process: bool = False,
    workers: int | None = None,
    threads: int = 1,
    pack: int | None = None,
    only: Sequence[str] = (),
    max_trials: int | None = None,
    retry_crashed: bool = False,
    keep: Literal["none", "best", "all"] = "none",
    compiled: bool | None = None,
    address: str | None = None,
    workers_per_gpu: int = 1,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> Results:
    """Train what is missing of a sweep, with a progress bar; run it again to resume.

    Args:
        sweep: what `load_sweep` gives, or what it takes.
        results: the folder that holds the results folders.
        in_process: train in this process, without Ray, one pack at a time.
        workers: number of workers; None: one per GPU, else one per core.
        threads: CPU threads per worker.
        pack: trials trained together; None: as many as fit.
        only: train only matching trials, as `["lr=2e-5"]`.
        max_trials: train at most so many more, one seed of every cell first.
        retry_crashed: also train crashed trials again.
        keep: of which trials the weights are saved as model folders.
        compiled: compile the training step: faster steps after minutes of compilation, other last bits; None: as the
            sweep was started.
        address: a running Ray cluster, `auto` or `host:port`; None: this machine.
        workers_per_gpu: workers that share a GPU.
        trust_remote_code: allow Python code that comes with a model.
        progress: show how far it is.

    Returns:
        The results, of what is trained so far where it is not everything.

    Raises:
        HarnessError: before any training, for data or a model that can't be used, for an edit that would orphan
            trained trials, or a results folder that another process writes to. A trial that crashes raises nothing:
            it is recorded, and `results.runs` says so.
        KeyboardInterrupt: it was interrupted; what was finished is kept.
    """
    from harness.execution import baselines, driver
    from harness.records.store import Store

    loaded = sweep if isinstance(sweep, LoadedSweep) else load_sweep(sweep)
    refuse_search(loaded)
    hub.trust_remote_code(trust_remote_code)
    store = Store(Path(results) / loaded.sweep.folder_name)
    if loaded.sweep.baselines:
        baselines.check(loaded.sweep)
    options = driver.Options(
        in_process, address, workers, threads, pack, retry_crashed, only=tuple(only), max_trials=max_trials,
        workers_per_gpu=workers_per_gpu, keep=keep, compiled=compiled,
    )  # fmt: skip
    if progress:
        with follow.sweep_shown() as shown:
            driver.run(loaded.sweep, store, options, shown)
    else:
        driver.run(loaded.sweep, store, options, lambda progress: progress.messages.clear())
    if loaded.sweep.baselines:
        baselines.train(loaded.sweep, store, lambda line: None)
    return of_sweep(loaded.sweep, loaded.source, Path(results))


# ---------------------------------------------------------------------------------------------------------- results


def open(
    name_or_folder: str | Path, *, set: Settings = (), profile: str | None = None, results: str | Path = _RESULTS
) -> Results:
    """Open what was trained or imported before, complete or not.

    Args:
        name_or_folder: the name of a sweep or import, a path to a sweep file, or a results folder.
        set: the settings that the sweep was started with, where it was started with some.
        profile: which of several profiles that were run.
        results: the folder that holds the results folders.

    Raises:
        HarnessError: nothing of that name is there.
    """
    study, folder = lookup.study_of(str(name_or_folder), profile, settings(set), Path(results))
    return Results(study, folder)


def of_sweep(sweep: Sweep, source: str, results: Path = _RESULTS) -> Results:
    """The results of a sweep so far.

    Args:
        sweep: the sweep as it was trained.
        source: the name or path that finds it again, for the commands that train a run again.
        results: the folder that holds its results folder.
    """
    from harness.records.store import Store
    from harness.records.study import of_sweep as study_of_sweep

    store = Store(results / sweep.folder_name)
    sweep = grown(sweep, store)
    again = lookup.rerun_words(lookup.sweep_file(source), source, sweep, results)
    return Results(study_of_sweep(sweep, store, again), store.folder)


def read_runs(
    data: pd.DataFrame | str | Path | Sequence[str | Path],
    *,
    cell: str | Sequence[str],
    seed: str,
    metric: str,
    majority: float | str | None = None,
    higher_is_better: bool = True,
    where: Sequence[str] = (),
    state: str | None = None,
    unit: Literal["percent", "fraction", "other"] | None = None,
    nan: Literal["missing", "diverged"] | None = None,
    aggregate: Literal["mean", "median", "min", "max", "first", "last"] | None = None,
    seeds: str | None = None,
    examples: int | str | None = None,
    test: str | None = None,
    best: str | None = None,
    loss: str | None = None,
    reference: str | Sequence[str] = (),
    name: str = "runs",
) -> Results:
    """Read runs of any training code; nothing is written.

    Args:
        data: a table with one row a run; or files (CSV, JSON, Parquet), stores or folders of other tools.
        cell: the columns that distinguish the recipes.
        seed: the column of the seeds.
        metric: the column of the final scores.
        majority: the majority classifier's score, a number or a column: a run at or below it failed. None: nothing is
            said about failures.
        higher_is_better: False for losses and errors.
        where: only these rows, as `["split=dev"]`; `!=` excludes.
        state: the column that says which runs crashed; None: found by its values; `none`: there is none.
        unit: the unit of the scores, where it is ambiguous.
        nan: what an empty, NaN or infinite score means.
        aggregate: how several rows of one seed are combined.
        seeds: the planned seeds, as `1..20`: those of a cell without a row count as missing.
        examples: the number of dev examples, or its column, if the score is the share of right answers.
        test: the column of the test scores.
        best: the column of the best scores during training.
        loss: the column of the final training losses.
        reference: what the other values of an axis are compared with, as `method=usual`; None named: the smallest.
        name: what the runs are called in the report.

    Returns:
        The results; `results.study.notes` says what was decided on the way.

    Raises:
        HarnessError: a column is not there, or its values are not what it is said to be.
    """
    from harness.records.imported import of_import
    from harness.records.importing.options import ImportOptions
    from harness.records.importing.runs import import_runs

    with tempfile.TemporaryDirectory() as folder:
        options = ImportOptions(
            sources=_sources(data, Path(folder)), seed=seed, metric=metric, name=name,
            cell=(cell,) if isinstance(cell, str) else tuple(cell), where=tuple(where),
            majority=None if majority is None else str(majority), higher_is_better=higher_is_better, nan=nan,
            aggregate=aggregate, seeds=seeds, examples=None if examples is None else str(examples), test=test,
            best=best, loss=loss, state=state, unit=unit,
            reference=(reference,) if isinstance(reference, str) else tuple(reference),
        )  # fmt: skip
        written, _ = import_runs(options, Path(folder) / "results")
        return Results(of_import(written), None)


def _sources(data: Any, folder: Path) -> tuple[str, ...]:
    """The sources of an import; a table becomes a file in `folder`."""
    if isinstance(data, str | Path):
        return (str(data),)
    if isinstance(data, Sequence):
        return tuple(map(str, data))
    data.to_csv(folder / "dataframe.csv", index=False)
    return (str(folder / "dataframe.csv"),)


@dataclass(frozen=True)
class TrialCurves:
    """The course of one run's training.

    Attributes:
        steps: one row per update, with `step` (from 1), `train_loss` (nats, of the batch, before the update), `lr` and
            `grad_norm` (before clipping).
        evaluations: one row per evaluation on the dev set, with `step` (updates made), `dev_loss` and `dev_score`.
        arrays: everything that is kept, with dev logits and labels; see the reference of records.
    """

    steps: pd.DataFrame
    evaluations: pd.DataFrame
    arrays: Curves = field(repr=False)


@dataclass(frozen=True, eq=False)
class Results:
    """The runs of a sweep or an import, and everything that is said of them.

    Attributes:
        study: the runs, the cells and where they come from.
        folder: the results folder; None where nothing is on the disk.
    """

    study: Study
    folder: Path | None

    @property
    def name(self) -> str:
        """The name of the sweep with its profile, or of the import."""
        return self.study.name

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row per planned run; see the reference of the table `runs` for its columns.

        Among them are `trial` (its id), one column per axis, `seed`, `status` (finished, crashed, missing), `verdict`
        (ok, failed, diverged, near chance), `final_score`, `best_score`, `final_train_loss`, `majority_score` and
        `command` (trains it again). Counts are `Int64` and texts `string`, so that what is not known is `<NA>`.
        """
        from harness.analysis import verdicts
        from harness.records import typed_columns

        return typed_columns.typed(verdicts.runs(self.study), self.study.axes)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row per recipe: `planned`, `finished`, `crashed`, `missing`; `failed` of `judged` with Wilson's interval
        `failed_low` to `failed_high`; `mean`, `sd`, `min`, `median` and `max` of the final score, and more.
        """
        from harness.analysis import cells
        from harness.records import typed_columns

        return typed_columns.typed(cells.cells(self.study), self.study.axes)

    @cached_property
    def analysis(self) -> Analysis:
        """Every table of the report, as attributes of their names; made once, in a second or more."""
        from harness.analysis.analyze import analyse

        return analyse(self.study)

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table of the report by its name."""
        return self.analysis.tables

    @cached_property
    def answer(self) -> tuple[str, ...]:
        """The sentences that open the report."""
        from harness.report import opening

        return tuple(opening.answer(self.analysis))

    @property
    def plot(self) -> Plots:
        """The figures of the report, one function each, as `results.plot.spread()`."""
        return Plots(self)

    def curves(self, trial: str | int) -> TrialCurves:
        """The course of one run's training.

        Args:
            trial: its id, or the beginning of it; of an import the number of its row in `runs`.

        Raises:
            HarnessError: no run or several are meant, or no curves of it are kept.
        """
        import pandas as pd

        row = trial if isinstance(trial, int) else self._row(trial)
        curves = self.study.curves(row)
        name = str(self.study.runs["trial"][row])
        unusable = [file for file in self.study.set_aside.files if file.trial == name]
        if curves is None and unusable:
            raise HarnessError(
                f"the curves of {trial} can't be used: {unusable[-1].file}: {unusable[-1].reason}",
                fix="Restore the file, or train the trial again",
            )
        if curves is None:
            raise HarnessError(
                f"there are no curves of {trial}: they are kept of finished trials", fix="Look at results.runs.status"
            )
        count = len(curves.train_loss)
        steps: dict[str, Any] = {"step": range(1, count + 1), "train_loss": curves.train_loss}
        steps |= {name: values for name in ("lr", "grad_norm") if len(values := getattr(curves, name)) == count}
        evaluations = {"step": curves.eval_step, "dev_loss": curves.dev_loss, "dev_score": curves.dev_score}
        return TrialCurves(pd.DataFrame(steps), pd.DataFrame(evaluations), curves)

    def failures(self) -> pd.DataFrame:
        """The failed runs, with what is known of the reason.

        Returns:
            One row per failed run: `trial`, the axes, `seed`, `verdict`, `reason` (constant, diverged, collapsed),
            `final_score`, `majority_score`, `final_train_loss`, `kind` (not optimised, not generalised) and
            `gradients_vanished_by` (the share of training after which they had), and `command`.
        """
        fates = self.analysis.diagnosis.fates[["kind", "vanished"]]
        table = self.runs.join(fates.rename(columns={"vanished": "gradients_vanished_by"}))
        names = ["trial", *self.study.axes, "seed", "verdict", "reason", "final_score", "majority_score"]
        names += ["final_train_loss", "kind", "gradients_vanished_by", "command"]
        return table.loc[table["outcome"] == "failed", names].reset_index(drop=True)

    def compare(self, axis: str) -> pd.DataFrame:
        """How each value of an axis compares with its reference (the first in a sweep), all other settings equal.

        Args:
            axis: the name of an axis, as `bias_correction`.

        Returns:
            One row per further value: `value`, `reference`; `failed` of `judged` and `reference_failed` of
            `reference_judged`; `difference` of the failure rates (over the strata of all other settings) and
            `odds_ratio`, each with `_low` and `_high`; `p` (stratified score test, whose interval `difference` has) and
            `p_adjusted` (Holm, over the comparisons of the axis); `mean` and `reference_mean` of the final scores, each
            with `_low` and `_high`.

        Raises:
            HarnessError: there is no such axis, or it has one value.
        """
        table = self.analysis.contrasts
        table = table[table["axis"] == axis].drop(columns="axis").reset_index(drop=True)
        if not len(table):
            raise HarnessError(
                f"cannot compare along '{axis}', which is not an axis with several values",
                allowed=", ".join(self.study.axes) or None,
                fix=None if self.study.axes else "The study has one recipe",
            )
        level = self.analysis.pooled_level
        level = level[level["axis"] == axis]
        for prefix, column in (("", "value"), ("reference_", "reference")):
            rows = [_row_of(level, value) for value in table[column]]
            for name in ("mean", "mean_low", "mean_high"):
                table[f"{prefix}{name}"] = [row.get(name, float("nan")) for row in rows]
        return table

    def report(self, folder: str | Path | None = None, *, threshold: float | None = None) -> Path:
        """Write the report: page, tables and figures.

        Args:
            folder: where to; None: `report` in the results folder. A report that is there is replaced.
            threshold: also count runs with a score worse than this as failed, in a column beside.

        Returns:
            The page.
        """
        from harness.report import page

        if folder is None and self.folder is None:
            raise HarnessError(
                'these runs lie in no results folder, so a report needs one (for example: results.report("page"))'
            )
        target = Path(folder) if folder is not None else Path(str(self.folder)) / "report"
        return page.write(self.study, target, threshold).page

    def rerun(self, trial: str, *, tolerance: float | None = None, progress: bool = True) -> RerunComparison:
        """Train one run again and compare it with its record, step by step; nothing is overwritten.

        Args:
            trial: its id, or the beginning of it.
            tolerance: the largest difference that counts as equal where rounding can explain it; None: 1e-3.
            progress: show how far it is.

        Returns:
            The comparison: `.verdict` is `identical`, `within_tolerance` or `different`, and `.max_difference`,
            `.first_differing_step` and `.reasons` say more.

        Raises:
            HarnessError: no run or several are meant, or the one has no record to compare with.
        """
        from harness.execution import repeats, rerun
        from harness.records.store import Store

        if len(self.study.sweeps) != 1 or self.folder is None:
            raise HarnessError(
                f"cannot rerun {self.name}: its runs were not trained by the harness",
                fix="Use results of harness.run or harness.open",
            )
        chosen = expand(self.study.sweeps[0])[self._row(trial)]
        arguments = (self.study.sweeps[0], Store(self.folder), chosen, tolerance or rerun.TOLERANCE)
        if progress:
            with follow.steps_shown("steps") as shown:
                comparison = rerun.rerun(*arguments, shown)
        else:
            comparison = rerun.rerun(*arguments)
        repeats.keep(arguments[1], comparison, "rerun")
        return comparison

    def _row(self, trial: str) -> int:
        """The row of the run that an id, or its beginning, means."""
        ids = [str(one) for one in self.study.runs["trial"]]
        matching = [row for row, one in enumerate(ids) if one == trial]
        matching = matching or [row for row, one in enumerate(ids) if one.startswith(trial)]
        if len(matching) != 1:
            listed = ", ".join(ids[row] for row in (matching or range(len(ids)))[:5])
            raise HarnessError(
                f"{'several trials begin with' if matching else 'no trial has the id'} '{trial}'",
                allowed=f"{listed}, …",
                fix="Take an id from results.runs.trial",
            )
        return matching[0]

    def __repr__(self) -> str:
        """The name and the counts."""
        counts = self.study.runs["status"].value_counts()
        states = ", ".join(
            f"{counts.get(name, 0)} {name}"
            for name in ("finished", "crashed", "missing", "unreadable")
            if name != "unreadable" or counts.get(name)
        )
        failed = int((self.study.runs["outcome"] == "failed").sum())
        return f"<results {self.name}: {count_noun(len(self.study.runs), 'run')}: {states}; {failed} failed>"

    def _repr_html_(self) -> str:
        header = [*self.study.axes, "finished", "failed", "95 % interval", "mean", "sd", "min", "max"]
        rows = []
        for cell, (_, row) in zip(self.study.cells, self.cells.iterrows(), strict=True):
            judged = int(row["judged"])
            failed = f"{row['failed']}/{judged}" if judged else "–"
            low, high = (100 * row[f"failed_{end}"] for end in ("low", "high"))
            between = f"{low:.0f} to {high:.0f} %" if judged else "–"
            scores = [f"{row[name]:.3f}" if row[name] == row[name] else "–" for name in ("mean", "sd", "min", "max")]
            axes = [show(value) for _, value in cell.axes]
            rows.append([*axes, f"{row['finished']}/{row['planned']}", failed, between, *scores])
        return notebook.page(self.study.title, self.answer, header, rows)


def _row_of(level: pd.DataFrame, value: object) -> dict[str, Any]:
    """The row of a value of an axis: True is not 1 there."""
    records: list[dict[str, Any]] = level.to_dict("records")
    return next((row for row in records if row["value"] == value and type(row["value"]) is type(value)), {})
