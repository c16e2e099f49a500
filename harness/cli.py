"""The commands: they parse and print, nothing else."""

from __future__ import annotations

import glob
import itertools
import json
import math
import os
import re
import secrets
import shlex
import shutil
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from harness import execute, hub, keeping, machine
from harness import rerun as rerunning
from harness.records import Record, Store
from harness.study import Study, is_imported, joined, of_import, of_sweep
from harness.sweep import (
    MOST,
    HarnessError,
    ModelSpec,
    Recipe,
    Sweep,
    TaskFiles,
    Trial,
    expand,
    show,
    so_many,
    task_of,
    where,
)

if TYPE_CHECKING:
    from harness import describe as describing
    from harness import status as standing
    from harness import verify as verifying

# Panels of `harness pretrain --help`.
_TEXTS, _MODEL, _PREDICT = "Texts", "Model and tokenizer", "What is predicted"

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
            raise typer.Exit(143 if isinstance(stopped, execute.Terminated) else 130) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Is my fine-tuning recipe stable, and if not, what makes it so?",
)

SweepName = Annotated[str, typer.Argument(metavar="SWEEP", help="A name under sweeps/ or a path to a YAML file.")]
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


@app.command()
def plan(
    sweep: SweepName,
    profile: ProfileName = None,
    overrides: Overrides = [],
    results: Results = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Print cells, trials, what is finished, crashed or missing, and an estimate; train nothing."""
    resolved, reason = machine.resolve(_file(sweep), profile, overrides)
    store = Store(results / resolved.folder_name)
    if resolved.search is not None:
        _plan_search(resolved, store, reason, as_json=as_json)
        return
    records = store.records(resolved)
    ended = execute.count(expand(resolved), records)
    counts = {"finished": ended.finished, "crashed": ended.crashed, "missing": ended.missing}
    if as_json:
        names: dict[str, object] = {"sweep": resolved.name, "profile": resolved.profile, "reason": reason}
        _json(names | {"trials": ended.planned, "cells": len(resolved.cells)} | counts)
        return
    out = Console(highlight=False)
    _headline(out, resolved, reason)
    out.print(_cell_table(resolved, records))
    cells, seeds = so_many(len(resolved.cells), "cell"), so_many(len(resolved.seeds), "seed")
    out.print(f"{cells} × {seeds} = {so_many(ended.planned, 'trial')}: "
              f"{ended.finished} finished, {ended.crashed} crashed, {ended.missing} missing.")  # fmt: skip
    here = machine.here()
    workers = len(here.gpus) or here.cores
    expected = machine.estimate(resolved, records, workers)
    took = "time not known" if expected.seconds is None else f"about {_duration(expected.seconds)}"
    device = so_many(workers, "GPU" if here.gpus else "core")
    out.print(f"To train what is missing on {device}: {took} ({expected.basis}).", soft_wrap=True)
    size = "not known here" if expected.memory is None else f"about {_bytes(expected.memory)}"
    lanes = machine.pack_size(resolved.cells[0].recipe, "cuda" if here.gpus else "cpu", None)
    out.print(f"Memory a lane: {size}; packs of up to {lanes}.")


@app.command()
def sweep(
    sweep: SweepName,
    profile: ProfileName = None,
    overrides: Overrides = [],
    results: Results = Path("results"),
    address: Address = None,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Train here, one pack at a time, without Ray.")
    ] = False,
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
    time_limit: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="2h, 90m, 30s or 1:30:00: end by then; what still trains is left."),
    ] = None,
    workers_per_gpu: WorkersPerGpu = 1,
    keep: Annotated[
        keeping.Which,
        typer.Option("--keep", help="Keep the weights of each cell's best trial, or of all, as models to load."),
    ] = "none",
    trust_remote_code: Trust = False,
) -> None:
    """Train what is missing, then report; stop it at any time and the same command goes on.

    Ctrl-C once lets the running packs end, twice leaves at once. Exit 0 where all that was asked for is finished
    (the whole plan, or what --only and --max-trials leave of it), 1 where some of that crashed or is missing.
    """
    hub.trust_remote_code(trust_remote_code)
    seconds = None if time_limit is None else _seconds(time_limit)
    path = _file(sweep)
    resolved, reason = machine.resolve(path, profile, overrides)
    if resolved.search is not None:
        raise HarnessError(
            "a sweep lists its cells", got=f"{path.name}, which has search:", allowed="a file without it",
            fix=f"use `harness search {sweep}`",
        )  # fmt: skip
    store = Store(results / resolved.folder_name)
    if resolved.baselines:
        from harness import baselines

        baselines.check(resolved)
    out = Console(highlight=False)
    _headline(out, resolved, reason)
    options = execute.Options(
        in_process, address, workers, threads, pack, retry_crashed, notice, hang_minutes, checkpoint_minutes,
        only=tuple(only), max_trials=max_trials, time_limit=seconds,
        workers_per_gpu=workers_per_gpu, keep=keep,
    )  # fmt: skip
    with _progress(out) as follow:
        try:
            ended = execute.run(resolved, store, options, follow)
        except KeyboardInterrupt:
            kept = execute.ended(resolved, store)
            out.print(f"\nStopped: {kept.finished} of {kept.planned} trials are kept; the same command goes on.")
            raise
    print_ended(out, resolved, ended, limited=bool(only) or max_trials is not None)
    if resolved.baselines:
        baselines.train(resolved, store, out.print)
    from harness import report as reports

    again = _rerun_words(path, sweep, resolved, results)
    _print_kept(out, resolved, store, keep, again)
    study = of_sweep(resolved, store, again)
    page = reports.write(study, store.folder / "report").page
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
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Train here, one recipe at a time: one seed, one study.")
    ] = False,
    workers: Workers = None,
    threads: Threads = 1,
    pack: Lanes = None,
    notice: Notice = 20.0,
    hang_minutes: HangMinutes = 30.0,
    checkpoint_minutes: CheckpointMinutes = None,
    time_limit: Annotated[
        str | None, typer.Option(metavar="TIME", help="2h, 90m, 30s or 1:30:00: end by then; the search goes on later.")
    ] = None,
    workers_per_gpu: WorkersPerGpu = 1,
    stop_hopeless: Annotated[
        bool,
        typer.Option(
            "--stop-hopeless", help="Give a recipe up when all its runs look lost by the rule of `harness diagnose`."
        ),
    ] = False,
    trust_remote_code: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Look for a good and stable recipe in a space: each is trained over the seeds, the best again on fresh ones.

    Stop it at any time and the same command goes on. Exit 0 where all was trained, 1 where runs crashed or are missing.
    """
    from harness import search as searching
    from harness import searched

    hub.trust_remote_code(trust_remote_code)
    seconds = None if time_limit is None else _seconds(time_limit)
    resolved, reason = machine.resolve(_file(sweep), profile, overrides)
    store = Store(results / resolved.folder_name)
    out = Console(highlight=False, stderr=as_json)
    _headline(out, resolved, reason)
    options = execute.Options(
        in_process, address, workers, threads, pack, notice=notice, hang_minutes=hang_minutes,
        checkpoint_minutes=checkpoint_minutes, time_limit=seconds, workers_per_gpu=workers_per_gpu,
    )  # fmt: skip
    with _progress(out) as follow:
        try:
            ended = searching.run(resolved, store, options, follow, stop_hopeless)
        except KeyboardInterrupt:
            out.print("\nStopped: what was trained is kept; the same command goes on.")
            raise
    found = searched.write_report(ended.sweep, store, searching.stopped(ended.sweep, store))
    if as_json:
        _json(found.summary)
    else:
        for sentence in found.said:
            out.print(Text(sentence), soft_wrap=True)
        out.print(f"Search: {found.page}", soft_wrap=True)
        if ended.confirmed is not None:
            again = shlex.join([_program(), "report", str(store.folder.parent / ended.confirmed.folder_name)])
            out.print(Text(f"The runs on fresh seeds in full: {again}"), soft_wrap=True)
    if not ended.complete:
        if not as_json:
            out.print("Runs crashed or are missing: the same command trains what is missing.")
        raise typer.Exit(1)


@app.command(name="lr-find")
def find_lr(
    sweep: SweepName,
    conditions: Annotated[
        list[str], typer.Option("--where", metavar="KEY=VALUE", help="Which recipe, as bias_correction=on; may repeat.")
    ] = [],
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
    from harness import lr_find

    hub.trust_remote_code(trust_remote_code)
    resolved, reason = machine.resolve(_file(sweep), profile, overrides)
    store = Store(results / resolved.folder_name)
    messages = Console(highlight=False, stderr=as_json)
    _headline(messages, resolved, reason)
    with _steps(messages, "steps") as progress:
        found = lr_find.find(
            resolved, store, where(resolved, conditions), seeds=seeds, low=low, high=high, epochs=epochs,
            threads=threads, progress=progress,
        )  # fmt: skip
    summary = lr_find.save(found, resolved, store.folder / "lr_find")
    if as_json:
        _json(summary)
        return
    for sentence in lr_find.words(found):
        messages.print(Text(sentence), soft_wrap=True)
    messages.print(f"Picture: {store.folder / 'lr_find' / 'lr_find.png'}", soft_wrap=True)


@app.command()
def rerun(
    sweep: SweepName,
    trial: Annotated[
        str | None, typer.Option("--trial", metavar="ID", help="The trial's id, or its beginning.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="The trial's seed.")] = None,
    conditions: Annotated[list[str], typer.Option("--where", metavar="KEY=VALUE", help="As lr=2e-5; may repeat.")] = [],
    profile: ProfileName = None,
    overrides: Overrides = [],
    results: Results = Path("results"),
    tolerance: Annotated[float, typer.Option(help="Largest difference that counts as equal within tolerance.")] = 1e-3,
    keep: Annotated[bool, typer.Option("--keep", help="Keep its weights, where they are the record's.")] = False,
    trust_remote_code: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Train one trial again and compare it with its record, step by step; never overwrites."""
    hub.trust_remote_code(trust_remote_code)
    resolved, store = _planned(sweep, profile, overrides, results)
    chosen = _one_trial(resolved, trial, seed, conditions)
    messages = Console(highlight=False, stderr=as_json)
    label = resolved.cells[chosen.cell].label
    messages.print(Text(f"Training {chosen.id} again: {label}, seed {chosen.seeds.seed}."), soft_wrap=True)
    with _steps(messages, "steps") as progress:
        if keep:
            with execute.keeping_one(resolved, store) as shelf:
                found = rerunning.rerun(resolved, store, chosen, tolerance, progress, shelf.keeping)
                if found.verdict == "identical":
                    shelf.publish([found.again])
        else:
            found = rerunning.rerun(resolved, store, chosen, tolerance, progress)
    kept = store.folder / "models" / found.trial if keep and found.verdict == "identical" else None
    if as_json:
        verdict = {"trial": found.trial, "verdict": found.verdict}
        verdict |= {"kept": str(kept)} if kept else {}
        _json(verdict | {"max_difference": found.max_difference, "first_differing_step": found.first_differing_step})
    else:
        _print_comparison(messages, found)
        if keep:
            said = f"Model: {kept}" if kept else "Its weights are not the record's and were not kept."
            messages.print(Text(said), soft_wrap=True)
    if found.verdict != "identical":
        raise typer.Exit(1)


@app.command()
def verify(
    sweep: Annotated[str, typer.Argument(metavar="SWEEP|DIR", help="A sweep that was begun, or its results folder.")],
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
    """Check every record and its arrays, and train some again to compare bit for bit; changes nothing."""
    from harness import verify as verifying

    hub.trust_remote_code(trust_remote_code)
    if seed is not None and retrain is None:
        raise HarnessError(
            "--seed draws what --retrain trains again", got="--seed alone",
            allowed="--retrain K --seed S", fix="add --retrain or leave --seed out",
        )  # fmt: skip
    resolved, store = _to_verify(sweep, profile, results)
    out = Console(highlight=False)
    messages = Console(highlight=False, stderr=as_json)
    with _steps(messages, "records") as follow:
        checked = verifying.check(resolved, store, follow if messages.is_terminal else None)
    if not as_json:
        _print_checked(out, resolved, checked)
    chosen: tuple[Trial, ...] = ()
    if retrain is not None:
        seed = secrets.randbelow(2**32) if seed is None else seed
        chosen = verifying.draw(checked.repeatable, retrain, seed)
        messages.print(f"Training {len(chosen)} of {len(checked.repeatable)} finished trials again (--seed {seed}).")
    problems, again = list(checked.problems), []
    for number, trial in enumerate(chosen, 1):
        label = resolved.cells[trial.cell].label
        said = f"{number} of {len(chosen)}: {trial.id} ({label}, seed {trial.seeds.seed})"
        messages.print(Text(said), soft_wrap=True)
        with _steps(messages, "steps") as progress:
            found = verifying.retrain(resolved, store, trial, verifying.TOLERANCE, progress)
        if isinstance(found, rerunning.Comparison):
            again.append(found)
        else:
            problems.append(found)
        if not as_json:
            _print_retrained(out, found)
    counts = Counter(found.verdict for found in again)
    if as_json:
        _json({
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
    from harness import status as standing

    if watch and as_json:
        raise HarnessError(
            "--json prints one object", got="--watch with it", allowed="one of the two", fix="leave one out"
        )
    resolved, store = _planned(sweep, profile, [], results)
    look = standing.Watch(resolved, store).look
    if as_json:
        _json(look().as_json())
        return
    out = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    words = _sweep_words(sweep, resolved, store)
    if watch and out.is_terminal:
        with Live(console=out, auto_refresh=False) as live:
            while (now := look()).state == "running":
                live.update(Group(*_standing(now, words, most_cells=20)), refresh=True)
                time.sleep(_LOOK_SECONDS)
            live.update(Group(*_standing(now, words, most_cells=20)), refresh=True)
        return
    printed = -math.inf
    while watch and (now := look()).state == "running":
        if time.monotonic() - printed >= _BLOCK_SECONDS:
            printed = time.monotonic()
            _print_standing(out, _standing(now, words))
            out.print()
            sys.stdout.flush()
        time.sleep(_LOOK_SECONDS)
    _print_standing(out, _standing(look(), words))


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
    from harness import describe as describing

    found, notes = [], []
    for recipe in _recipes_of_data(words, model, max_length, profile, overrides):
        tokenizer = None
        if model is not None or recipe.model.name != _NO_MODEL:
            from harness import models

            try:
                tokenizer = models.tokenizer(recipe.model)
            except HarnessError as error:
                if model is not None:
                    raise
                notes.append(f"Tokens are not counted: {error}")
        one = describing.describe(recipe.task, tokenizer, recipe.max_length)
        if one not in found:  # models with the same tokenizer see the same
            found.append(one)
    if as_json:
        _json({"tasks": [asdict(one) for one in found], "notes": notes})
        return
    out = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    for one in found:
        _print_data(out, one)
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
    from harness import report as reports

    if len(names) > 2:
        raise HarnessError(
            "a report is of one study, or of two side by side",
            got=f"{len(names)} names",
            allowed="one or two",
            fix="report them two by two",
        )
    studies = [_study(name, profile, overrides, results) for name in names]
    study, folder = studies[0]
    if len(studies) == 2:
        study = joined(study, studies[1][0])
        folder = results / re.sub(r"[^\w@.=-]+", "-", re.sub(r"[()]", "", study.name))
    made = reports.write(study, folder / "report", threshold)
    summary, pages = made.summary if as_json else {}, [f"Report: {made.page}"]
    if len(study.sweeps) == 1 and study.sweeps[0].search is not None:
        from harness import search as searching
        from harness import searched

        given_up = searching.stopped(study.sweeps[0], Store(folder))
        found = searched.write_report(study.sweeps[0], Store(folder), given_up)
        summary |= {"search": found.summary}
        pages.append(f"Search: {found.page}")
    if as_json:
        _json(summary)
        return
    for page in pages:
        Console(highlight=False).print(page, soft_wrap=True)


@app.command()
def diagnose(
    sweep: Annotated[str, typer.Argument(metavar="SWEEP|DIR", help="A sweep that was begun, or its results folder.")],
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
    from harness import diagnosis_findings, tables
    from harness import report as reports

    study, folder = _study(sweep, profile, overrides, results)
    _refuse_nothing_to_tell(study)
    if surface is not None:
        from harness import surface as surfaces

        with _steps(Console(highlight=False, stderr=as_json), "points") as progress:
            found = surfaces.compute(study.sweeps[0], Store(folder), surface, threads=threads, progress=progress)
        study = replace(study, surface=found)
    made = reports.write(study, folder / "report")
    analysed = made.found
    words = diagnosis_findings.words(analysed)
    proposed = diagnosis_findings.next_sweep(analysed)
    if as_json:
        kept = analysed.diagnosis.rule
        _json(
            {
                "sweep": study.sweeps[0].name,
                "profile": study.profile,
                "words": words,
                "rule": None if kept is None else vars(kept.rule) | {name: getattr(kept, name) for name in _KEPT},
                "next_sweep": None if proposed is None else proposed[1],
                "tables": {name: tables.json_rows(table) for name, table in analysed.diagnosis.tables.items()},
                "report": str(made.page),
            }
        )
        return
    out = Console(highlight=False)
    for sentence in words:
        out.print(Text(_plain(sentence)), soft_wrap=True)
    if proposed is not None:
        out.print(Text(_plain(f"Next: {proposed[0]}")), soft_wrap=True)
        out.print(Text(f"\n{proposed[1]}"), soft_wrap=True)
    out.print(f"Report: {made.page}", soft_wrap=True)


_KEPT = ("caught", "lost", "false", "others")


def _refuse_nothing_to_tell(study: Study) -> None:
    """Raise HarnessError where a diagnosis has nothing to look at."""
    judged = study.runs[(study.runs["status"] == "finished") & study.runs["outcome"].notna()]
    name = study.name
    if not any(study.recording(int(row)) is not None for row in judged.index):
        texts = any(cell.recipe.task.kind == "texts" for sweep in study.sweeps for cell in sweep.cells)
        if not study.sweeps:
            got, fix = f"{name}, which was imported", f"`harness report {name}` says what its columns allow"
        elif not texts:
            got, fix = f"{name}, a token task, which nothing is recorded of", "see its report"
        elif judged.empty:
            got, fix = f"0 finished runs of {name}", f"`harness sweep {study.sweeps[0].name}` trains what is missing"
        else:
            got = f"{so_many(len(judged), 'finished run')} of {name}, none recorded"
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
            got=f"{so_many(len(judged), 'finished run')} of {name}, {'all' if failed else 'none'} of them failed",
            allowed="a sweep with both",
            fix="add a recipe that "
            + ("holds, as a smaller lr" if failed else "fails, as a larger lr; there is nothing to explain here"),
        )


@app.command()
def export(
    sweep: Annotated[str, typer.Argument(metavar="SWEEP|DIR", help="A sweep that was begun, or its results folder.")],
    to: Annotated[Literal["mlflow", "tensorboard", "wandb"], typer.Option("--to", help="Which kind of store.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Its folder; default: beside the records.")
    ] = None,
    uri: Annotated[str | None, typer.Option("--uri", help="Of MLflow: a server or database instead.")] = None,
    profile: ProfileName = None,
    results: Results = Path("results"),
) -> None:
    """Mirror the records into MLflow, TensorBoard or W&B (offline); again, and what has changed is replaced."""
    from harness import tracking

    resolved, store = _planned(sweep, profile, [], results)
    messages = Console(highlight=False)
    with _steps(messages, "runs") as progress:
        done = tracking.export(resolved, store, to, out, uri, progress)
    messages.print(
        Text(f"{done.written} runs written, {done.replaced} replaced, {done.left} there already: {done.place}"),
        soft_wrap=True,
    )
    messages.print(Text(f"Look at them: {done.look}"), soft_wrap=True)


@app.command(name="import")
def import_runs(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="CSV, JSONL, Parquet, or a folder of MLflow's.")],
    seed: Annotated[str, typer.Option("--seed", metavar="COL", help="The column of the seeds.")],
    metric: Annotated[str, typer.Option("--metric", metavar="COL", help="The column of the final scores.")],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="The results folder to write.")],
    cell: Annotated[
        list[str], typer.Option("--cell", metavar="COL,…", help="What tells cells apart; may repeat.")
    ] = [],
    conditions: Annotated[
        list[str], typer.Option("--where", metavar="COL=VALUE,…", help="Only rows with one of these; may repeat.")
    ] = [],
    majority: Annotated[
        str | None, typer.Option(metavar="NUMBER|COL", help="The majority classifier's score: at it a run failed.")
    ] = None,
    higher_is_better: Annotated[bool, typer.Option("--higher-is-better/--lower-is-better")] = True,
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
    """Read somebody else's runs from tables; `harness report NAME` then reports on them."""
    from harness import importing

    if (Path("sweeps") / f"{name}.yaml").is_file():
        raise HarnessError(
            "an import has a name of its own", got=f"{name}, a sweep under sweeps/",
            allowed="a name that no sweep has", fix="choose another --as",
        )  # fmt: skip
    asked = importing.Asked(
        tuple(files), seed, metric, name, tuple(cell), tuple(conditions), majority, higher_is_better, nan, aggregate,
        seeds, examples, test, best, loss,
    )  # fmt: skip
    folder, found = importing.run(asked, results, overwrite=overwrite)
    if as_json:
        _json({"name": name, "folder": str(folder), **found.counts})
        return
    counts = found.counts
    out = Console(highlight=False)
    out.print(
        f"{so_many(counts['cells'], 'cell')}, {so_many(counts['runs'], 'run')}: {counts['finished']} finished "
        f"({counts['diverged']} diverged), {counts['crashed']} crashed, {counts['missing']} missing."
    )
    for note in found.imported.notes:
        out.print(Text(note), soft_wrap=True)
    again = "" if results == Path("results") else f" --results {shlex.quote(str(results))}"
    out.print(Text(f"Report it: {_program()} report {name}{again}"), soft_wrap=True)


@app.command()
def predict(
    run: Annotated[str, typer.Argument(metavar="SWEEP|MODEL", help="A kept model's folder; or a sweep, with --trial.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Texts: .tsv, .csv or .jsonl, with the task's columns.")],
    trial: Annotated[
        str | None, typer.Option("--trial", metavar="ID", help="The sweep's trial, or its id's beginning.")
    ] = None,
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
    batch_size: Annotated[int, typer.Option(min=1, help="Texts that are answered at once.")] = 64,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads to compute with; default: one a core.")] = None,
    profile: ProfileName = None,
    results: Results = Path("results"),
    trust_remote_code: Trust = False,
) -> None:
    """Ask a kept model, or all of a cell's together: label and confidence of every row of a file, in its order."""
    hub.trust_remote_code(trust_remote_code)
    messages = Console(highlight=False, stderr=True)
    folders = _models(run, trial, ensemble, profile, results, messages)
    from harness import predict as predicting

    here = machine.here()
    asked = predicting.Asked(
        tuple(folders), file, out, text, text_pair, label, batch_size, "cuda" if here.gpus else "cpu",
        threads or here.cores,
    )  # fmt: skip
    try:
        with _pace(messages) as follow:
            found = predicting.run(asked, follow)
    except BrokenPipeError:  # `| head` has read what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    many = f" by {len(folders)} models" if len(folders) > 1 else ""
    pace = found.rows / max(found.seconds, 1e-9)
    messages.print(
        f"{so_many(found.rows, 'row')}{many} in {found.seconds:.1f} s on {asked.device}: {pace:,.0f} rows/s."
    )
    if found.disagreeing is not None:
        messages.print(f"The models disagree on {100 * found.disagreeing:.1f} % of the rows.")
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
    from harness import pretrain as pretraining
    from harness.pretrain_settings import Settings

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
    with _pretraining(console) as progress:
        try:
            made = pretraining.pretrain(
                out, Settings(**asked), overwrite=overwrite, minutes=checkpoint_minutes, progress=progress
            )
        except pretraining.Stopped as stopped:
            console.print(f"Stopped after step {stopped.step} of {steps}; the same command goes on from there.")
            raise (execute.Terminated if stopped.terminated else KeyboardInterrupt) from None
    said = f"{made.folder}: loss {made.final_loss:.3f} over the last {min(steps, 100)} steps"
    if made.held_out:
        score = made.held_out[-1][1]
        said += f", {score.loss:.3f} on held-out texts (perplexity {score.perplexity:,.1f})"
    console.print(Text(f"{said}, {_duration(made.wall_seconds)}."), soft_wrap=True)
    console.print(Text(f"Report: {made.folder / 'pretrain.md'}"), soft_wrap=True)


def main() -> None:
    """Run the command line: 0 done, 1 trials crashed, missing or different, 2 bad input, 130 Ctrl-C, 143 SIGTERM."""
    try:
        app()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # pressed once more, it would meet Python half gone


# ------------------------------------------------------------------------------------------------- finding things


def _file(sweep: str) -> Path:
    """The YAML file that a name or a path means."""
    path = Path(sweep)
    if path.suffix in (".yaml", ".yml"):
        return path
    named = Path("sweeps") / f"{sweep}.yaml"
    if not named.is_file():
        known = ", ".join(sorted(file.stem for file in Path("sweeps").glob("*.yaml"))) or "none here"
        raise HarnessError(
            "a sweep is a name under sweeps/ or a path to a YAML file", got=f"'{sweep}'", allowed=known,
            fix="name one of these, or run it where sweeps/ lies",
        )  # fmt: skip
    return named


def _seconds(text: str) -> float:
    """A time as people write it, 2h, 90m, 1h30m, 30s or 1:30:00."""
    parts = re.fullmatch(r"(\d+):([0-5]\d):([0-5]\d)", text.strip(), re.ASCII)
    number = r"(\d+(?:\.\d+)?)"
    parts = parts or re.fullmatch(rf"(?:{number}h)?(?:{number}m)?(?:{number}s)?", text.strip().lower(), re.ASCII)
    seconds = (
        sum(float(part or 0) * unit for part, unit in zip(parts.groups(), (3600, 60, 1), strict=True)) if parts else 0.0
    )
    if not 0 < seconds < math.inf:
        raise HarnessError(
            "--time-limit is a time", got=f"'{text}'", allowed="2h, 90m, 1h30m, 30s or 1:30:00", fix="write it so"
        )
    return seconds


def _is_results(sweep: str) -> bool:
    """Whether a results folder is meant, and not a sweep that a folder without a plan happens to be called like."""
    named = (Path("sweeps") / f"{sweep}.yaml").is_file() and not (Path(sweep) / "plan.json").is_file()
    return bool(sweep) and Path(sweep).is_dir() and not named


def _planned(sweep: str, profile: str | None, overrides: list[str], results: Path) -> tuple[Sweep, Store]:
    """A sweep as its results folder has it, with the settings it was started with; else as its file says."""
    if _is_results(sweep):
        store = Store(Path(sweep))
        kept = store.load_plan()
        if kept is None:
            raise HarnessError(
                "a results folder has a plan.json",
                got=sweep,
                allowed="results/<sweep>@<profile>",
                fix="name that folder",
            )
        return kept, store
    path = _file(sweep)
    if profile is None:  # the profile that was run, rather than the one this machine would choose
        folders = sorted(results.glob(f"{glob.escape(path.stem)}@*"))
        run = [Store(folder) for folder in folders if (folder / "plan.json").is_file()]
        plans = [(plan, store) for store in run if (plan := store.load_plan()) is not None]
        if len(plans) == 1 and not overrides:
            return plans[0]
        if len(plans) == 1:
            profile = plans[0][0].profile
        if len(plans) > 1:
            raise HarnessError(
                f"one profile of {path.stem} is meant", got="none named, and several were run",
                allowed=", ".join(plan.profile for plan, _ in plans), fix="name one with --profile",
            )  # fmt: skip
    resolved, _ = machine.resolve(path, profile, overrides)
    store = Store(results / resolved.folder_name)
    kept = None if overrides else store.load_plan()
    if kept is None and resolved.search is not None:
        raise HarnessError(
            "a search has trials once it was begun", got=f"{path.name}, of which {store.folder} has none",
            allowed="a search that was begun, without --set", fix=f"`harness search {sweep}` begins it",
        )  # fmt: skip
    return kept or resolved, store


def _to_verify(sweep: str, profile: str | None, results: Path) -> tuple[Sweep, Store]:
    """As `_planned`; a plan.json that is damaged is a finding, as long as something else says what was planned."""
    from harness import verify as verifying

    try:
        return _planned(sweep, profile, [], results)
    except HarnessError:
        resolved = None
        if _is_results(sweep):
            store = Store(Path(sweep))
        else:
            path = _file(sweep)
            folders = [folder for folder in results.glob(f"{glob.escape(path.stem)}@*") if folder.is_dir()]
            if profile is None and len(folders) == 1:
                profile = folders[0].name.removeprefix(f"{path.stem}@")
            resolved, _ = machine.resolve(path, profile, [])
            store = Store(results / resolved.folder_name)
        kept, wrong = verifying.plan_of(store)
        if wrong is None or (kept or resolved) is None:
            raise
        meant = kept or resolved
        assert meant is not None
        return meant, store


def _study(name: str, profile: str | None, overrides: list[str], results: Path) -> tuple[Study, Path]:
    """What a word of `report` names, and its results folder: an import, a folder, or a sweep."""
    file = Path(name) if name.endswith((".yaml", ".yml")) else Path("sweeps") / f"{name}.yaml"
    for folder in (Path(name), results / name):
        if is_imported(folder) and not (file.is_file() and folder != Path(name)):
            return of_import(folder), folder
    if not _is_results(name) and not file.is_file() and _is_results(str(results / name)):
        name = str(results / name)
    resolved, store = _planned(name, profile, overrides, results)
    path = None if _is_results(name) else _file(name)
    return of_sweep(resolved, store, _rerun_words(path, name, resolved, store.folder.parent)), store.folder


_NO_MODEL = "none"


def _recipes_of_data(
    words: list[str], model: str | None, max_length: int | None, profile: str | None, overrides: list[str]
) -> tuple[Recipe, ...]:
    """The tasks that the words of `data` name, each as a recipe that says which model and length go with it."""
    from harness import glue

    first, *rest = words
    is_sweep = first.endswith((".yaml", ".yml")) or (Path("sweeps") / f"{first}.yaml").is_file()
    named = is_sweep or first in glue.NAMES
    paths = rest if named else words
    if len(paths) > 2 or not (named or Path(first).expanduser().exists()):
        known = ", ".join(sorted(file.stem for file in Path("sweeps").glob("*.yaml")))
        raise HarnessError(
            "data are a task's or a sweep's, or a folder with train and dev files, or these two files",
            got=" ".join(words),
            allowed="; ".join(filter(None, (", ".join(glue.NAMES), known, "a path"))),
            fix="name one of these; a task's own files stand after its name",
        )
    files = TaskFiles(train=paths[0], validation=paths[-1]) if paths else None
    changes: dict[str, object] = {} if max_length is None else {"max_length": max_length}
    if model is not None:
        local = model.startswith((".", "/", "~"))
        changes["model"] = ModelSpec(name=Path(model).name if local else model, folder=model if local else None)
    if is_sweep:
        theirs = [f"task.files={json.dumps(files.model_dump())}"] if files else []
        resolved, _ = machine.resolve(_file(first), profile, [*overrides, *theirs])
        recipes = [cell.recipe for cell in resolved.cells]
    else:
        path = Path(first).expanduser().resolve()
        name = first if named else (path if path.is_dir() else path.parent).name
        task = task_of(name, files, overrides)
        recipes = [Recipe(task=task, model=ModelSpec(name=_NO_MODEL), lr=1.0, epochs=1)]
    chosen = {(one.task, one.model, one.max_length): one for one in (one.model_copy(update=changes) for one in recipes)}
    return tuple(chosen.values())


def _one_trial(sweep: Sweep, trial: str | None, seed: int | None, conditions: list[str]) -> Trial:
    """The one trial that is meant; an ambiguous choice lists what matches."""
    if trial is None and seed is None and not conditions:
        raise HarnessError(
            "a rerun names its trial", got="neither --trial nor --seed",
            allowed="--trial ID, or --seed N --where key=value", fix=f"for example --trial {expand(sweep)[0].id}",
        )  # fmt: skip
    matching = [found for found in where(sweep, conditions, seed) if trial is None or found.id.startswith(trial)]
    exact = [found for found in matching if found.id == trial]
    matching = exact or matching
    if len(matching) == 1:
        return matching[0]
    ids = ", ".join(found.id for found in matching[:30]) + (", …" if len(matching) > 30 else "")
    raise HarnessError(
        "one trial is meant", got=f"{len(matching)} that match",
        allowed=ids or f"the trials of the plan, seeds {_span(sweep)}",
        fix="add --where key=value or give --trial ID" if matching else "loosen the conditions",
    )  # fmt: skip


def _models(
    run: str, trial: str | None, ensemble: list[str], profile: str | None, results: Path, messages: Console
) -> list[Path]:
    """The folders of the kept models that are to answer."""
    if (Path(run) / keeping.CARD).is_file():
        if trial is not None or ensemble:
            raise HarnessError(
                "a model's folder says it all", got="--trial or --ensemble with it", allowed="one of the two",
                fix="leave them out, or name the sweep",
            )  # fmt: skip
        return [Path(run)]
    resolved, store = _planned(run, profile, [], results)
    there = keeping.kept(store)
    if (trial is None) == (not ensemble):
        some = ", ".join(list(there)[:10]) or f"none are kept; `harness sweep {run} --keep best` keeps some"
        raise HarnessError(
            "predicting names a kept trial, or a cell", got="both" if ensemble else "neither",
            allowed=f"--trial ID or --ensemble KEY=VALUE; kept are: {some}", fix="name one",
        )  # fmt: skip
    if trial is not None:
        return [keeping.place(store, _one_trial(resolved, trial, None, []).id)]
    matching = where(resolved, ensemble, option="--ensemble")
    cells = sorted({found.cell for found in matching})
    if len(cells) != 1:
        raise HarnessError(
            "--ensemble names one cell", got=f"{len(cells)} that match",
            allowed="; ".join(resolved.cells[cell].label for cell in cells or range(len(resolved.cells))),
            fix="add --ensemble key=value" if cells else "correct it",
        )  # fmt: skip
    members = [found.id for found in matching if found.id in there and there[found.id].final_score is not None]
    if len(members) < 2:
        raise HarnessError(
            "an ensemble has two kept seeds or more", got=f"{len(members)} of {resolved.cells[cells[0]].label}",
            allowed="the seeds of a sweep that keeps all", fix=f"`harness sweep {run} --keep all`",
        )  # fmt: skip
    absent = len(matching) - len(members)
    if absent:
        messages.print(f"{so_many(absent, 'seed')} of the cell diverged or {'is' if absent == 1 else 'are'} not kept.")
    return [keeping.place(store, one) for one in members]


def _span(sweep: Sweep) -> str:
    seeds = [seeds.seed for seeds in sweep.seeds]
    return f"{min(seeds)} to {max(seeds)}"


def _rerun_words(path: Path | None, given: str, sweep: Sweep, results: Path) -> str:
    """The beginning of a rerun command that finds this sweep again."""
    words = [_program(), "rerun", given, "--profile", sweep.profile]
    if path is None:
        words = [_program(), "rerun", given]
    elif results != Path("results"):
        words += ["--results", str(results)]
    return shlex.join(words)


def _program() -> str:
    """What to type for `harness` here: under make the virtual environment is not on the PATH."""
    called = Path(sys.argv[0])
    if called.name != "harness" or not called.is_file() or shutil.which("harness"):
        return "harness"
    return os.path.relpath(called)


# ------------------------------------------------------------------------------------------------------- printing


def _json(value: dict[str, object]) -> None:
    print(json.dumps(value, allow_nan=False))


def _headline(out: Console, sweep: Sweep, reason: str) -> None:
    out.print(Text(sweep.title, style="bold"))
    if sweep.stand_in:
        out.print(Text(sweep.stand_in, style="yellow"))
    out.print(Text(f"Profile {sweep.profile}: {reason}."), soft_wrap=True)


def _plan_search(sweep: Sweep, store: Store, reason: str, *, as_json: bool) -> None:
    """What a search will train at most, and how far it is."""
    assert sweep.search is not None
    search, kept = sweep.search, store.load_plan()
    ended = None if kept is None else execute.ended(kept, store)
    trials = search.recipes * len(sweep.seeds)
    finished, crashed = (ended.finished, ended.crashed) if ended else (0, 0)
    if as_json:
        counts = {"finished": finished, "crashed": crashed, "missing": max(0, trials - finished - crashed)}
        names: dict[str, object] = {"sweep": sweep.name, "profile": sweep.profile, "reason": reason}
        _json(names | {"trials": trials, "cells": search.recipes} | counts)
        return
    out = Console(highlight=False)
    _headline(out, sweep, reason)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("field", "searched"):
        table.add_column(name)
    for one in search.space:
        scale = ", in the logarithm" if one.log else f", in steps of {show(one.step)}" if one.step else ""
        words = ", ".join(map(show, one.choices)) if one.choices else f"{show(one.low)} to {show(one.high)}{scale}"
        only = " and ".join(f"{name} {' or '.join(map(show, values))}" for name, values in one.when)
        table.add_row(Text(one.field), Text(words + (f" (where {only})" if only else "")))
    out.print(table)
    recipes, seeds = so_many(search.recipes, "recipe"), so_many(len(sweep.seeds), "seed")
    tried = len(kept.cells) if kept else 0
    so_far = f"{so_many(tried, 'recipe')} tried, {finished} trials finished, {crashed} crashed"
    size = f"{recipes} × {seeds} = {so_many(trials, 'trial')}"
    out.print(f"Up to {size} ({search.sampler}, {search.objective}): {so_far}.", soft_wrap=True)
    if search.confirm and search.best:
        again = f"The best {search.best} are then trained on {so_many(len(search.confirm), 'fresh seed')} each."
        out.print(again)


def _cell_table(sweep: Sweep, records: Mapping[str, Record]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in sweep.axes or ("recipe",):
        table.add_column(name)
    for name in ("trials", "finished", "failed", "crashed", "missing"):
        table.add_column(name, justify="right")
    trials = defaultdict(list)
    for trial in expand(sweep):
        trials[trial.cell].append(trial)
    for index, cell in enumerate(sweep.cells):
        here = execute.count(trials[index], records)
        counts = (here.planned, here.finished, here.failed, here.crashed, here.missing)
        names = [Text(show(value)) for _, value in cell.axes] or [Text("the only one")]
        table.add_row(*names, *map(str, counts))
    return table


def print_ended(out: Console, sweep: Sweep, ended: execute.Ended, limited: bool = False) -> None:
    """Say how a sweep ended: counts over the plan, and what to do about the rest."""
    nothing = "nothing was missing" if not ended.missing and not limited else "none trained now"
    trained = nothing if not ended.trained_now else f"{ended.trained_now} trained now"
    out.print(f"{ended.finished} of {ended.planned} trials finished ({trained}); {ended.failed} failed to learn.")
    if ended.crashed:
        out.print(f"{ended.crashed} crashed: see the report; train them again with --retry-crashed.")
    if ended.missing and limited:
        out.print(f"{ended.missing} of the plan are missing: without --only and --max-trials it trains them all.")
    elif ended.missing:
        out.print(f"{ended.missing} are missing: the same command trains them.")


def _print_kept(out: Console, sweep: Sweep, store: Store, keep: keeping.Which, again: str) -> None:
    """What of the weights that were asked for lies there, and how to get the rest."""
    if keep == "none":
        return
    there, lacking = keeping.kept(store), keeping.unkept(sweep, store, keep)
    out.print(Text(f"Models: {so_many(len(there), 'trial')} kept in {store.folder / 'models'}"), soft_wrap=True)
    if lacking:
        others = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
        said = f"Trained before without --keep: {lacking[0]}{others}; to keep one: {again} --trial {lacking[0]} --keep"
        out.print(Text(said), soft_wrap=True)


def _splits(found: describing.Described) -> dict[str, describing.Split]:
    return {"train": found.train, "dev": found.dev} | ({} if found.test is None else {"test": found.test})


def _print_data(out: Console, found: describing.Described) -> None:
    """A task's data on a screen: the splits side by side, the lengths as bars, then what is odd, with its lines."""
    tokens = found.kind == "tokens"
    kind = "a regression" if found.classes is None else f"{found.classes} {'tags' if tokens else 'classes'}"
    texts = "sentences" if tokens else "pairs of texts" if found.pairs else "single texts"
    out.print(Text.assemble((_plain(found.name), "bold"), f"  {kind}, {texts}, {found.metric.replace('_', ' ')}"))
    splits = _splits(found)
    width = 16 if found.test is None else 8  # of a bar
    for name, split in splits.items():
        out.print(Text(f"{name:5}  {_plain(split.source)}", style="dim"), soft_wrap=True)
    out.print()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for name in splits:
        table.add_column(name, justify="right")
        table.add_column("", min_width=width)

    def row(name: str | Text, shown: Iterable[str], bars: Iterable[str] = itertools.repeat("")) -> None:
        table.add_row(name, *itertools.chain.from_iterable(zip(shown, bars, strict=False)))

    row("examples", [f"{split.examples:,}" for split in splits.values()])
    for label in list(found.train.labels or ())[:_MOST_LABELS]:
        shares = [counts[label] / sum(counts.values()) for split in splits.values() if (counts := split.labels)]
        row(
            Text(_plain(label)[:30]),
            [f"{100 * share:.1f} %" for share in shares],
            [_bar(one, width) for one in shares],
        )
    if (more := len(found.train.labels or ()) - _MOST_LABELS) > 0:
        row(f"… and {more} more", [""])
    if found.train.label_range:
        ranges = [split.label_range or (math.nan,) * 3 for split in splits.values()]
        row("labels", [f"{low:g} to {high:g}, mean {mean:.3g}" for low, mean, high in ranges])
    for unit in ("characters", "tokens") if found.unit == "characters" else ("words", "characters", "tokens"):
        lengths = [getattr(split, unit) for split in splits.values()]
        if None not in lengths:
            row(Text.assemble(unit, (", median · 95 % · longest", "dim")),
                [f"{one.median:.0f} · {one.p95:.0f} · {one.longest}" for one in lengths])  # fmt: skip
    if found.train.cut is not None:
        cuts = [f"{split.cut} ({100 * (split.cut or 0) / split.examples:.1f} %)" for split in splits.values()]
        row(f"cut at {found.max_length} tokens", cuts)
    out.print(table)
    what = "the mean of the dev labels" if found.classes is None else "O" if tokens else "the most frequent dev label"
    out.print(f"Always answering {what} scores {found.majority:.4f}.\n")
    out.print(_lengths_table(found))
    out.print()
    _print_odd(out, found)
    out.print(Text("Longest", style="bold"))
    for name, split in splits.items():
        for example in split.longest[:3]:
            length = f"{example.length} {found.unit if example.length != 1 else found.unit[:-1]}"
            _print_excerpt(out, f"{name} {split.unit} {example.number} ({example.label}, {length}): {example.begins}")
    out.print()


_MOST_LABELS = 12


def _bar(share: float, width: int) -> str:
    """A bar in eighths of a character; a share of 1 is as wide as `width`."""
    eighths = round(8 * width * share)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _lengths_table(found: describing.Described) -> Table:
    """The histogram: a line a bar, shares of each split; what is cut for certain is dimmed."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(found.unit, justify="right")
    for name in _splits(found):
        table.add_column(name, justify="right")
        table.add_column("", min_width=24)
    sizes = [split.examples for split in _splits(found).values()]
    bars = [
        [count / size for count, size in zip((one.train, one.dev, one.test), sizes, strict=False)]
        for one in found.histogram
    ]
    largest = max(map(max, bars))
    for one, shares in zip(found.histogram, bars, strict=True):
        name = f"{one.low}–{one.high}" if one.high is not None and one.high > one.low else f"{one.low}"
        row = [f"{name} and more" if one.high is None else name]
        for share in shares:
            row += [f"{100 * share:.1f} %", _bar(share / largest, 24)]
        cut = found.unit == "tokens" and one.low > found.max_length
        table.add_row(*row, style="dim" if cut else None)
    return table


def _print_excerpt(out: Console, line: str) -> None:
    out.print(Text(f"  {_plain(line)}"), no_wrap=True, overflow="ellipsis")


def _print_odd(out: Console, found: describing.Described) -> None:
    """Duplicates, leaks and empty texts: counts, and the first of them with their numbers."""
    splits = _splits(found)

    def listed(repeated: tuple[describing.Repeated, ...]) -> None:
        for one in repeated:
            where = [
                f"{name} {split.unit} {', '.join(map(str, numbers[:4]))}{', …' if len(numbers) > 4 else ''}"
                for (name, split), numbers in zip(splits.items(), (one.train, one.dev, one.test), strict=False)
                if numbers
            ]
            labels = f"labels {', '.join(one.labels)}" if len(one.labels) > 1 else f"label {one.labels[0]}"
            _print_excerpt(out, f"{' = '.join(where)} ({labels}): {one.begins}")

    out.print(Text("Duplicates and leaks", style="bold"))
    for name, split in splits.items():
        again = f"{so_many(split.repeats, 'example')} of {split.examples:,} with texts that stood before"
        other = f"; {so_many(split.disagreeing, 'text')} with different labels" if split.disagreeing else ""
        out.print(f"{name}: {again if split.repeats else f'all {split.examples:,} examples differ'}{other}.")
        listed(split.repeated)
    leaks = [("dev", "training", found.leaks, found.leaks_disagreeing, found.leaked)]
    for source, one in (("training", found.test_leaks_of_train), ("dev", found.test_leaks_of_dev)):
        if one is not None:
            leaks.append(("test", source, one.examples, one.disagreeing, one.first))
    for into, source, examples, disagreeing, first in leaks:
        size = splits[into].examples
        if examples:
            share = f"{examples} of {size:,} {into} examples ({100 * examples / size:.1f} %)"
            verb = "stands" if examples == 1 else "stand"
            out.print(f"Leaks: {share} {verb} in the {source} split too, {disagreeing} with another label.")
        else:
            out.print(f"Leaks: none of the {size:,} {into} examples stands in the {source} split.")
        listed(first)
    for name, split in splits.items():
        if split.empty:
            lines = ", ".join(map(str, split.empty[:10])) + (", …" if len(split.empty) > 10 else "")
            refused = "; training refuses them" if split.unit == "line" else ""
            out.print(
                f"{name}: {so_many(len(split.empty), 'example')} with an empty text, {split.unit} {lines}{refused}."
            )
    out.print()


def _print_comparison(out: Console, found: rerunning.Comparison) -> None:
    old, new = found.record.measured, found.again.measured
    assert old is not None
    assert new is not None
    score = "no score (diverged)" if new.final_score is None else f"{new.metric} {new.final_score:.4f}"
    out.print(f"Now: {score}, {new.outcome}{f' ({new.reason})' if new.reason else ''}.")
    if found.verdict == "identical":
        what = f"all {new.steps} steps, the dev logits and the weights" if found.by_steps else "the final weights"
        out.print(f"[bold]identical[/bold]: {what}, bit for bit.")
        if not found.by_steps:
            out.print("  The record's curves are not kept here or can't be read, so the steps were not compared.")
        return
    size = "not known" if found.max_difference is None else f"{found.max_difference:.3g}"
    first = "" if found.first_differing_step is None else f", first at step {found.first_differing_step}"
    words = {"within_tolerance": "equal within tolerance", "different": "different"}
    out.print(f"[bold]{words[found.verdict]}[/bold]: largest difference {size}{first}.")
    was = "no score (diverged)" if old.final_score is None else f"{old.final_score:.4f}"
    out.print(f"The record: {was}, {old.outcome}. Probable reason:")
    for reason in found.reasons:
        out.print(f"  {reason}")


def _print_checked(out: Console, sweep: Sweep, checked: verifying.Checked) -> None:
    """The counts, then a line a finding, of each rule the first ten."""
    out.print(Text(f"{sweep.folder_name}: {so_many(checked.planned, 'planned trial')}."))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("records", "finished", "crashed", "missing", "problems", "notes"):
        table.add_column(name, justify="right")
    counts = (checked.finished + checked.crashed, checked.finished, checked.crashed, checked.missing)
    table.add_row(*map(str, (*counts, len(checked.problems), len(checked.notes))))
    out.print(table)
    for kind, found in (("problem", checked.problems), ("note", checked.notes)):
        shown: Counter[str] = Counter()
        for finding in found:
            shown[finding.rule] += 1
            if shown[finding.rule] <= 10:
                out.print(Text(f"{kind}: {finding.file}: {finding.rule}: {finding.found}"), soft_wrap=True)
        for rule, number in shown.items():
            if number > 10:
                out.print(Text(f"{kind}: {rule}: {number - 10} more, which --json lists"), soft_wrap=True)


def _print_retrained(out: Console, found: rerunning.Comparison | verifying.Finding) -> None:
    if not isinstance(found, rerunning.Comparison):
        out.print(Text(f"  problem: {found.file}: {found.rule}: {found.found}"), soft_wrap=True)
        return
    said = f"  {found.verdict.replace('_', ' ')}: {found.trial}"
    if found.verdict != "identical":
        size = "not known" if found.max_difference is None else f"{found.max_difference:.3g}"
        first = "" if found.first_differing_step is None else f", first at step {found.first_differing_step}"
        said += f": largest difference {size}{first}; probable reason: {'; '.join(found.reasons)}"
    elif not found.by_steps:
        said += " (the final weights alone: the record's curves are not kept here)"
    out.print(Text(said), soft_wrap=True)


# After so long without a sign of life the machine of a sweep may be down.
_LONG_SILENT_SECONDS = 300.0
# How often `status --watch` looks, and how often it prints where there is no terminal.
_LOOK_SECONDS, _BLOCK_SECONDS = 2.0, 30.0


def _sweep_words(given: str, sweep: Sweep, store: Store) -> str | None:
    """The command that trains what is missing, with what was set when the sweep was begun; None where none is known."""
    if _is_results(given):
        if not (Path("sweeps") / f"{sweep.name}.yaml").is_file() or store.folder.resolve().name != sweep.folder_name:
            return None
        given = sweep.name
    words = [_program(), "search" if sweep.search else "sweep", given, "--profile", sweep.profile]
    lines = (sweep.source or "").splitlines()
    while lines and lines[-1].startswith("# --set "):
        words[5:5] = ["--set", lines.pop().removeprefix("# --set ")]
    if store.folder.parent != Path("results"):
        words += ["--results", str(store.folder.parent)]
    return shlex.join(words)


def _print_standing(out: Console, parts: list[Text | Table]) -> None:
    for part in parts:
        out.print(part, soft_wrap=isinstance(part, Text))


def _standing(now: standing.Status, words: str | None, most_cells: int = MOST) -> list[Text | Table]:
    """How a sweep stands, what matters most first: a terminal may have few lines."""
    total = now.total
    parts: list[Text | Table] = [Text(_plain(now.sweep.title), style="bold")]
    if now.sweep.stand_in:
        parts.append(Text(_plain(now.sweep.stand_in), style="yellow"))
    parts.append(Text(_plain(f"Profile {now.sweep.profile}, in {now.folder}.")))
    parts.append(Text(_plain(_state(now))))
    rest = "".join(f", {n} {name}" for n, name in ((total.crashed, "crashed"), (total.missing, "missing")) if n)
    training = f" ({total.training} training now)" if total.training else ""
    parts.append(Text(
        f"{total.finished} of {total.planned} trials finished, {total.failed} of them failed to learn{rest}{training}."
    ))  # fmt: skip
    if now.state == "running" and now.heartbeat:
        from harness import status as standing

        left = now.heartbeat.seconds_left
        time_left = "not known yet" if left is None else f"about {_duration(left)}"
        on = f"{so_many(now.heartbeat.workers, 'worker')} on {now.heartbeat.device}"
        parts.append(Text(_plain("; ".join((f"Time left: {time_left}, with {on}", *standing.use(now.heartbeat.host))))))
    if now.warning:
        parts.append(Text(_plain(now.warning), style="yellow" if any(True in pack.lost for pack in now.packs) else ""))
    parts += _pack_table(now)
    if now.crashed:
        parts.append(Text("Crashed:", style="bold"))
        for trial, error, attempts in now.crashed[:10]:
            said = _plain(error)
            tried = f" (attempt {attempts})" if attempts > 1 else ""
            parts.append(Text(f"  {trial}{tried}: {said if len(said) <= 200 else said[:199] + '…'}"))
        if len(now.crashed) > 10:
            parts.append(Text(f"  … and {len(now.crashed) - 10} more"))
    parts.append(_counts_table(now, most_cells))
    if len(now.cells) > most_cells:
        parts.append(Text(f"… and {len(now.cells) - most_cells} more cells, which are shown without --watch"))
    return [*parts, *(Text(_plain(f"{what}: {command}")) for what, command in _next(now, words))]


def _state(now: standing.Status) -> str:
    silent = "" if now.silent_seconds is None else f"last sign of life {_duration(now.silent_seconds)} ago"
    if now.state == "running":
        said = f"Running ({now.holder}); {silent or 'it has not said yet how far it is'}."
        if now.elsewhere and (now.silent_seconds or 0) > _LONG_SILENT_SECONDS:
            said += f" If that machine is down for good, remove {now.folder / '.lock'}."
        return said
    if now.state == "lost":
        assert now.heartbeat is not None
        who = f"process {now.heartbeat.pid} on {now.heartbeat.host}"
        if now.elsewhere:
            return (
                f"Not held by a sweep that this machine can see; {silent}, of {who}: it was killed, or it runs where "
                "locks are not shared, and the next sweep waits to see which."
            )
        return f"Not running: {who} left without saying so (killed?); {silent}. What it had finished is kept."
    if not (now.folder / "plan.json").is_file():
        return "Never started: nothing was trained here."
    return "Not running."


def _next(now: standing.Status, words: str | None) -> list[tuple[str, str]]:
    """What to type next, and what for."""
    begin = words or "the command that began it"
    if now.state == "running":
        after = [("Retry the crashed when it has ended", f"{begin} --retry-crashed")] if now.total.crashed else []
        return [*after, ("To stop it", "Ctrl-C where it runs; the same command goes on")]
    found = []
    if now.total.missing:
        found.append(("Train what is missing", begin))
    if now.total.crashed:
        found.append(("Retry the crashed", f"{begin} --retry-crashed"))
    if now.total.finished:
        found.append(("Report it", shlex.join([_program(), "report", str(now.folder)])))
    return found


def _counts_table(now: standing.Status, most_cells: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in now.sweep.axes or ("recipe",):
        table.add_column(Text(_plain(name)))
    for name in ("planned", "finished", "failed", "crashed", "missing", "training"):
        table.add_column(name, justify="right")
    for cell, here in list(zip(now.sweep.cells, now.cells, strict=True))[:most_cells]:
        names = [Text(_plain(show(value))) for _, value in cell.axes] or [Text("the only one")]
        failed = f"{here.failed}/{here.finished}" if here.finished else "–"
        counts = (here.planned, here.finished, failed, here.crashed, here.missing, here.training)
        table.add_row(*names, *map(str, counts))
    return table


def _pack_table(now: standing.Status) -> list[Text | Table]:
    """The running packs, a line for each of a pack's cells, of which four are shown: those first with lost lanes."""
    if not now.packs:
        return []
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("pack", "done", "steps", "pace", "time"):
        table.add_column(name, justify="right")
    table.add_column("training")
    for number, pack in enumerate(now.packs, 1):
        steps, pace = "–" if pack.steps is None else f"{pack.steps_done}/{pack.steps}", "–"
        if pack.steps_per_second is not None:
            pace = f"{pack.steps_per_second:.{0 if pack.steps_per_second >= 10 else 2}f} steps/s"
        first = (str(number), f"{100 * pack.share:.0f} %", steps, pace, _duration(pack.seconds))
        seeds: dict[int, list[str]] = defaultdict(list)
        for trial, lost in zip(pack.trials, pack.lost, strict=True):
            seeds[trial.cell].append(f"{trial.seeds.seed}{' (looks lost)' if lost else ''}")
        what = [
            f"{now.sweep.cells[cell].label}: {'seed' if len(of) == 1 else 'seeds'} {', '.join(of)}"
            for cell, of in sorted(seeds.items(), key=lambda one: not any("lost" in seed for seed in one[1]))
        ]
        if len(what) > 4:
            what[3:] = [f"… and {so_many(len(what) - 3, 'more cell')}"]
        if pack.deaths:
            what.append(f"its worker died {so_many(pack.deaths, 'time')} before")
        for place, line in enumerate(what):
            table.add_row(*(first if place == 0 else ("",) * len(first)), Text(_plain(line)))
    return [table]


def _plain(text: str) -> str:
    """A text on one line, without what would move a terminal's cursor or change its colours."""
    return "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))


@contextmanager
def _progress(out: Console) -> Iterator[Callable[[execute.Progress], None]]:
    """A live line on a terminal; elsewhere a plain line when a pack ends and at least every minute."""
    if out.is_terminal:
        with Live(console=out, refresh_per_second=4, transient=True) as live:

            def live_line(progress: execute.Progress) -> None:
                while progress.messages:
                    live.console.print(progress.messages.pop(0), soft_wrap=True)
                live.update(Text(_line(progress)))

            yield live_line
        return
    last: tuple[object, ...] = ()
    when = 0.0

    def plain_line(progress: execute.Progress) -> None:
        nonlocal last, when
        while progress.messages:
            print(progress.messages.pop(0), file=out.file, flush=True)
        state = (progress.finished, progress.crashed)
        if state != last or time.monotonic() - when > 60:
            last, when = state, time.monotonic()
            print(_line(progress), file=out.file, flush=True)

    yield plain_line


def _line(progress: execute.Progress) -> str:
    crashed = f", {progress.crashed} crashed" if progress.crashed else ""
    left = "" if progress.seconds_left is None else f", about {_duration(progress.seconds_left)} left"
    on = f" ({progress.lanes} training on {so_many(progress.workers, 'worker')})" if progress.lanes else ""
    done = f"{progress.finished}/{progress.planned} finished, {progress.failed} of them failed to learn"
    return f"{done}{crashed}{left}{on}"


@contextmanager
def _steps(out: Console, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar over the steps of one run on a terminal, a line every tenth elsewhere."""
    if not out.is_terminal:

        def line(step: int, steps: int) -> None:
            if step == steps or step % max(1, steps // 10) == 0:
                out.print(f"{step}/{steps} {unit}")

        yield line
        return
    with Bar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=out, transient=True) as bar:
        task = bar.add_task(unit)
        yield lambda step, steps: bar.update(task, completed=step, total=steps)


@contextmanager
def _pace(out: Console) -> Iterator[Callable[[int, int], None]]:
    """Rows answered and their pace: a live line on a terminal, a line every half minute elsewhere."""
    began = printed = time.monotonic()

    def line(done: int, total: int) -> str:
        left = f" of {total:,}" if total else ""
        return f"{done:,}{left} rows, {done / max(time.monotonic() - began, 1e-9):,.0f} rows/s"

    if out.is_terminal:
        with Live(console=out, refresh_per_second=4, transient=True) as live:
            yield lambda done, total: live.update(Text(line(done, total)))
        return

    def plain(done: int, total: int) -> None:
        nonlocal printed
        if time.monotonic() - printed > 30:
            printed = time.monotonic()
            out.print(line(done, total))

    yield plain


@contextmanager
def _pretraining(out: Console) -> Iterator[Callable[[int, int, float], None]]:
    """As `_steps`, with the loss and the time left at the pace so far, which leaves out what an earlier start made."""
    began = time.monotonic()
    first: int | None = None

    def words(step: int, steps: int, loss: float) -> str:
        nonlocal first, began
        if first is None:
            first, began = step, time.monotonic()
        made = step - first
        left = _duration((time.monotonic() - began) / made * (steps - step)) if made else "time not known"
        return f"loss {loss:.3f}" + (f", {left} left" if step < steps else "")

    if not out.is_terminal:

        def line(step: int, steps: int, loss: float) -> None:
            said = words(step, steps, loss)
            if step == steps or step % max(1, steps // 10) == 0:
                out.print(f"{step}/{steps} steps, {said}")

        yield line
        return
    with Bar(
        TextColumn("steps"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
        console=out, transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task("reading the texts", total=None)
        yield lambda step, steps, loss: bar.update(
            task, completed=step, total=steps, description=words(step, steps, loss)
        )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def _bytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
