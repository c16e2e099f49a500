"""The commands: they parse and print, nothing else."""

from __future__ import annotations

import math
import os
import re
import secrets
import shlex
import signal
import sys
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from harness.cli.arguments import (
    NO_MODEL,
    kept_models,
    one_trial,
    planned,
    planned_to_verify,
    program,
    recipes_of_data,
    rerun_words,
    seconds_of,
    study_of,
    sweep_file,
    sweep_words,
)
from harness.cli.data_views import print_data
from harness.cli.progress import (
    duration,
    plain,
    pretraining_progress,
    print_headline,
    print_json,
    print_untested,
    row_progress,
    size_of,
    step_progress,
    sweep_progress,
)
from harness.cli.run_views import (
    cell_table,
    print_checked,
    print_comparison,
    print_ended,
    print_kept,
    print_plan_of_search,
    print_retrained,
)
from harness.cli.status_views import print_standing, standing_parts
from harness.common import hub
from harness.common.errors import HarnessError
from harness.common.spare_process import SpareProcess
from harness.common.text import count_noun
from harness.config.keys import all_keys
from harness.config.trials import Sweep, Trial, expand, where
from harness.execution import driver, gate, inputs, interrupts, lanes_memory, machine
from harness.execution import rerun as rerunning
from harness.execution.duration import estimate
from harness.models import saved
from harness.records.store import Store
from harness.records.study import Study, joined

if TYPE_CHECKING:
    from harness.analysis.search_ranking import StoppedRecipe

# Panels of `harness pretrain --help`.
_TEXTS, _MODEL, _PREDICT = "Texts", "Model and tokenizer", "What is predicted"

# How often `status --watch` looks, and how often it prints where there is no terminal.
_LOOK_SECONDS, _BLOCK_SECONDS = 2.0, 30.0

# Bad options and arguments: click's class, or that of the copy of click that newer versions of typer hold.
_UsageError: Any = typer.BadParameter.__mro__[1]


class _Commands(TyperGroup):
    """Turns bad input into one line and exit 2, Ctrl-C into exit 130 and SIGTERM during a sweep into 143."""

    def invoke(self, ctx: Any) -> object:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except HarnessError as error:
            print(f"harness: {error}", file=sys.stderr)
            raise typer.Exit(2) from None
        except _UsageError as error:
            words = " ".join(filter(None, ("harness", ctx.invoked_subcommand)))
            unread = HarnessError(
                "the command line can be read",
                got=error.format_message().rstrip("."),
                allowed=f"what `{words} --help` lists",
                fix="correct it",
            )
            print(f"harness: {unread}", file=sys.stderr)
            raise typer.Exit(2) from None
        except OSError as error:
            if error.filename is None:  # a broken pipe, say: no file's fault
                raise
            unusable = HarnessError(
                "the files of a sweep and its results can be read and written",
                got=f"{error.filename} ({error.strerror})",
                allowed="a folder of your own with room in it",
                fix="free it, or name another folder with --results",
            )
            print(f"harness: {unusable}", file=sys.stderr)
            raise typer.Exit(2) from None
        except KeyboardInterrupt as stopped:
            raise typer.Exit(143 if isinstance(stopped, interrupts.Terminated) else 130) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Is my fine-tuning recipe stable, and if not, what makes it so?",
)

SweepName = Annotated[str, typer.Argument(metavar="SWEEP", help="A name under sweeps/ or a path to a YAML file.")]
Begun = Annotated[str, typer.Argument(metavar="SWEEP|DIR", help="A sweep that was begun, or its results folder.")]
ProfileName = Annotated[str | None, typer.Option("--profile", help="paper, embedded, …; default: what fits here.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; may repeat.")]
Results = Annotated[Path, typer.Option("--results", metavar="DIR", help="Where results folders lie.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Threads a worker computes with.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Workers; default: one a GPU, or one a core.")]
Trust = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the Python code that a model brings; never set by a sweep.")
]
Lanes = Annotated[int | None, typer.Option("--pack", min=1, help="Trials trained together; default: what fits.")]
Address = Annotated[
    str | None, typer.Option("--address", metavar="RAY", help="A running Ray cluster: auto or host:port.")
]
Notice = Annotated[
    float, typer.Option("--notice", min=0, help="Seconds after SIGTERM in which running packs may still end.")
]
HangMinutes = Annotated[
    float,
    typer.Option(
        "--hang-minutes", min=0.01, help="Kill a worker that does no step for so long; not with --in-process."
    ),
]
CheckpointMinutes = Annotated[
    float | None,
    typer.Option(
        "--checkpoint-minutes",
        min=0.001,
        help="Keep the state of running packs so often, to go on from after a kill.",
    ),
]
WorkersPerGpu = Annotated[
    int,
    typer.Option(
        "--workers-per-gpu", min=1, metavar="N", help="Workers that share a GPU: small models leave most of it idle."
    ),
]
TimeLimit = Annotated[
    str | None,
    typer.Option(
        "--time-limit",
        metavar="TIME",
        help="2h, 90m, 30s or 1:30:00: end by then and keep the state of what trains; re-run to resume.",
    ),
]
InProcess = Annotated[
    bool, typer.Option("--in-process", help="Train here without Ray, one pack or, of a search, one recipe at a time.")
]
Compiled = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Compile the training step: minutes of compilation, then faster steps and other last bits; "
        "default: as the sweep was begun, a new one without.",
    ),
]
Where = Annotated[
    list[str], typer.Option("--where", metavar="KEY=VALUE", help="Which recipe, as bias_correction=on; may repeat.")
]
TrialId = Annotated[str | None, typer.Option("--trial", metavar="ID", help="The trial's id, or its beginning.")]


