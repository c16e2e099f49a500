"""What a search asks the queue to train next: recipes that Optuna suggests, and which of them are given up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.analysis import search_ranking
from harness.common.errors import HarnessError
from harness.config.script import AnyRecipe
from harness.config.trials import Cell, Sweep, Trial, expand
from harness.execution.packing import Job
from harness.execution.pool import Running
from harness.records import early_signals, study_log
from harness.records.record import Record
from harness.records.store import Store
from harness.search import pruning, suggestions
from harness.search.study_journal import RESTORE, StudyJournal, lack_records

if TYPE_CHECKING:
    from harness.analysis.live_warning import Lessons

_TUNE = "ASHA scheduler of Ray Tune"


class Asking:
    """The recipes of a search as the queue asks for them (`options.PlanSource`); what it knows lies in the journal."""

    by_recipe = True

    def __init__(self, sweep: Sweep, store: Store, stop_hopeless: bool = False, tune: bool = False) -> None:
        """Search where `sweep` says; the journal is opened when the first recipe is asked for.

        With `tune` Ray Tune does the pruning, and the pruner here is only told of it.
        """
        self.stop_hopeless, self.tune = stop_hopeless, tune
        self.lessons: Lessons | None = None
        self.looked: dict[Job, int] = {}  # shares of a pack's run at which it was looked at
        self.seen: dict[Job, int] = {}  # evaluations that the study knows
        self.hopeless_by: dict[Job, str] = {}
        self.pruned_by: dict[Job, str] = {}
        self._given_up: dict[AnyRecipe, search_ranking.StoppedRecipe] = {}
        assert sweep.search is not None
        self.template, self.store, self.search = sweep, store, sweep.search
        self.cells: list[Cell] = []
        self._noted = False
        self.open: dict[int, Cell] = {}  # number -> cell, asked and not told
        self.asked = 0
        # A grid ends; other samplers may suggest the same twice, which counts and is not trained again.
        grid = math.prod(len(dimension.values or ()) for dimension in self.search.space)
        self.most = min(self.search.recipes, grid) if self.search.sampler == "grid" else self.search.recipes
        self._journal: StudyJournal | None = None

    @property
    def left(self) -> int:
        """Recipes still to ask for."""
        return max(0, self.most - self.asked)

    def news(self) -> tuple[str, ...]:
        """Of which recipes a pruner sees nothing in time; said once."""
        if self.search.pruner is None or self._noted:
            return ()
        self._noted = True
        note = pruning.unseen(self.search, self.template.cells[0].recipe)
        return () if note is None else (note,)

    def grown(self) -> Sweep | None:
        """Tell what is finished, then ask for a recipe that was not trained before; None where all were asked.

        A search that is resumed gives those that were asked before.
        """
        resumed = self._journal is None
        if resumed:
            self._load()
        self._tell()
        if resumed and self.open:
            return self._sweep()
        while self.left:
            if self._ask():
                return self._sweep()
            self._tell()  # a recipe that was trained already
        return self._sweep() if resumed and self.cells else None  # not the plan: a script's timeout may be another now

    @property
    def stopped(self) -> set[str]:
        """The trials of recipes that were given up and have not been trained since."""
        each = [self._ids(recipe) for recipe in self._given_up]
        return {trial_id for ids in each if lack_records(self.store, ids) for trial_id in ids}

    def hopeless(self, running: Running) -> bool:
        """Whether the pruner stops a recipe, or all its runs are at risk; all its seeds must be one pack."""
        return self._behind(running) or self._lost(running)

    def _behind(self, running: Running) -> bool:
        """Whether the pruner stops a recipe by the evaluations of its runs, which the study is told of."""
        job, evaluations, pruner = running.job, running.heard.evaluations, self.search.pruner
        first = self.seen.get(job, 0)
        if pruner is None or len(evaluations) == first or not self._whole(job):
            return False
        self.seen[job] = len(evaluations)
        for number, cell in self.open.items():
            if cell.settings != job.trials[0].settings:
                continue
            trial = self._study.asked(number)
            for so_far in range(first + 1, len(evaluations) + 1):
                new = self._study.report(trial, pruning.curve(evaluations[:so_far], pruner, self.search))
                if self.tune or not new or not pruning.asked(evaluations[:so_far], pruner, cell.recipe):
                    continue
                if self._study.prunes(trial):
                    self.pruned_by[job] = pruning.words(pruner, evaluations[so_far - 1], self.search)
                    self._study.note_pruned(trial, self.pruned_by[job])
                    break
        return job in self.pruned_by

    def _whole(self, job: Job) -> bool:
        return {trial.id for trial in job.trials} == set(self._ids(job.trials[0].settings))

    def _lost(self, running: Running) -> bool:
        """Whether all runs of a recipe are at risk by the finished runs of other recipes."""
        job, signals = running.job, running.heard.signals
        if not self.stop_hopeless or signals is None or self.looked.get(job) == signals.shape[1]:
            return False
        self.looked[job] = signals.shape[1]
        if not self._whole(job):
            return False
        from harness.analysis import live_warning  # scipy

        sweep = self._sweep()
        trials = expand(sweep)
        self.lessons = self.lessons or live_warning.Lessons(self.store)
        self.lessons.learn(sweep, [trial for trial, record in self.store.each(trials) if _finished(record)])
        rule = self.lessons.rule(job.trials[0].cell)
        lost = live_warning.look_lost(rule, early_signals.of_lanes(signals))
        if isinstance(rule, str) or not all(lost):
            return False
        self.hopeless_by[job] = rule.rule.words
        return True

    def stop(self, running: Running) -> str:
        """Tell the study of a recipe that was given up."""
        job = running.job
        cell, by_pruner = self.cells[job.trials[0].cell], job not in self.hopeless_by
        if by_pruner and job not in self.pruned_by:  # by Tune
            assert self.search.pruner is not None
            latest = running.heard.evaluations[-1]
            self.pruned_by[job] = pruning.words(self.search.pruner, latest, self.search, _TUNE)
        rule = self.pruned_by[job] if by_pruner else self.hopeless_by[job]
        stopped_recipe = search_ranking.StoppedRecipe(cell.label, rule, running.share, running.seconds, len(job.trials))
        if by_pruner:
            stopped_recipe = replace(stopped_recipe, by_pruner=True, flat=pruning.flat(running.heard.evaluations))
        self._given_up[cell.settings] = stopped_recipe
        self._tell()
        why = f"{search_ranking.UNSEEN} ({rule})" if by_pruner else f"because all its runs are at risk ({rule})"
        return f"{cell.label}: given up at {100 * stopped_recipe.share:.0f} % of its training, {why}"

    def _sweep(self) -> Sweep:
        return self.template.model_copy(update={"cells": tuple(self.cells)})

    @property
    def _study(self) -> StudyJournal:
        assert self._journal is not None
        return self._journal

    def _load(self) -> None:
        """Open the journal, and take what was asked before into the plan."""
        switches = {"--stop-hopeless": self.stop_hopeless, "--tune": self.tune}
        self._journal = StudyJournal(self.template, self.store, [name for name, on in switches.items() if on])
        for number, params, told, stopped_recipe in self._journal.suggestions():
            self._join(number, params, told)
            if stopped_recipe is not None and (self.stop_hopeless or stopped_recipe.by_pruner):
                self._given_up[self._cell(params).settings] = stopped_recipe
        self._refuse_lacking()

    def _refuse_lacking(self) -> None:
        """Raise HarnessError where the journal lacks a trained recipe of the plan, which is kept after it is asked."""
        plan, known = self.store.load_plan(), {cell.axes for cell in self.cells}
        lost = [] if plan is None else [trial for trial in expand(plan) if plan.cells[trial.cell].axes not in known]
        if plan is not None and (trained := [trial for trial, record in self.store.each(lost) if record is not None]):
            path, label = self.store.folder / study_log.NAME, plan.cells[trained[0].cell].label
            raise HarnessError(
                f"{path} was cut or edited: it lacks the recipe '{label}', which was trained", fix=RESTORE
            )

    def _join(self, number: int, params: Mapping[str, Any], told: bool) -> bool:
        """Take an asked recipe into the plan; whether it is new there."""
        self.asked += 1
        cell = self._cell(params)
        fresh = cell.settings not in {existing.settings for existing in self.cells}
        if fresh:
            self.cells.append(cell)
        if not told:
            self.open[number] = cell
        return fresh

    def _cell(self, params: Mapping[str, Any]) -> Cell:
        return suggestions.cell_of(self.template.cells[0].settings, self.search.space, params)

    def _ids(self, recipe: AnyRecipe) -> list[str]:
        return [Trial(recipe=recipe, seeds=seeds, cell=0).id for seeds in self.template.seeds]

    def _tell(self) -> None:
        """Tell the study of every asked recipe whose trials all have records, or that was given up."""
        for number, cell in list(self.open.items()):
            if cell.settings in self._given_up:
                self._study.tell_stopped(number, self._given_up[cell.settings])
                del self.open[number]
                continue
            ranked = search_ranking.judged([self.store.load(trial_id) for trial_id in self._ids(cell.settings)])
            if ranked.complete:
                self._study.tell(number, ranked)
                del self.open[number]

    def _ask(self) -> bool:
        """Suggest a recipe and keep it in the journal; whether it is new to the plan."""
        trial = self._study.ask()
        cell = self._cell(trial.params)
        self._study.note_recipe(trial, cell.label, self._ids(cell.settings))
        return self._join(trial.number, trial.params, told=False)


def _finished(record: Record | None) -> bool:
    return record is not None and record.status == "finished"
