"""Commands that look for a recipe: a search, and a learning-rate range test."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from harness import api
from harness.cli.arguments import seconds_of
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
    SweepName,
    Threads,
    TimeLimit,
    Trust,
    Where,
    Workers,
    WorkersPerGpu,
)
from harness.cli.progress import print_headline, print_json, print_untested, step_progress, sweep_progress
from harness.common import hub
from harness.config.trials import where
from harness.execution import driver
from harness.execution.lookup import program
from harness.records.store import Store


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
            "--stop-hopeless",
            help="Stop a recipe early when all its runs are at risk by the rule of `harness diagnose`.",
        ),
    ] = False,
    tune: Annotated[
        bool,
        typer.Option("--tune", help="Train through Ray Tune; its ASHA is `pruner: successive_halving` in the file."),
    ] = False,
    trust_remote_code: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Search for a good and stable recipe: each is trained over all seeds, the best again on fresh seeds.

    Stop it at any time and re-run the same command to resume. Exit 0: all was trained; 1: runs crashed or are missing.
    """
    from harness.report import search_page
    from harness.search import search as searching

    hub.trust_remote_code(trust_remote_code)
    seconds = None if time_limit is None else seconds_of(time_limit)
    loaded = api.load_sweep(sweep, set=overrides, profile=profile)
    resolved, reason = loaded.sweep, loaded.reason
    store = Store(results / resolved.folder_name)
    out = Console(stderr=as_json)
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
            out.print("\nStopped: what was trained is kept; re-run the same command to resume.")
            raise
    written = search_page.write_report(ended.sweep, store, searching.stopped(ended.sweep, store))
    if as_json:
        print_json(written.summary)
    else:
        for sentence in written.said:
            out.print(Text(sentence), soft_wrap=True)
        out.print(f"Search: {written.page}", soft_wrap=True)
        if ended.confirmed is not None:
            again = shlex.join([program(), "report", str(store.folder.parent / ended.confirmed.folder_name)])
            out.print(Text(f"The runs on fresh seeds in full: {again}"), soft_wrap=True)
    if not ended.complete:
        if not as_json:
            out.print("Runs crashed or are missing: re-run the same command to train what is missing.")
        raise typer.Exit(1)


def find_lr(
    sweep: SweepName,
    conditions: Where = [],
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", min=1, help="Number of the sweep's seeds to use; default: 4, or all of fewer."),
    ] = None,
    low: Annotated[float, typer.Option("--low", help="Lowest learning rate.")] = 1e-6,
    high: Annotated[float, typer.Option("--high", help="Highest learning rate.")] = 1e-2,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Length of the test, in epochs.")] = 1,
    profile: ProfileName = None,
    overrides: Overrides = [],
    results: Results = Path("results"),
    threads: Threads = 1,
    trust_remote_code: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Suggest a learning rate by an exponential range test over several seeds; warn where runs failed near it."""
    from harness.search import lr_range

    hub.trust_remote_code(trust_remote_code)
    loaded = api.load_sweep(sweep, set=overrides, profile=profile)
    resolved, reason = loaded.sweep, loaded.reason
    store = Store(results / resolved.folder_name)
    messages = Console(stderr=as_json)
    print_headline(messages, resolved, reason)
    print_untested(messages)
    with step_progress(messages, "steps") as progress:
        range_test = lr_range.find(
            resolved, store, where(resolved, conditions), seeds=seeds, low=low, high=high, epochs=epochs,
            threads=threads, progress=progress,
        )  # fmt: skip
    summary = lr_range.save(range_test, resolved, store.folder / "lr_find")
    if as_json:
        print_json(summary)
        return
    for sentence in lr_range.words(range_test):
        messages.print(Text(sentence), soft_wrap=True)
    messages.print(f"Picture: {store.folder / 'lr_find' / 'lr_find.png'}", soft_wrap=True)