@app.command()
def plan(
    sweep: SweepName,
    profile: ProfileName = None,
    overrides: Overrides = [],
    results: Results = Path("results"),
    trust_remote_code: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Print cells, trials, what is finished, crashed or missing, and an estimate; train nothing.

    It refuses what training would refuse, as far as that can be told without asking the hub.
    """
    hub.trust_remote_code(trust_remote_code)
    resolved, reason = machine.resolve(sweep_file(sweep), profile, overrides)
    store = Store(results / resolved.folder_name)
    notes = inputs.planned(resolved)
    if resolved.search is not None:
        from harness.search import search as searching

        searching.check(resolved, store)
        gate.check_planned(resolved, {})
        print_plan_of_search(resolved, store, reason, as_json=as_json)
        return
    records = store.records(resolved)
    gate.refuse_orphans(resolved, store, records)
    gate.check_planned(resolved, records)
    ended = driver.count(expand(resolved), records)
    counts = {"finished": ended.finished, "crashed": ended.crashed, "missing": ended.missing}
    here = machine.detect_hardware()
    workers = len(here.gpus) or here.cores
    expected = estimate(resolved, records, workers)
    if as_json:
        names: dict[str, object] = {"sweep": resolved.name, "profile": resolved.profile, "reason": reason}
        reckoned = {
            "seconds_left": expected.seconds, "seconds_between": expected.between and list(expected.between),
            "seconds_from": expected.basis, "lane_bytes": expected.memory,
        }  # fmt: skip
        told = {"notes": list(notes)}
        print_json(names | {"trials": ended.planned, "cells": len(resolved.cells)} | counts | reckoned | told)
        return
    out = Console(highlight=False)
    print_headline(out, resolved, reason)
    out.print(cell_table(resolved, records))
    cells, seeds = count_noun(len(resolved.cells), "cell"), count_noun(len(resolved.seeds), "seed")
    out.print(f"{cells} × {seeds} = {count_noun(ended.planned, 'trial')}: "
              f"{ended.finished} finished, {ended.crashed} crashed, {ended.missing} missing.")  # fmt: skip
    took = "time not known" if expected.seconds is None else f"about {duration(expected.seconds)}"
    if expected.between is not None:
        took = "between " + " and ".join(map(duration, expected.between))
    device = count_noun(workers, "GPU" if here.gpus else "core")
    out.print(f"To train what is missing on {device}: {took} ({expected.basis}).", soft_wrap=True)
    size = "not known here" if expected.memory is None else f"about {size_of(expected.memory)}"
    lanes = lanes_memory.pack_size(resolved.cells[0].recipe, "cuda" if here.gpus else "cpu", None)
    out.print(f"Memory a lane: {size}; packs of up to {lanes}.")
    for note in notes:
        out.print(Text(plain(note)), soft_wrap=True)


@app.command()
def sweep(
    sweep: SweepName,
    profile: ProfileName = None,
    overrides: Overrides = [],
    results: Results = Path("results"),
    address: Address = None,
    in_process: InProcess = False,
    workers: Workers = None,
    threads: Threads = 1,
    pack: Lanes = None,
    retry_crashed: Annotated[bool, typer.Option("--retry-crashed", help="Train crashed trials again.")] = False,
    notice: Notice = 20.0,
    hang_minutes: HangMinutes = 30.0,
    checkpoint_minutes: CheckpointMinutes = None,
    only: Annotated[
        list[str], typer.Option("--only", metavar="KEY=VALUE", help="Train these alone, as lr=2e-5; may repeat.")
    ] = [],
    max_trials: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Train so many more at most, seed by seed over the cells.")
    ] = None,
    time_limit: TimeLimit = None,
    workers_per_gpu: WorkersPerGpu = 1,
    compiled: Compiled = None,
    keep: Annotated[
        saved.Which,
        typer.Option("--keep", help="Keep the weights of each cell's best trial, or of all, as models to load."),
    ] = "none",
    trust_remote_code: Trust = False,
) -> None:
    """Train what is missing, then report; stop it at any time and the same command goes on.

    Ctrl-C once lets the running packs end, twice leaves at once. Exit 0 where all that was asked for is finished
    (the whole plan, or what --only and --max-trials leave of it), 1 where some of that crashed or is missing.
    """
    hub.trust_remote_code(trust_remote_code)
    seconds = None if time_limit is None else seconds_of(time_limit)
    path = sweep_file(sweep)
    resolved, reason = machine.resolve(path, profile, overrides)
    if resolved.search is not None:
        raise HarnessError(
            "a sweep lists its cells", got=f"{path.name}, which has search:", allowed="a file without it",
            fix=f"use `harness search {sweep}`",
        )  # fmt: skip
    store = Store(results / resolved.folder_name)
    if resolved.baselines:
        from harness.execution import baselines

        baselines.check(resolved)
    out = Console(highlight=False)
    print_headline(out, resolved, reason)
    print_untested(out)
    options = driver.Options(
        in_process, address, workers, threads, pack, retry_crashed, notice, hang_minutes, checkpoint_minutes,
        only=tuple(only), max_trials=max_trials, time_limit=seconds,
        workers_per_gpu=workers_per_gpu, keep=keep, compiled=compiled,
    )  # fmt: skip
    with SpareProcess("harness.report.of_sweep") as reporting:
        with sweep_progress(out) as follow:

            def show(progress: driver.Progress) -> None:
                if progress.lanes and not in_process:  # the imports of the report take seconds while workers train
                    reporting.start()
                follow(progress)

            try:
                ended = driver.run(resolved, store, options, show)
            except KeyboardInterrupt:
                kept = driver.ended(resolved, store)
                out.print(f"\nStopped: {kept.finished} of {kept.planned} trials are kept; the same command goes on.")
                raise
        print_ended(out, resolved, ended, limited=bool(only) or max_trials is not None)
        if resolved.baselines:
            baselines.train(resolved, store, out.print)
        again = rerun_words(path, sweep, resolved, results)
        print_kept(out, resolved, store, keep, again)
        page = reporting.call("write", resolved, store.folder, again)
        out.print(f"Report: {page}", soft_wrap=True)
    if ended.left:
        raise typer.Exit(1)


@app.command()
def search(
    sweep: SweepName,
    profile: ProfileName = None,
    overrides: Overrides = [],
    results: Results = Path("results"),
    address: Address = None,
    in_process: InProcess = False,
    workers: Workers = None,
    threads: Threads = 1,
    pack: Lanes = None,
    notice: Notice = 20.0,
    hang_minutes: HangMinutes = 30.0,
    checkpoint_minutes: CheckpointMinutes = None,
    time_limit: TimeLimit = None,
    workers_per_gpu: WorkersPerGpu = 1,
    compiled: Compiled = None,
    stop_hopeless: Annotated[
        bool,
        typer.Option(
            "--stop-hopeless", help="Give a recipe up when all its runs look lost by the rule of `harness diagnose`."
        ),
    ] = False,
    tune: Annotated[
        bool, typer.Option("--tune", help="Train over Ray Tune, whose ASHA then is `pruner: successive_halving`.")
    ] = False,
    trust_remote_code: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Look for a good and stable recipe in a space: each is trained over the seeds, the best again on fresh ones.

    Stop it at any time and the same command goes on. Exit 0 where all was trained, 1 where runs crashed or are missing.
    """
    from harness.report import search_page
    from harness.search import search as searching

    hub.trust_remote_code(trust_remote_code)
    seconds = None if time_limit is None else seconds_of(time_limit)
    resolved, reason = machine.resolve(sweep_file(sweep), profile, overrides)
    store = Store(results / resolved.folder_name)
    out = Console(highlight=False, stderr=as_json)
    print_headline(out, resolved, reason)
    print_untested(out)
    options = driver.Options(
        in_process, address, workers, threads, pack, notice=notice, hang_minutes=hang_minutes,
        checkpoint_minutes=checkpoint_minutes, time_limit=seconds, workers_per_gpu=workers_per_gpu, tune=tune,
        compiled=compiled,
    )  # fmt: skip
    with sweep_progress(out) as follow:
        try:
            ended = searching.run(resolved, store, options, follow, stop_hopeless)
        except KeyboardInterrupt:
            out.print("\nStopped: what was trained is kept; the same command goes on.")
            raise
    found = search_page.write_report(ended.sweep, store, searching.stopped(ended.sweep, store))
    if as_json:
        print_json(found.summary)
    else:
        for sentence in found.said:
            out.print(Text(sentence), soft_wrap=True)
        out.print(f"Search: {found.page}", soft_wrap=True)
        if ended.confirmed is not None:
            again = shlex.join([program(), "report", str(store.folder.parent / ended.confirmed.folder_name)])
            out.print(Text(f"The runs on fresh seeds in full: {again}"), soft_wrap=True)
    if not ended.complete:
        if not as_json:
            out.print("Runs crashed or are missing: the same command trains what is missing.")
        raise typer.Exit(1)


@app.command(name="lr-find")
def find_lr(
    sweep: SweepName,
    conditions: Where = [],
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many of the sweep's seeds.")] = 4,
    low: Annotated[float, typer.Option("--low", help="The first learning rate.")] = 1e-6,
    high: Annotated[float, typer.Option("--high", help="The last learning rate.")] = 1e-2,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Over so many epochs' steps.")] = 1,
    profile: ProfileName = None,
    overrides: Overrides = [],
    results: Results = Path("results"),
    threads: Threads = 1,
    trust_remote_code: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Suggest a learning rate: an exponential range test over several seeds, and whether finished runs failed there."""
    from harness.search import lr_range

    hub.trust_remote_code(trust_remote_code)
    resolved, reason = machine.resolve(sweep_file(sweep), profile, overrides)
    store = Store(results / resolved.folder_name)
    messages = Console(highlight=False, stderr=as_json)
    print_headline(messages, resolved, reason)
    print_untested(messages)
    with step_progress(messages, "steps") as progress:
        found = lr_range.find(
            resolved, store, where(resolved, conditions), seeds=seeds, low=low, high=high, epochs=epochs,
            threads=threads, progress=progress,
        )  # fmt: skip
    summary = lr_range.save(found, resolved, store.folder / "lr_find")
    if as_json:
        print_json(summary)
        return
    for sentence in lr_range.words(found):
        messages.print(Text(sentence), soft_wrap=True)
    messages.print(f"Picture: {store.folder / 'lr_find' / 'lr_find.png'}", soft_wrap=True)


@app.command()
def rerun(
    sweep: SweepName,
    trial: TrialId = None,
    seed: Annotated[int | None, typer.Option("--seed", help="The trial's seed.")] = None,
    conditions: Where = [],
    profile: ProfileName = None,
    overrides: Overrides = [],
    results: Results = Path("results"),
    tolerance: Annotated[
        float,
        typer.Option(help="Largest difference that counts as equal within tolerance, where rounding can explain it."),
    ] = rerunning.TOLERANCE,
    keep: Annotated[bool, typer.Option("--keep", help="Keep its weights, where they are the record's.")] = False,
    trust_remote_code: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Train one trial again and compare it with its record, step by step; never overwrites.

    It says identical (bit for bit), equal within tolerance or different. Equal within tolerance is a difference that
    rounding can explain: no larger than --tolerance, with the same outcome, the same inputs, and a device, machine,
    thread count, kind of kernels or version of torch that is known to be another. Where these are the same, bits are
    the same too, so that any difference is one. The default tolerance is ten times what AVX2 kernels in place of
    AVX-512 made of stable runs (1e-4); in unstable ones rounding itself grows beyond any tolerance.
    """
    hub.trust_remote_code(trust_remote_code)
    resolved, store = planned(sweep, profile, overrides, results)
    chosen = one_trial(resolved, trial, seed, conditions)
    messages = Console(highlight=False, stderr=as_json)
    print_untested(messages)
    label = resolved.cells[chosen.cell].label
    messages.print(Text(f"Training {chosen.id} again: {label}, seed {chosen.seeds.seed}."), soft_wrap=True)
    with step_progress(messages, "steps") as progress:
        if keep:
            with driver.keeping_one(resolved, store) as shelf:
                found = rerunning.rerun(resolved, store, chosen, tolerance, progress, shelf.keeping)
                if found.verdict == "identical":
                    shelf.publish([found.again])
        else:
            found = rerunning.rerun(resolved, store, chosen, tolerance, progress)
    kept = store.folder / "models" / found.trial if keep and found.verdict == "identical" else None
    if as_json:
        verdict = {"trial": found.trial, "verdict": found.verdict}
        verdict |= {"kept": str(kept)} if kept else {}
        print_json(
            verdict
            | {"max_difference": found.max_difference, "first_differing_step": found.first_differing_step}
            | {"reasons": list(found.reasons)}
        )
    else:
        print_comparison(messages, found)
        if keep:
            said = f"Model: {kept}" if kept else "Its weights are not the record's and were not kept."
            messages.print(Text(said), soft_wrap=True)
    if found.verdict != "identical":
        raise typer.Exit(1)


@app.command()
def verify(
    sweep: Begun,
    profile: ProfileName = None,
    results: Results = Path("results"),
    retrain: Annotated[
        int | None, typer.Option("--retrain", metavar="K", min=1, help="Train so many again, drawn at random.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Which ones --retrain draws; default: a fresh one, printed.")
    ] = None,
    trust_remote_code: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Check every record and its arrays, and train some again to compare bit for bit; changes nothing.

    --retrain compares as `harness rerun` does, at its default tolerance.
    """
    from harness.execution import verify as verifying

    hub.trust_remote_code(trust_remote_code)
    if seed is not None and retrain is None:
        raise HarnessError(
            "--seed draws what --retrain trains again", got="--seed alone",
            allowed="--retrain K --seed S", fix="add --retrain or leave --seed out",
        )  # fmt: skip
    resolved, store = planned_to_verify(sweep, profile, results)
    out = Console(highlight=False)
    messages = Console(highlight=False, stderr=as_json)
    with step_progress(messages, "records") as follow:
        checked = verifying.check(resolved, store, follow if messages.is_terminal else None)
    if not as_json:
        print_checked(out, resolved, checked)
    chosen: tuple[Trial, ...] = ()
    if retrain is not None:
        seed = secrets.randbelow(2**32) if seed is None else seed
        chosen = verifying.draw(checked.repeatable, retrain, seed)
        print_untested(messages)
        messages.print(f"Training {len(chosen)} of {len(checked.repeatable)} finished trials again (--seed {seed}).")
    problems, again = list(checked.problems), []
    for number, trial in enumerate(chosen, 1):
        label = resolved.cells[trial.cell].label
        said = f"{number} of {len(chosen)}: {trial.id} ({label}, seed {trial.seeds.seed})"
        messages.print(Text(said), soft_wrap=True)
        with step_progress(messages, "steps") as progress:
            found = verifying.retrain(resolved, store, trial, rerunning.TOLERANCE, progress)
        if isinstance(found, rerunning.RerunComparison):
            again.append(found)
        else:
            problems.append(found)
        if not as_json:
            print_retrained(out, found)
    counts = Counter(found.verdict for found in again)
    if as_json:
        print_json({
            "sweep": resolved.name, "profile": resolved.profile, "planned": checked.planned,
            "finished": checked.finished, "crashed": checked.crashed, "missing": checked.missing,
            "problems": [asdict(found) for found in problems], "notes": [asdict(found) for found in checked.notes],
            "retrained": [
                {"trial": found.trial, "verdict": found.verdict, "max_difference": found.max_difference,
                 "first_differing_step": found.first_differing_step, "reasons": list(found.reasons)}
                for found in again
            ],
            "seed": seed,
        })  # fmt: skip
    elif retrain is not None:
        unable = len(chosen) - len(again)
        out.print(
            f"Retrained {len(chosen)} (--seed {seed}): {counts['identical']} identical, {counts['within_tolerance']} "
            f"within tolerance, {counts['different']} different{f', {unable} could not be trained' if unable else ''}.",
            soft_wrap=True,
        )
    if problems or counts["different"]:
        raise typer.Exit(1)


@app.command()
def status(
    sweep: Annotated[str, typer.Argument(metavar="SWEEP|DIR", help="A sweep, or its results folder.")],
    profile: ProfileName = None,
    results: Results = Path("results"),
    watch: Annotated[bool, typer.Option("--watch", help="Look again until the sweep ends or Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print how far a sweep is, from any terminal, while it runs or afterwards; changes nothing."""
    from harness.analysis import status as standing

    if watch and as_json:
        raise HarnessError(
            "--json prints one object", got="--watch with it", allowed="one of the two", fix="leave one out"
        )
    resolved, store = planned(sweep, profile, [], results)
    look = standing.Watch(resolved, store).look
    if as_json:
        print_json(look().as_json() | {"stopped": [asdict(one) for one in _stopped(resolved, store)]})
        return
    out = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    words = sweep_words(sweep, resolved, store)
    if watch and out.is_terminal:
        with Live(console=out, auto_refresh=False) as live:
            while (now := look()).state == "running":
                live.update(Group(*standing_parts(now, words, most_cells=20)), refresh=True)
                time.sleep(_LOOK_SECONDS)
            live.update(Group(*standing_parts(now, words, most_cells=20)), refresh=True)
        return
    printed = -math.inf
    while watch and (now := look()).state == "running":
        if time.monotonic() - printed >= _BLOCK_SECONDS:
            printed = time.monotonic()
            print_standing(out, standing_parts(now, words))
            out.print()
            sys.stdout.flush()
        time.sleep(_LOOK_SECONDS)
    print_standing(out, standing_parts(look(), words, stopped=_stopped(resolved, store)))


def _stopped(sweep: Sweep, store: Store) -> tuple[StoppedRecipe, ...]:
    """The recipes of a search that were given up; none of a sweep."""
    if sweep.search is None:
        return ()
    from harness.search import search as searching

    return searching.stopped(sweep, store)


@app.command()
def data(
    words: Annotated[
        list[str],
        typer.Argument(metavar="TASK|SWEEP|FILES…", help="A GLUE task or a sweep, its files after it; or files alone."),
    ],
    model: Annotated[
        str | None, typer.Option(metavar="NAME|DIR", help="Count in its tokens; default: the sweep's model.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Which texts would be cut; default: the sweep's, or 128.")
    ] = None,
    profile: ProfileName = None,
    overrides: Overrides = [],
    as_json: AsJson = False,
) -> None:
    """Print what a task's data are like: sizes, labels, lengths, what would be cut, duplicates, leaks, empty texts.

    Columns of your own files: --set task.text=review --set task.label=stars, as in a sweep.
    """
    from harness.data import summary as describing

    found, notes = [], []
    for recipe in recipes_of_data(words, model, max_length, profile, overrides):
        tokenizer = None
        if model is not None or recipe.model.name != NO_MODEL:
            from harness.models import pretrained

            try:
                tokenizer = pretrained.tokenizer(recipe.model)
            except HarnessError as error:
                if model is not None:
                    raise
                notes.append(f"Tokens are not counted: {error}")
        one = describing.describe(recipe.task, tokenizer, recipe.max_length)
        if one not in found:  # models with the same tokenizer see the same
            found.append(one)
    if as_json:
        print_json({"tasks": [asdict(one) for one in found], "notes": notes})
        return
    out = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    for one in found:
        print_data(out, one)
    for note in notes:
        out.print(Text(note), soft_wrap=True)


@app.command()
def report(
    names: Annotated[
        list[str], typer.Argument(metavar="SWEEP|DIR…", help="A sweep, results folder or import; or two.")
    ],
    profile: ProfileName = None,
    overrides: Overrides = [],
    results: Results = Path("results"),
    threshold: Annotated[float | None, typer.Option(help="Also count runs with a worse score than this.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write tables, figures and the page from the runs there are, complete or not; of two, side by side."""
    from harness.report import page as reports

    if len(names) > 2:
        raise HarnessError(
            "a report is of one study, or of two side by side",
            got=f"{len(names)} names",
            allowed="one or two",
            fix="report them two by two",
        )
    studies = [study_of(name, profile, overrides, results) for name in names]
    study, folder = studies[0]
    if len(studies) == 2:
        study = joined(study, studies[1][0])
        folder = results / re.sub(r"[^\w@.=-]+", "-", re.sub(r"[()]", "", study.name))
    made = reports.write(study, folder / "report", threshold)
    summary, pages = made.summary if as_json else {}, [f"Report: {made.page}"]
    if len(study.sweeps) == 1 and study.sweeps[0].search is not None:
        from harness.report import search_page
        from harness.search import search as searching

        given_up = searching.stopped(study.sweeps[0], Store(folder))
        found = search_page.write_report(study.sweeps[0], Store(folder), given_up)
        summary |= {"search": found.summary}
        pages.append(f"Search: {found.page}")
    if as_json:
        print_json(summary)
        return
    for page in pages:
        Console(highlight=False).print(page, soft_wrap=True)


@app.command()
def diagnose(
    sweep: Begun,
    profile: ProfileName = None,
    overrides: Overrides = [],
    results: Results = Path("results"),
    surface: Annotated[
        tuple[str, str] | None,
        typer.Option("--surface", metavar="TRIAL TRIAL", help="Also the loss surface of two kept trials of one cell."),
    ] = None,
    threads: Threads = 1,
    as_json: AsJson = False,
) -> None:
    """Say why runs fail and how early it could be told, and write it into the report."""
    from harness.report import diagnosis
    from harness.report import page as reports
    from harness.report.next_experiment import next_sweep

    study, folder = study_of(sweep, profile, overrides, results)
    _refuse_nothing_to_tell(study, sweep, folder)
    if surface is not None:
        from harness.execution import loss_surface as surfaces

        with step_progress(Console(highlight=False, stderr=as_json), "points") as progress:
            found = surfaces.compute(study.sweeps[0], Store(folder), surface, threads=threads, progress=progress)
        study = replace(study, surface=found)
    made = reports.write(study, folder / "report")
    if as_json:
        print_json(diagnosis.summary(made.analysis, str(made.page)))
        return
    out = Console(highlight=False)
    for sentence in diagnosis.sentences(made.analysis):
        out.print(Text(plain(sentence)), soft_wrap=True)
    proposed = next_sweep(made.analysis)
    if proposed is not None:
        out.print(Text(plain(f"Next: {proposed[0]}")), soft_wrap=True)
        out.print(Text(f"\n{proposed[1]}"), soft_wrap=True)
    out.print(f"Report: {made.page}", soft_wrap=True)


def _refuse_nothing_to_tell(study: Study, given: str, folder: Path) -> None:
    """Raise HarnessError where a diagnosis of what was `given` has nothing to look at."""
    judged = study.runs[(study.runs["status"] == "finished") & study.runs["outcome"].notna()]
    name = study.name
    if not any((kept := study.curves(int(row))) is not None and kept.recording for row in judged.index):
        texts = any(cell.recipe.task.kind == "texts" for sweep in study.sweeps for cell in sweep.cells)
        if not study.sweeps:
            got, fix = f"{name}, which was imported", f"`harness report {name}` says what its columns allow"
        elif not texts:
            got, fix = f"{name}, a token task, which nothing is recorded of", "see its report"
        elif judged.empty:
            words = sweep_words(given, study.sweeps[0], Store(folder)) or "the command that began it"
            got, fix = f"0 finished runs of {name}", f"`{words}` trains what is missing"
        else:
            got = f"{count_noun(len(judged), 'finished run')} of {name}, none recorded"
            fix = "train them again in another --results folder; their results will be the same"
        raise HarnessError(
            "a diagnosis reads what was recorded while runs trained",
            got=got,
            allowed="runs of a sweep without `record: off`, trained by this version",
            fix=fix,
        )
    failed = int((judged["outcome"] == "failed").sum())
    if failed in (0, len(judged)):
        raise HarnessError(
            "a diagnosis tells failed runs from others",
            got=f"{count_noun(len(judged), 'finished run')} of {name}, {'all' if failed else 'none'} of them failed",
            allowed="a sweep with both",
            fix="add a recipe that "
            + ("holds, as a smaller lr" if failed else "fails, as a larger lr; there is nothing to explain here"),
        )


@app.command()
def export(
    sweep: Begun,
    to: Annotated[Literal["mlflow", "tensorboard", "wandb"], typer.Option("--to", help="Which kind of store.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Its folder; default: beside the records.")
    ] = None,
    uri: Annotated[
        str | None,
        typer.Option("--uri", help="Of MLflow: a server, database or file: store; default: SQLite in that folder."),
    ] = None,
    profile: ProfileName = None,
    results: Results = Path("results"),
) -> None:
    """Mirror the records into MLflow, TensorBoard or W&B (offline); again, and what has changed is replaced."""
    from harness.records import export as tracking

    resolved, store = planned(sweep, profile, [], results)
    messages = Console(highlight=False)
    with step_progress(messages, "runs") as progress:
        done = tracking.export(resolved, store, to, out, uri, progress)
    messages.print(
        Text(f"{done.written} runs written, {done.replaced} replaced, {done.left} there already: {done.place}"),
        soft_wrap=True,
    )
    messages.print(Text(f"Look at them: {done.look}"), soft_wrap=True)
    if done.needs is not None:
        messages.print(Text(f"which needs the interface installed: {done.needs}"), soft_wrap=True)


@app.command()
def keys(as_json: AsJson = False) -> None:
    """List every key of a sweep file: what it takes, as a value or as a list for an axis, and its default."""
    if as_json:
        print_json({"keys": [one._asdict() for one in all_keys()]})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("key", "default", "takes"):
        table.add_column(name)
    for one in all_keys():
        table.add_row(Text(one.name), Text(one.default or "(needed)"), Text(one.takes))
    Console(highlight=False, width=None if sys.stdout.isatty() else 140).print(table)


@app.command(name="import")
def import_runs(
    files: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE…", help="Tables, stores or folders of other tools, or an MLflow server."),
    ],
    metric: Annotated[str, typer.Option("--metric", metavar="COL", help="The column of the final scores.")],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="The results folder to write.")],
    seed: Annotated[str | None, typer.Option("--seed", metavar="COL", help="The column of the seeds.")] = None,
    seed_from: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Or: the seed in a run's folder or name, as 'seed(\\d+)'."),
    ] = None,
    cell: Annotated[
        list[str], typer.Option("--cell", metavar="COL,…", help="What tells cells apart; may repeat.")
    ] = [],
    conditions: Annotated[
        list[str],
        typer.Option("--where", metavar="COL=VALUE,…", help="Only such rows; COL!=VALUE leaves them out; may repeat."),
    ] = [],
    state: Annotated[
        str | None, typer.Option(metavar="COL|none", help="The column that tells which runs crashed or never ended.")
    ] = None,
    majority: Annotated[
        str | None, typer.Option(metavar="NUMBER|COL", help="The majority classifier's score: at it a run failed.")
    ] = None,
    higher_is_better: Annotated[bool, typer.Option("--higher-is-better/--lower-is-better")] = True,
    unit: Annotated[
        str | None, typer.Option(metavar="percent|fraction|other", help="What the scores are, where it is not clear.")
    ] = None,
    nan: Annotated[
        str | None, typer.Option(metavar="missing|diverged", help="What an empty, NaN or infinite score means.")
    ] = None,
    aggregate: Annotated[
        str | None, typer.Option(metavar="mean|median|min|max|first|last", help="Several rows of one seed become one.")
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="1..20", help="The plan: seeds of a cell without a row are missing."),
    ] = None,
    examples: Annotated[
        str | None, typer.Option(metavar="N|COL", help="Dev examples; the score is the share answered rightly.")
    ] = None,
    test: Annotated[str | None, typer.Option(metavar="COL", help="Final scores on other examples.")] = None,
    best: Annotated[str | None, typer.Option(metavar="COL", help="Best scores during training.")] = None,
    loss: Annotated[str | None, typer.Option(metavar="COL", help="Training losses at the end.")] = None,
    results: Results = Path("results"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another import of that name.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read somebody else's runs from tables, stores or folders; `harness report NAME` then reports on them."""
    from harness.records.importing.options import ImportOptions
    from harness.records.importing.runs import import_runs as read_and_write

    if (Path("sweeps") / f"{name}.yaml").is_file():
        raise HarnessError(
            "an import has a name of its own", got=f"{name}, a sweep under sweeps/",
            allowed="a name that no sweep has", fix="choose another --as",
        )  # fmt: skip
    options = ImportOptions(
        sources=tuple(files), seed=seed, metric=metric, name=name, cell=tuple(cell), where=tuple(conditions),
        majority=majority, higher_is_better=higher_is_better, nan=nan, aggregate=aggregate, seeds=seeds,
        examples=examples, test=test, best=best, loss=loss, seed_from=seed_from, state=state, unit=unit,
    )  # fmt: skip
    folder, found = read_and_write(options, results, overwrite=overwrite)
    if as_json:
        print_json({"name": name, "folder": str(folder), **found.counts})
        return
    counts = found.counts
    out = Console(highlight=False)
    out.print(
        f"{count_noun(counts['cells'], 'cell')}, {count_noun(counts['runs'], 'run')}: {counts['finished']} finished "
        f"({counts['diverged']} diverged), {counts['crashed']} crashed, {counts['missing']} missing."
    )
    for note in found.imported.notes:
        out.print(Text(note), soft_wrap=True)
    again = "" if results == Path("results") else f" --results {shlex.quote(str(results))}"
    out.print(Text(f"Report it: {program()} report {name}{again}"), soft_wrap=True)


@app.command()
def predict(
    run: Annotated[str, typer.Argument(metavar="SWEEP|MODEL", help="A kept model's folder; or a sweep, with --trial.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Texts: .tsv, .csv or .jsonl, with the task's columns; or words.")
    ],
    trial: TrialId = None,
    ensemble: Annotated[
        list[str],
        typer.Option("--ensemble", metavar="KEY=VALUE", help="All kept seeds of this cell together; may repeat."),
    ] = [],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="A .tsv, .csv or .jsonl; default: print them.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(metavar="COL", help="The column of the texts; default: the task's.")
    ] = None,
    text_pair: Annotated[str | None, typer.Option(metavar="COL", help="The column of the second texts.")] = None,
    label: Annotated[str | None, typer.Option(metavar="COL", help="The column of labels to score against.")] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write the probability of each class too, by its label's name.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts that are answered at once.")] = 64,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads to compute with; default: one a core.")] = None,
    profile: ProfileName = None,
    results: Results = Path("results"),
    trust_remote_code: Trust = False,
) -> None:
    """Ask a kept model, or all of a cell's together: label and confidence of every row of a file, in its order.

    Of a token task the file has words, with or without their tags, as the task's files have them, and each is answered.
    """
    hub.trust_remote_code(trust_remote_code)
    messages = Console(highlight=False, stderr=True)
    folders = kept_models(run, trial, ensemble, profile, results, messages)
    from harness.models import predict as predicting

    here = machine.detect_hardware()
    asked = predicting.Asked(
        tuple(folders), file, out, text, text_pair, label, batch_size, "cuda" if here.gpus else "cpu",
        threads or here.cores, probabilities,
    )  # fmt: skip
    try:
        with row_progress(messages) as follow:
            found = predicting.run(asked, follow)
    except BrokenPipeError:  # `| head` has read what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    many = f" by {len(folders)} models" if len(folders) > 1 else ""
    pace = found.rows / max(found.seconds, 1e-9)
    messages.print(
        f"{count_noun(found.rows, 'row')}{many} in {found.seconds:.1f} s on {asked.device}: {pace:,.0f} rows/s."
    )
    if found.disagreeing is not None:
        tokens = saved.read_card(folders[0]).trial.recipe.task.kind == "tokens"
        what = "words" if tokens else "rows"
        messages.print(f"The models disagree on {100 * found.disagreeing:.1f} % of the {what}.")
    if found.score is not None:
        said = f"{found.metric.replace('_', ' ')} against the file's labels: {found.score:.4f}"
        won = predicting.gain(found)
        if won is not None:
            mean, low, high = found.score - won, min(found.members), max(found.members)
            said += f" together; one model alone {mean:.4f} on average ({low:.4f} to {high:.4f}): gain {won:+.4f}"
        messages.print(Text(f"{said}."), soft_wrap=True)
    if found.unscored is not None:
        messages.print(Text(f"Not scored: {found.unscored}."), soft_wrap=True)


@app.command()
def pretrain(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="The model folder to write.")],
    texts: Annotated[
        list[Path],
        typer.Option(
            "--texts",
            metavar="FILE",
            rich_help_panel=_TEXTS,
            help="A sentence a line, blank lines between documents; or .jsonl, .tsv, .csv. May repeat.",
        ),
    ] = [],
    column: Annotated[
        str | None, typer.Option(metavar="NAME", rich_help_panel=_TEXTS, help="The texts of a table; default: text.")
    ] = None,
    held_out: Annotated[
        float | None, typer.Option(min=0, rich_help_panel=_TEXTS, help="Share kept to judge by; default: 0.05.")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="NAME|DIR", rich_help_panel=_MODEL, help="Go on from this model.")
    ] = None,
    layers: Annotated[int | None, typer.Option(min=1, rich_help_panel=_MODEL, help="From scratch; default: 4.")] = None,
    hidden: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=_MODEL, help="Their width; default: 256.")
    ] = None,
    heads: Annotated[int | None, typer.Option(min=1, rich_help_panel=_MODEL, help="Of each; default: 4.")] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, metavar="N", rich_help_panel=_MODEL, help="Tokens of a text; default: 128.")
    ] = None,
    train_tokenizer: Annotated[
        str | None,
        typer.Option(metavar="WordPiece|BPE", rich_help_panel=_MODEL, help="Train one; default: the model's own."),
    ] = None,
    vocab_size: Annotated[
        int | None, typer.Option(min=1, metavar="N", rich_help_panel=_MODEL, help="Its tokens; default: 8000.")
    ] = None,
    objective: Annotated[
        str, typer.Option(metavar="masked|causal", rich_help_panel=_PREDICT, help="BERT's task or GPT's.")
    ] = "masked",
    whole_word: Annotated[
        bool, typer.Option("--whole-word", rich_help_panel=_PREDICT, help="Mask all tokens of a word or none.")
    ] = False,
    next_sentence: Annotated[
        bool, typer.Option("--next-sentence", rich_help_panel=_PREDICT, help="Predict too whether a sentence follows.")
    ] = False,
    steps: Annotated[int, typer.Option(min=1)] = 5000,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Texts a step; default: 128, with --texts 32.")] = None,
    lr: Annotated[
        float | None, typer.Option(help="The highest; default: 1e-3 embedded, 5e-4 from scratch, 5e-5 with --from.")
    ] = None,
    warmup_steps: Annotated[int | None, typer.Option(min=0, help="Default: a tenth, at most 500.")] = None,
    dropout: Annotated[
        bool | None, typer.Option("--dropout/--no-dropout", help="Default: only the embedded model goes without.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, order, masks and dropout.")] = 0,
    threads: Threads = 1,
    checkpoint_minutes: Annotated[
        float, typer.Option("--checkpoint-minutes", min=0.001, help="Keep the state so often, to go on from.")
    ] = 10.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in DIR.")] = False,
) -> None:
    """Pretrain a language model; with no other option, rebuild the embedded one as it was shipped.

    It writes a model folder that a sweep can name, with pretrain.md. Ctrl-C keeps the state; the same command goes on.
    """
    for value, name, allowed in (
        (objective, "objective", ("masked", "causal")), (train_tokenizer, "train-tokenizer", ("WordPiece", "BPE"))
    ):  # fmt: skip
        if value is not None and value not in allowed:
            raise HarnessError(f"--{name} is one of two", got=value, allowed=", ".join(allowed), fix="choose one")
    from harness.pretraining import pretrain as pretraining
    from harness.pretraining.settings import Settings

    asked: Any = {
        "texts": tuple(texts), "column": column, "held_out": held_out, "start": start, "layers": layers,
        "hidden": hidden, "heads": heads, "max_length": max_length, "train_tokenizer": train_tokenizer,
        "vocab_size": vocab_size, "objective": objective, "whole_words": whole_word, "next_sentence": next_sentence,
        "dropout": dropout, "steps": steps, "seed": seed, "threads": threads,
    }  # fmt: skip
    rebuilds = Settings(**asked).rebuilds
    asked["batch_size"] = batch_size or (32 if texts else 128)
    asked["lr"] = lr if lr is not None else 1e-3 if rebuilds else 5e-4 if start is None else 5e-5
    asked["warmup_steps"] = min(500, steps // 10) if warmup_steps is None else warmup_steps
    console = Console(highlight=False)
    with pretraining_progress(console) as progress:
        try:
            made = pretraining.pretrain(
                out, Settings(**asked), overwrite=overwrite, minutes=checkpoint_minutes, progress=progress
            )
        except pretraining.PretrainingStopped as stopped:
            console.print(f"Stopped after step {stopped.step} of {steps}; the same command goes on from there.")
            raise (interrupts.Terminated if stopped.terminated else KeyboardInterrupt) from None
    said = f"{made.folder}: loss {made.final_loss:.3f} over the last {min(steps, 100)} steps"
    if made.held_out:
        score = made.held_out[-1][1]
        said += f", {score.loss:.3f} on held-out texts (perplexity {score.perplexity:,.1f})"
    console.print(Text(f"{said}, {duration(made.wall_seconds)}."), soft_wrap=True)
    console.print(Text(f"Report: {made.folder / 'pretrain.md'}"), soft_wrap=True)


def main() -> None:
    """Run the command line: 0 done, 1 trials crashed, missing or different, 2 bad input, 130 Ctrl-C, 143 SIGTERM."""
    try:
        app()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # pressed once more, it would meet Python half gone
