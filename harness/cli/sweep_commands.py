"""Commands that plan, train, watch and check a sweep."""

from __future__ import annotations

import math
import secrets
import shlex
import sys
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness import api
from harness.cli.arguments import one_trial, planned_to_verify, seconds_of, sweep_file_now, sweep_words
from harness.cli.console import Console
from harness.cli.options import (
    Address,
    AsJson,
    CheckpointMinutes,
    Compiled,
    HangMinutes,
    InProcess,
    Lanes,
    Notice,
    Overrides,
    ProfileName,
    Results,
    StartedSweep,
    SweepName,
    Threads,
    TimeLimit,
    TrialId,
    Trust,
    Where,
    Workers,
    WorkersPerGpu,
)
from harness.cli.progress import (
    plain,
    print_headline,
    print_json,
    print_untested,
    size_of,
    step_progress,
    sweep_progress,
)
from harness.cli.run_views import (
    cell_table,
    print_answer,
    print_checked,
    print_commands,
    print_comparison,
    print_ended,
    print_kept,
    print_plan_of_search,
    print_retrained,
)
from harness.cli.status_views import print_standing, standing_parts, unreadable_lines
from harness.common import hub
from harness.common.errors import HarnessError
from harness.common.spare_process import SpareProcess
from harness.common.text import count_noun
from harness.config.keys import all_keys
from harness.config.trials import Sweep, Trial, expand
from harness.execution import driver, gate, inputs, known_hardware, lanes_memory, machine, repeats, seed_growth
from harness.execution import rerun as rerunning
from harness.execution.duration import estimate
from harness.execution.follow import duration
from harness.execution.lookup import planned, program, rerun_words, sweep_file
from harness.models import saved
from harness.records.store import Store

if TYPE_CHECKING:
    from harness.analysis.search_ranking import StoppedRecipe
    from harness.analysis.status import Status

# How often `status --watch` looks, and how often it prints where there is no terminal.
_LOOK_SECONDS, _BLOCK_SECONDS = 2.0, 30.0


