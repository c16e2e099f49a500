"""How plans, ended sweeps, reruns and verified records look on a screen."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from harness.cli.console import Console
from harness.cli.progress import plain, print_headline, print_json
from harness.common.errors import HarnessError
from harness.common.text import count_noun, show
from harness.config.trials import Sweep, expand
from harness.execution import driver
from harness.execution import rerun as rerunning
from harness.execution.lookup import program
from harness.models import keep_weights, saved
from harness.records.reading import Unreadable
from harness.records.record import Record
from harness.records.store import Store
from harness.scripts import commands

if TYPE_CHECKING:
    from harness.execution.verification import verify as verifying
    from harness.execution.verification.folder import Finding
    from harness.report.of_sweep import Answer

_MOST_FAILED = 3  # trials that a sweep's end names


def print_plan_of_search(sweep: Sweep, store: Store, reason: str, *, as_json: bool) -> None:
    """What a search will train at most, and how far it is."""
    assert sweep.search is not None
    search, plan = sweep.search, store.load_plan()
    ended = None if plan is None else driver.ended(plan, store)
    trials = search.recipes * len(sweep.seeds)
    finished, crashed = (ended.finished, ended.crashed) if ended else (0, 0)
    if as_json:
        counts = {"finished": finished, "crashed": crashed, "missing": max(0, trials - finished - crashed)}
        names: dict[str, object] = {"sweep": sweep.name, "profile": sweep.profile, "reason": reason}
        print_json(names | {"trials": trials, "cells": search.recipes} | counts)
        return
    out = Console()
    print_headline(out, sweep, reason)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("field", "searched"):
        table.add_column(name)
    for dimension in search.space:
        scale = (
            ", in the logarithm" if dimension.log else f", in steps of {show(dimension.step)}" if dimension.step else ""
        )
        words = (
            ", ".join(map(show, dimension.choices))
            if dimension.choices
            else f"{show(dimension.low)} to {show(dimension.high)}{scale}"
        )
        only = " and ".join(f"{name} {' or '.join(map(show, values))}" for name, values in dimension.when)
        table.add_row(Text(dimension.field), Text(words + (f" (where {only})" if only else "")))
    out.print_table(table)
    recipes, seeds = count_noun(search.recipes, "recipe"), count_noun(len(sweep.seeds), "seed")
    tried = len(plan.cells) if plan else 0
    so_far = f"{count_noun(tried, 'recipe')} tried, {finished} trials finished, {crashed} crashed"
    size = f"{recipes} × {seeds} = {count_noun(trials, 'trial')}"
    pruner = "" if search.pruner is None else f", {search.pruner.name.replace('_', ' ')} pruner"
    out.print(f"Up to {size} ({search.sampler}, {search.objective}{pruner}): {so_far}.", soft_wrap=True)
    if search.confirm and search.best:
        seeds = f"{count_noun(len(search.confirm), 'fresh seed')} each"
        if search.confirm_rule is not None:
            seeds = f"fresh seeds that are added by rule ({search.confirm_rule.words})"
        again = f"The best {search.best} are then trained on {seeds}."
        out.print(again)


def cell_table(sweep: Sweep, records: Mapping[str, Record], unreadable: Mapping[str, Unreadable]) -> Table:
    """A line a cell: its trials and how many are finished, failed, crashed, missing, and unreadable if any is."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in sweep.axes or ("recipe",):
        table.add_column(name)
    for name in ("trials", "finished", "failed", "crashed", "missing", *(("unreadable",) if unreadable else ())):
        table.add_column(name, justify="right")
    trials = defaultdict(list)
    for trial in expand(sweep):
        trials[trial.cell].append(trial)
    for index, cell in enumerate(sweep.cells):
        counted = driver.count(trials[index], records, unreadable)
        counts = [counted.planned, counted.finished, counted.failed, counted.crashed, counted.missing]
        counts += [counted.unreadable] if unreadable else []
        names = [Text(show(value)) for _, value in cell.axes] or [Text("the only one")]
        table.add_row(*names, *map(str, counts))
    return table


def print_ended(out: Console, sweep: Sweep, ended: driver.SweepOutcome, limited: bool = False) -> None:
    """Say how a sweep ended: counts over the plan, and what to do about the rest."""
    nothing = "nothing was missing" if not ended.missing and not limited else "none trained now"
    trained = nothing if not ended.trained_now else f"{ended.trained_now} trained now"
    out.print(
        f"{ended.finished} of {ended.planned} trials finished ({trained}); {ended.failed} failed.", soft_wrap=True
    )
    if ended.crashed:
        out.print(f"{ended.crashed} crashed: see the report; train them again with --retry-crashed.", soft_wrap=True)
    verb = "is" if ended.missing == 1 else "are"
    if ended.missing and limited:
        out.print(
            f"{count_noun(ended.missing, 'planned trial')} {verb} missing: "
            "re-run without --only and --max-trials to train them.",
            soft_wrap=True,
        )
    elif ended.missing:
        out.print(f"{ended.missing} {verb} missing: re-run the same command to train them.", soft_wrap=True)
    if ended.unreadable:
        out.print(f"{ended.unreadable} unreadable: re-run the same command to train them again.", soft_wrap=True)