def plan(
    sweep: SweepName,
    profile: ProfileName = None,
    overrides: Overrides = [],
    results: Results = Path("results"),
    trust_remote_code: Trust = False,
    show_commands: Annotated[
        bool, typer.Option("--show-commands", help="Print the command of each run of a script's sweep.")
    ] = False,
    on: Annotated[
        str | None,
        typer.Option("--hardware", metavar="KIND,N", help="Plan for a machine that isn't here, as a100-80gb,8."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show cells, trials, what is finished, crashed or missing, and an estimate of time and memory; train nothing.

    It refuses what training would refuse, as far as that is known without asking the hub.
    """
    hub.trust_remote_code(trust_remote_code)
    loaded = api.load_sweep(sweep, set=overrides, profile=profile)
    resolved, reason = loaded.sweep, loaded.reason
    store = Store(results / resolved.folder_name)
    notes = inputs.planned(resolved)
    if resolved.search is not None:
        from harness.search import search as searching

        searching.check(resolved, store)
        gate.check_planned(resolved, {})
        print_plan_of_search(resolved, store, reason, as_json=as_json)
        return
    seeds = None if resolved.rule is None else seed_growth.standing(resolved, store)
    resolved = resolved if seeds is None else seeds.sweep
    records = store.records(resolved)
    gate.refuse_orphans(resolved, store, records)
    gate.check_planned(resolved, records)
    rest = [trial.id for trial in expand(resolved) if trial.id not in records]
    unreadable = {file.trial: file for file in store.unreadable(resolved, rest)}
    ended = driver.count(expand(resolved), records, unreadable)
    if resolved.is_script and records:
        from harness.analysis.score_scale import edited_thresholds  # pandas
        from harness.records.study import of_sweep

        notes = (*notes, *edited_thresholds(of_sweep(resolved, store)))
    if resolved.is_script and ended.missing:
        gate.check_writable(store.folder)
    counts = {"finished": ended.finished, "crashed": ended.crashed, "missing": ended.missing}
    counts |= {"unreadable": ended.unreadable}
    hardware = machine.detect_hardware()
    elsewhere = None if on is None else known_hardware.read(on)
    workers = elsewhere.count if elsewhere else len(hardware.gpus) or hardware.cores
    expected = estimate(resolved, records, workers, elsewhere.speed if elsewhere else None)
    if as_json:
        names: dict[str, object] = {"sweep": resolved.name, "profile": resolved.profile, "reason": reason}
        reckoned = {
            "seconds_left": expected.seconds, "seconds_between": expected.between and list(expected.between),
            "seconds_from": expected.basis, "lane_bytes": expected.memory,
        }  # fmt: skip
        told: dict[str, object] = {"notes": list(notes)}
        told |= {} if seeds is None else {"seeds": seeds.as_json()}
        print_json(names | {"trials": ended.planned, "cells": len(resolved.cells)} | counts | reckoned | told)
        return
    out = Console()
    print_headline(out, resolved, reason)
    out.print_table(cell_table(resolved, records, unreadable))
    out.print(f"{resolved.size} = {count_noun(ended.planned, 'trial')}: "
              f"{ended.finished} finished, {ended.crashed} crashed, {ended.missing} missing"
              f"{f', {ended.unreadable} unreadable' if unreadable else ''}.")  # fmt: skip
    for damaged in unreadable_lines([(file.file, file.reason) for file in unreadable.values()]):
        out.print(damaged, soft_wrap=True)
    for line in seeds.lines if seeds else ():
        out.print(Text(plain(line)), soft_wrap=True)
    took = "time not known" if expected.seconds is None else f"about {duration(expected.seconds)}"
    if expected.between is not None:
        least, most = map(duration, expected.between)
        took = least if least == most else f"between {least} and {most}"
    device = count_noun(workers, "GPU" if hardware.gpus else "core")
    if elsewhere is not None:
        device = elsewhere.words
    out.print(f"To train what is missing on {device}: {took} ({expected.basis}).", soft_wrap=True)
    if elsewhere is not None and not resolved.is_script:
        out.print(
            " ".join(
                (
                    f"That is by {elsewhere.source}; starting the workers comes on top, and networks of a few million "
                    "weights take longer than their arithmetic.",
                    elsewhere.fit(expected.memory),
                )
            ).strip(),
            soft_wrap=True,
        )
    if resolved.is_script:
        if not show_commands:
            out.print("Each run is a process of its own; --show-commands prints what it is.")
    else:
        size = "not known here" if expected.memory is None else f"about {size_of(expected.memory)}"
        lanes = lanes_memory.pack_size(resolved.cells[0].recipe, "cuda" if hardware.gpus else "cpu", None)
        out.print(f"Memory a lane: {size}; packs of up to {lanes}.")
    for note in notes:
        out.print(Text(plain(note)), soft_wrap=True)
    if show_commands:
        print_commands(out, resolved, store)


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
    retry_crashed: Annotated[bool, typer.Option("--retry-crashed", help="Also train crashed trials again.")] = False,
    notice: Notice = 20.0,
    hang_minutes: HangMinutes = 30.0,
    checkpoint_minutes: CheckpointMinutes = None,
    only: Annotated[
        list[str],
        typer.Option("--only", metavar="KEY=VALUE", help="Train only matching trials, as lr=2e-5; may repeat."),
    ] = [],
    max_trials: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Run at most N more trials, one seed of every cell first.")
    ] = None,
    time_limit: TimeLimit = None,
    workers_per_gpu: WorkersPerGpu = 1,
    compiled: Compiled = None,
    keep: Annotated[
        saved.Which,
        typer.Option("--keep", help="Save the weights of each cell's best trial, or of all, as model folders."),
    ] = "none",
    trust_remote_code: Trust = False,
) -> None:
    """Train what is missing, then write the report; stop it at any time and re-run the same command to resume.

    Ctrl-C once lets running packs finish, twice leaves at once. Exit 0: all that was asked for is finished (the whole
    plan, or what --only and --max-trials leave of it); 1: some of it crashed or is missing.
    """
    hub.trust_remote_code(trust_remote_code)
    seconds = None if time_limit is None else seconds_of(time_limit)
    loaded = api.load_sweep(sweep, set=overrides, profile=profile)
    api.refuse_search(loaded)
    resolved, reason = loaded.sweep, loaded.reason
    store = Store(results / resolved.folder_name)
    if resolved.baselines:
        from harness.execution import baselines

        baselines.check(resolved)
    out = Console()
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
                standing = driver.ended(resolved, store)
                finished = f"{standing.finished} of {standing.planned} trials are kept"
                out.print(f"\nStopped: {finished}; re-run the same command to resume.")
                raise
        resolved = seed_growth.grown(resolved, store)
        print_ended(out, resolved, ended, limited=bool(only) or max_trials is not None)
        if resolved.rule is not None and not ended.trained_now:  # what was decided while training is said already
            out.print(seed_growth.standing(resolved, store).words, soft_wrap=True)
        if resolved.baselines:
            baselines.train(resolved, store, out.print)
        again = rerun_words(sweep_file(sweep), sweep, resolved, results)
        print_kept(out, resolved, store, keep, again)
        answer = reporting.call("write", resolved, store.folder, again)
        print_answer(out, resolved, store, answer, again)
    if ended.left:
        raise typer.Exit(1)


def status(
    sweep: Annotated[str, typer.Argument(metavar="SWEEP|DIR", help="A sweep, or its results folder.")],
    profile: ProfileName = None,
    results: Results = Path("results"),
    watch: Annotated[bool, typer.Option("--watch", help="Update until the sweep ends; Ctrl-C to leave.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show how far a sweep is, from any terminal, while it runs or afterwards.

    The exit code is 1 where records can't be used.
    """
    from harness.analysis import status as standing

    if watch and as_json:
        raise HarnessError("--json and --watch cannot be used together", fix="Leave one out")
    resolved, store = planned(sweep, profile, [], results)
    look = standing.Watch(resolved, store).look
    if as_json:
        now = look()
        print_json(now.as_json() | {"stopped": [asdict(recipe) for recipe in _stopped(resolved, store)]})
        _end_status(now)
        return
    out = Console(width=None if sys.stdout.isatty() else 200)
    words = sweep_words(sweep, resolved, store)
    if watch and out.is_terminal:
        with Live(console=out, auto_refresh=False) as live:
            while (now := look()).state == "running":
                live.update(Group(*standing_parts(now, words, most_cells=20)), refresh=True)
                time.sleep(_LOOK_SECONDS)
            live.update(Group(*standing_parts(now, words, most_cells=20)), refresh=True)
        _end_status(now)
        return
    printed = -math.inf
    while watch and (now := look()).state == "running":
        if time.monotonic() - printed >= _BLOCK_SECONDS:
            printed = time.monotonic()
            print_standing(out, standing_parts(now, words))
            out.print()
            sys.stdout.flush()
        time.sleep(_LOOK_SECONDS)
    now = look()
    print_standing(out, standing_parts(now, words, stopped=_stopped(resolved, store)))
    _end_status(now)


def _end_status(now: Status) -> None:
    """End with 1 where records can't be used."""
    if now.unreadable:
        raise typer.Exit(1)


def _stopped(sweep: Sweep, store: Store) -> tuple[StoppedRecipe, ...]:
    """The recipes of a search that were given up; none of a sweep."""
    if sweep.search is None:
        return ()
    from harness.search import search as searching

    return searching.stopped(sweep, store)


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
    keep: Annotated[
        bool, typer.Option("--keep", help="Save its weights as a model folder, if they equal the record's.")
    ] = False,
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
    messages = Console(stderr=as_json)
    print_untested(messages)
    label = resolved.cells[chosen.cell].label
    messages.print(Text(f"Training {chosen.id} again: {label}, seed {chosen.seeds.seed}."), soft_wrap=True)
    with step_progress(messages, "steps") as progress:
        if keep:
            with driver.keeping_one(resolved, store) as shelf:
                comparison = rerunning.rerun(resolved, store, chosen, tolerance, progress, shelf.keeping)
                if comparison.verdict == "identical":
                    shelf.publish([comparison.again])
        else:
            comparison = rerunning.rerun(resolved, store, chosen, tolerance, progress)
    if (unkept := repeats.keep(store, comparison, "rerun")) is not None:
        messages.print(Text(unkept), soft_wrap=True)
    model_folder = store.folder / "models" / comparison.trial if keep and comparison.verdict == "identical" else None
    if as_json:
        verdict = {"trial": comparison.trial, "verdict": comparison.verdict}
        verdict |= {"kept": str(model_folder)} if model_folder else {}
        print_json(
            verdict
            | {"max_difference": comparison.max_difference, "first_differing_step": comparison.first_differing_step}
            | {"reasons": list(comparison.reasons)}
        )
    else:
        print_comparison(messages, comparison)
        if keep:
            line = f"Model: {model_folder}" if model_folder else "Its weights are not the record's and were not kept."
            messages.print(Text(line), soft_wrap=True)
    if comparison.verdict != "identical":
        raise typer.Exit(1)


def verify(
    sweep: StartedSweep,
    profile: ProfileName = None,
    results: Results = Path("results"),
    retrain: Annotated[
        int | None,
        typer.Option(
            "--retrain",
            metavar="K",
            min=1,
            help="Train K finished trials again: suspicious ones first, the rest drawn at random.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Seed of the draw of --retrain; default: a fresh one, printed.")
    ] = None,
    printed: Annotated[
        str | None,
        typer.Option("--manifest", metavar="HASH", help="The hash that `harness seal` printed: hold the folder to it."),
    ] = None,
    trust_remote_code: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Check every record and its arrays, and optionally train some again to compare bit for bit; change no record.

    --retrain compares as `harness rerun` does, at its default tolerance. Exit 0: nothing contradicts anything; 1: it
    does, or files are damaged, foreign, gone or not as they were sealed.
    """
    from harness.execution.verification import manifest
    from harness.execution.verification import verify as verifying

    hub.trust_remote_code(trust_remote_code)
    if seed is not None and retrain is None:
        raise HarnessError(
            "--seed requires --retrain: it draws what is trained again", fix="Add --retrain K or leave --seed out"
        )
    seal_of = None if printed is None else manifest.read_printed(printed)
    resolved, store = planned_to_verify(sweep, profile, results)
    out = Console()
    messages = Console(stderr=as_json)
    with step_progress(messages, "records") as follow:
        checked = verifying.check(resolved, store, follow if messages.is_terminal else None)
    of_seal, added = manifest.check(store, seal_of)
    added = [*added, *verifying.edited_since(sweep_file_now(sweep, resolved), store)]
    checked = replace(checked, problems=(*checked.problems, *of_seal), notes=(*checked.notes, *added))
    if not as_json:
        print_checked(out, resolved, checked)
    chosen: tuple[Trial, ...] = ()
    if retrain is not None:
        seed = secrets.randbelow(2**32) if seed is None else seed
        chosen = verifying.draw(checked.repeatable, retrain, seed, verifying.suspects(checked))
        print_untested(messages)
        messages.print(f"Training {len(chosen)} of {len(checked.repeatable)} finished trials again (--seed {seed}).")
    problems, again = list(checked.problems), []
    for number, trial in enumerate(chosen, 1):
        label = resolved.cells[trial.cell].label
        line = f"{number} of {len(chosen)}: {trial.id} ({label}, seed {trial.seeds.seed})"
        messages.print(Text(line), soft_wrap=True)
        with step_progress(messages, "steps") as progress:
            outcome = verifying.retrain(resolved, store, trial, rerunning.TOLERANCE, progress)
        if isinstance(outcome, rerunning.RerunComparison):
            again.append(outcome)
            if (unkept := repeats.keep(store, outcome, "verify")) is not None:
                messages.print(Text(unkept), soft_wrap=True)
        else:
            problems.append(outcome)
        if not as_json:
            print_retrained(out, outcome)
    counts = Counter(outcome.verdict for outcome in again)
    if as_json:
        print_json({
            "sweep": resolved.name, "profile": resolved.profile, "planned": checked.planned,
            "finished": checked.finished, "crashed": checked.crashed, "missing": checked.missing,
            "unreadable": checked.unreadable, "problems": [asdict(finding) for finding in problems],
            "notes": [asdict(finding) for finding in checked.notes],
            "retrained": [
                {"trial": outcome.trial, "verdict": outcome.verdict, "max_difference": outcome.max_difference,
                 "first_differing_step": outcome.first_differing_step, "reasons": list(outcome.reasons)}
                for outcome in again
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


def seal(
    sweep: StartedSweep,
    profile: ProfileName = None,
    results: Results = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Hash a results folder into MANIFEST.json and print one hash of it all, to publish beside the results.

    `harness verify SWEEP --manifest HASH` holds a folder against it. Exit 1 where verify would name a problem: the
    seal is written, and covers the problem too.
    """
    from harness.execution.verification import manifest
    from harness.execution.verification import verify as verifying

    resolved, store = planned(sweep, profile, [], results)
    problems = verifying.check(resolved, store).problems
    sealed = manifest.seal(store, resolved.folder_name)
    digest, files = sealed.manifest.sha256, len(sealed.manifest.files)
    if as_json:
        print_json({
            "sweep": resolved.name, "profile": resolved.profile, "manifest": str(sealed.path), "files": files,
            "sha256": digest, "problems": len(problems),
        })  # fmt: skip
    else:
        out = Console(highlight=False)
        out.print(Text(f"Sealed: {count_noun(files, 'file')} in {sealed.path}"), soft_wrap=True)
        out.print(Text(f"SHA-256: {digest}"), soft_wrap=True)
        again = shlex.join([program(), "verify", str(store.folder), "--manifest", digest])
        out.print(Text(f"Check it: {again}"), soft_wrap=True)
        if problems:
            named = shlex.join([program(), "verify", str(store.folder)])
            number = count_noun(len(problems), "problem")
            out.print(Text(f"Sealed with {number}, which this names: {named}"), soft_wrap=True)
    if problems:
        raise typer.Exit(1)


def keys(as_json: AsJson = False) -> None:
    """List every key of a sweep file: its default, what it takes (or a list of that, for an axis) and what it means."""
    if as_json:
        print_json({"keys": [key._asdict() for key in all_keys()]})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("key", "default", "takes", "meaning"):
        table.add_column(name, no_wrap=name == "key")
    for key in all_keys():
        table.add_row(Text(key.name), Text(key.default or "(required)"), Text(key.takes), Text(key.description))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