def print_answer(out: Console, sweep: Sweep, store: Store, answer: Answer, again: str) -> None:
    """What the report says first, which runs failed and how to train one again, and where the page is."""
    out.print(Text(plain(answer.verdict), style="bold"), soft_wrap=True)
    if answer.recommendation:
        out.print(Text(plain(answer.recommendation)), soft_wrap=True)
    failed = [
        record.id for record in store.records(sweep).values() if record.measured and record.measured.outcome == "failed"
    ]
    if failed:
        others = f" and {len(failed) - _MOST_FAILED} more" if len(failed) > _MOST_FAILED else ""
        out.print(Text(plain(f"Failed: {', '.join(failed[:_MOST_FAILED])}{others}.")), soft_wrap=True)
        out.print(Text(f"Train one again: {again} --trial {failed[0]}"), soft_wrap=True)
    out.print(Text(f"Report: {answer.page}"), soft_wrap=True)
    out.print(Text(f"Open it: {shlex.join([program(), 'open', str(store.folder)])}"), soft_wrap=True)


def print_commands(out: Console, sweep: Sweep, store: Store) -> None:
    """The command of each run, as a person would type it."""
    if not sweep.is_script:
        raise HarnessError("--show-commands is of the sweep of a script, and the engine trains this one")
    for trial in expand(sweep):
        out.print(Text(commands.shown(trial, str(store.folder / "runs" / trial.id))), soft_wrap=True)


def print_kept(out: Console, sweep: Sweep, store: Store, keep: saved.Which, again: str) -> None:
    """Which of the requested weights are saved, and how to get the rest."""
    if keep == "none":
        return
    there, lacking = saved.kept(store), keep_weights.unkept(sweep, store, keep)
    out.print(Text(f"Models: {count_noun(len(there), 'trial')} saved in {store.folder / 'models'}"), soft_wrap=True)
    if lacking:
        others = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
        line = f"Trained without --keep: {lacking[0]}{others}; to save its weights: {again} --trial {lacking[0]} --keep"
        out.print(Text(line), soft_wrap=True)


def print_comparison(out: Console, comparison: rerunning.RerunComparison) -> None:
    """What a rerun found, with the probable reason of a difference."""
    old, new = comparison.record.measured, comparison.again.measured
    assert old is not None
    assert new is not None
    score = "no score (diverged)" if new.final_score is None else f"{new.metric} {new.final_score:.4f}"
    outcome = new.outcome or "not judged"
    out.print(f"Now: {score}, {outcome}{f' ({new.reason})' if new.reason else ''}.")
    if comparison.verdict == "identical":
        of_script = comparison.record.script is not None
        what = f"all {new.steps} steps, the dev logits and the weights" if comparison.by_steps else "the final weights"
        if of_script:
            what = "the score, further metrics, curves and answers" if comparison.by_steps else "the score"
        out.print(Text.assemble(("identical", "bold"), f": {what}, bit for bit."))
        if not comparison.by_steps and not of_script:
            out.print("  The record's curves are not kept here or can't be read, so the steps were not compared.")
        return
    size = "not known" if comparison.max_difference is None else f"{comparison.max_difference:.3g}"
    first = "" if comparison.first_differing_step is None else f", first at step {comparison.first_differing_step}"
    words = {"within_tolerance": "equal within tolerance", "different": "different"}
    out.print(Text.assemble((words[comparison.verdict], "bold"), f": largest difference {size}{first}."))
    was = "no score (diverged)" if old.final_score is None else f"{old.final_score:.4f}"
    out.print(f"The record: {was}, {old.outcome or 'not judged'}. Probable reason:")
    for reason in comparison.reasons:
        out.print(f"  {reason}")


def print_checked(out: Console, sweep: Sweep, checked: verifying.Verification) -> None:
    """The counts, then a line a finding, of each rule the first ten."""
    out.print(Text(f"{sweep.folder_name}: {count_noun(checked.planned, 'planned trial')}."))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("records", "finished", "crashed", "missing", "unreadable", "problems", "notes"):
        table.add_column(name, justify="right")
    counts = (checked.finished + checked.crashed, checked.finished, checked.crashed, checked.missing)
    table.add_row(*map(str, (*counts, checked.unreadable, len(checked.problems), len(checked.notes))))
    out.print_table(table)
    for kind, findings in (("problem", checked.problems), ("note", checked.notes)):
        shown: Counter[str] = Counter()
        for finding in findings:
            shown[finding.rule] += 1
            if shown[finding.rule] <= 10:
                out.print(Text(f"{kind}: {finding.file}: {finding.rule}: {finding.found}"), soft_wrap=True)
        for rule, number in shown.items():
            if number > 10:
                out.print(Text(f"{kind}: {rule}: {number - 10} more, which --json lists"), soft_wrap=True)


def print_retrained(out: Console, outcome: rerunning.RerunComparison | Finding) -> None:
    """One line on a trial that was trained again, or could not be."""
    if not isinstance(outcome, rerunning.RerunComparison):
        out.print(Text(f"  problem: {outcome.file}: {outcome.rule}: {outcome.found}"), soft_wrap=True)
        return
    line = f"  {outcome.verdict.replace('_', ' ')}: {outcome.trial}"
    if outcome.verdict != "identical":
        size = "not known" if outcome.max_difference is None else f"{outcome.max_difference:.3g}"
        first = "" if outcome.first_differing_step is None else f", first at step {outcome.first_differing_step}"
        line += f": largest difference {size}{first}; probable reason: {'; '.join(outcome.reasons)}"
    elif not outcome.by_steps:
        weights = "the final weights alone: the record's curves are not kept here"
        line += f" ({'the score alone' if outcome.record.script is not None else weights})"
    out.print(Text(line), soft_wrap=True)
