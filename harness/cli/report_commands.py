"""Commands that read results: report, diagnosis, import and export."""

from __future__ import annotations

import re
import shlex
import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from harness import api
from harness.cli.arguments import sweep_words
from harness.cli.console import Console
from harness.cli.options import AsJson, Overrides, ProfileName, References, Results, StartedSweep, Threads
from harness.cli.progress import plain, print_json, step_progress
from harness.cli.status_views import end_with_set_aside, unreadable_lines
from harness.common.errors import HarnessError
from harness.common.files import write_text
from harness.common.forked import Beside
from harness.common.text import count_noun
from harness.execution.lookup import named_sweep, planned, program
from harness.records.store import Store
from harness.records.study import Study, compared, joined

if TYPE_CHECKING:
    from harness.report.page import Report


def report(
    names: Annotated[
        list[str], typer.Argument(metavar="SWEEP|DIR…", help="A sweep, results folder or import; or two, side by side.")
    ],
    profile: ProfileName = None,
    overrides: Overrides = [],
    results: Results = Path("results"),
    threshold: Annotated[
        float | None, typer.Option(help="Also count runs with a score worse than this as failed, in a column beside.")
    ] = None,
    main: Annotated[
        str | None, typer.Option(metavar="AXIS", help="The axis that leads; default: the one that is varied first.")
    ] = None,
    references: References = [],
    all_pairs: Annotated[
        bool, typer.Option("--all-pairs", help="Compare every pair of values, not each with the reference.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the report: page, tables and figures of a sweep or import, complete or not; of two, side by side.

    Records and arrays that can't be used are left out and named; the exit code is then 1.
    """
    if len(names) > 2:
        raise HarnessError(
            f"cannot report {len(names)} studies together, only one or two", fix="Report them two by two"
        )
    opened = [api.open(name, set=overrides, profile=profile, results=results) for name in names]
    study, folder = opened[0].study, Path(str(opened[0].folder))
    if len(opened) == 2:
        study = joined(study, opened[1].study)
        folder = results / re.sub(r"[^\w@.=-]+", "-", re.sub(r"[()]", "", study.name))
    study = compared(study, main, references, all_pairs)
    made = _written(study, folder / "report", threshold)
    summary, pages = made.summary if as_json else {}, [f"Report: {made.page}"]
    if len(study.sweeps) == 1 and study.sweeps[0].search is not None:
        from harness.report import search_page
        from harness.search import search as searching

        given_up = searching.stopped(study.sweeps[0], Store(folder))
        written = search_page.write_report(study.sweeps[0], Store(folder), given_up)
        summary |= {"search": written.summary}
        pages.append(f"Search: {written.page}")
    if as_json:
        print_json(summary)
    else:
        if not (study.runs["status"] == "finished").any():
            note = Text(f"No run has finished in {folder}: the report is empty.")
            Console(stderr=True).print(note, soft_wrap=True)
        for page in pages:
            Console().print(page, soft_wrap=True)
    end_with_set_aside(study, None if as_json else Console(), "the report", reports=True)


def _written(study: Study, folder: Path, threshold: float | None) -> Report:
    """Write a report; its tables are made in another process while this one imports what draws and writes them."""
    from harness.analysis.analyze import analyse

    tables = Beside(lambda: analyse(study, threshold))
    try:
        from harness.report import page

        return page.write_analysis(tables.result(), folder)
    finally:
        tables.stop()


def open_page(
    name: Annotated[str, typer.Argument(metavar="SWEEP|DIR", help="A sweep, results folder or import.")],
    profile: ProfileName = None,
    results: Results = Path("results"),
) -> None:
    """Open the page of a report in a browser."""
    page = Path(str(api.open(name, profile=profile, results=results).folder)) / "report" / "index.html"
    if not page.is_file():
        raise HarnessError(f"{page} is not there", fix=f"`{program()} report {name}` writes it")
    out = Console()
    out.print(Text(f"Page: {page}"), soft_wrap=True)
    if not webbrowser.open(page.resolve().as_uri()):
        out.print("No browser was found here: copy the folder to where there is one.")


def card(
    name: Annotated[str, typer.Argument(metavar="SWEEP|DIR", help="A sweep, results folder or import.")],
    profile: ProfileName = None,
    results: Results = Path("results"),
) -> None:
    """Print half a page for a model card or an appendix, and write it with a badge beside the report."""
    from harness.report import card as cards

    opened = api.open(name, profile=profile, results=results)
    folder = Path(str(opened.folder)) / "report"
    if not (opened.study.runs["status"] == "finished").any():
        raise HarnessError(f"nothing to put on a card: no run of {opened.study.name} has finished")
    text = cards.card(opened.analysis)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "card.md", text)
    write_text(folder / "badge.svg", cards.badge(opened.analysis))
    out = Console()
    out.print(Text(text), soft_wrap=True)
    out.print(Text(f"Written: {folder / 'card.md'} and {folder / 'badge.svg'}"), soft_wrap=True)
    end_with_set_aside(opened.study, Console(stderr=True), "the card")


def diagnose(
    sweep: StartedSweep,
    profile: ProfileName = None,
    overrides: Overrides = [],
    results: Results = Path("results"),
    surface: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--surface", metavar="TRIAL TRIAL", help="Also draw the loss surface through two saved trials of one cell."
        ),
    ] = None,
    threads: Threads = 1,
    as_json: AsJson = False,
) -> None:
    """Explain why runs fail and how early that could be predicted; part of the report."""
    from harness.report import diagnosis
    from harness.report import page as reports
    from harness.report.next_experiment import next_sweep

    opened = api.open(sweep, set=overrides, profile=profile, results=results)
    study, folder = opened.study, Path(str(opened.folder))
    _refuse_nothing_to_tell(study, sweep, folder)
    if surface is not None:
        from harness.execution import loss_surface as surfaces

        with step_progress(Console(stderr=as_json), "points") as progress:
            computed = surfaces.compute(study.sweeps[0], Store(folder), surface, threads=threads, progress=progress)
        study = replace(study, surface=computed)
    made = reports.write(study, folder / "report")
    if as_json:
        print_json(diagnosis.summary(made.analysis, str(made.page)))
        end_with_set_aside(study, None, "the diagnosis", reports=True)
        return
    out = Console()
    for sentence in diagnosis.sentences(made.analysis):
        out.print(Text(plain(sentence)), soft_wrap=True)
    proposed = next_sweep(made.analysis)
    if proposed is not None:
        out.print(Text(plain(f"Next: {proposed[0]}")), soft_wrap=True)
        out.print(Text(f"\n{proposed[1]}"), soft_wrap=True)
    out.print(f"Report: {made.page}", soft_wrap=True)
    end_with_set_aside(study, out, "the diagnosis", reports=True)


def _refuse_nothing_to_tell(study: Study, given: str, folder: Path) -> None:
    """Raise HarnessError where a diagnosis of what was `given` has nothing to look at."""
    judged = study.runs[(study.runs["status"] == "finished") & study.runs["outcome"].notna()]
    name = study.name
    if not any((curves := study.curves(int(row))) is not None and curves.recording for row in judged.index):
        texts = any(
            cell.script is None and cell.recipe.task.kind == "texts" for sweep in study.sweeps for cell in sweep.cells
        )
        if not study.sweeps:
            got, fix = f"{name} was imported", f"`harness report {name}` says what its columns allow"
        elif study.sweeps[0].is_script:
            got, fix = f"{name} is of a script, whose training is not recorded", "See its report"
        elif not texts:
            got, fix = f"{name} is a token task, of which nothing is recorded", "See its report"
        elif judged.empty:
            words = sweep_words(given, study.sweeps[0], Store(folder)) or "the command that began it"
            got, fix = f"{name} has no finished runs", f"`{words}` trains what is missing"
        else:
            got = f"{count_noun(len(judged), 'finished run')} of {name}, none recorded"
            fix = "Train them again in another --results folder; their results will be the same"
        raise HarnessError(f"nothing to diagnose: {got}", fix=fix)
    failed = int((judged["outcome"] == "failed").sum())
    if failed in (0, len(judged)):
        raise HarnessError(
            f"nothing to explain: {count_noun(len(judged), 'finished run')} of {name}, "
            f"{'all' if failed else 'none'} of them failed",
            fix="Add a recipe that "
            + ("does not fail, such as a smaller lr" if failed else "fails, such as a larger lr"),
        )


def export(
    sweep: StartedSweep,
    to: Annotated[Literal["mlflow", "tensorboard", "wandb"], typer.Option("--to", help="The kind of tracking store.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="The folder to write; default: in the results folder.")
    ] = None,
    uri: Annotated[
        str | None,
        typer.Option("--uri", help="MLflow only: a server, database or file: store; default: SQLite in that folder."),
    ] = None,
    profile: ProfileName = None,
    results: Results = Path("results"),
) -> None:
    """Copy the records into MLflow, TensorBoard or W&B (offline); run it again to bring the copy up to date."""
    from harness.records import export as tracking

    resolved, store = planned(sweep, profile, [], results)
    messages = Console()
    with step_progress(messages, "runs") as progress:
        done = tracking.export(resolved, store, to, out, uri, progress)
    messages.print(
        Text(f"{done.written} runs written, {done.replaced} replaced, {done.left} there already: {done.place}"),
        soft_wrap=True,
    )
    messages.print(Text(f"Look at them: {done.look}"), soft_wrap=True)
    if done.needs is not None:
        messages.print(Text(f"which needs the interface installed: {done.needs}"), soft_wrap=True)
    if damaged := store.unreadable(resolved):
        for line in unreadable_lines([(file.file, file.reason) for file in damaged]):
            messages.print(line, soft_wrap=True)
        raise typer.Exit(1)


def import_runs(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE…",
            help="Tables (CSV, JSON, Parquet), stores or folders of other tools, or an MLflow server.",
        ),
    ],
    metric: Annotated[str, typer.Option("--metric", metavar="COL", help="Column of the final scores.")],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="Name of the results folder to write.")],
    seed: Annotated[str | None, typer.Option("--seed", metavar="COL", help="Column of the seeds.")] = None,
    seed_from: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Instead of --seed: read it from a run's folder or name, as 'seed(\\d+)'."),
    ] = None,
    cell: Annotated[
        list[str], typer.Option("--cell", metavar="COL,…", help="Columns that distinguish the recipes; may repeat.")
    ] = [],
    conditions: Annotated[
        list[str],
        typer.Option("--where", metavar="COL=VALUE,…", help="Only these rows; COL!=VALUE excludes; may repeat."),
    ] = [],
    state: Annotated[
        str | None,
        typer.Option(
            metavar="COL|none", help="Column that says which runs crashed or never ended; default: found by its values."
        ),
    ] = None,
    majority: Annotated[
        str | None,
        typer.Option(metavar="NUMBER|COL", help="The majority classifier's score: a run at or below it failed."),
    ] = None,
    higher_is_better: Annotated[bool, typer.Option("--higher-is-better/--lower-is-better")] = True,
    unit: Annotated[
        str | None, typer.Option(metavar="percent|fraction|other", help="Unit of the scores, where it is ambiguous.")
    ] = None,
    nan: Annotated[
        str | None, typer.Option(metavar="missing|diverged", help="What an empty, NaN or infinite score means.")
    ] = None,
    aggregate: Annotated[
        str | None,
        typer.Option(metavar="mean|median|min|max|first|last", help="How several rows of one seed are combined."),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="1..20", help="The planned seeds: a cell's seeds without a row count as missing."),
    ] = None,
    examples: Annotated[
        str | None,
        typer.Option(metavar="N|COL", help="Number of dev examples, if the score is the share of right answers."),
    ] = None,
    test: Annotated[str | None, typer.Option(metavar="COL", help="Column of the test scores.")] = None,
    best: Annotated[str | None, typer.Option(metavar="COL", help="Column of the best scores during training.")] = None,
    loss: Annotated[str | None, typer.Option(metavar="COL", help="Column of the final training losses.")] = None,
    references: References = [],
    results: Results = Path("results"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another import of that name.")] = False,
    as_json: AsJson = False,
) -> None:
    """Import runs of other training code from tables, stores or folders, to report on with `harness report NAME`."""
    from harness.records.importing.options import ImportOptions
    from harness.records.importing.runs import import_runs as read_and_write

    if named_sweep(name) is not None:
        raise HarnessError(f"--as {name} is the name of a sweep", fix="Choose another")
    options = ImportOptions(
        sources=tuple(files), seed=seed, metric=metric, name=name, cell=tuple(cell), where=tuple(conditions),
        majority=majority, higher_is_better=higher_is_better, nan=nan, aggregate=aggregate, seeds=seeds,
        examples=examples, test=test, best=best, loss=loss, seed_from=seed_from, state=state, unit=unit,
        reference=tuple(references),
    )  # fmt: skip
    folder, imported = read_and_write(options, results, overwrite=overwrite)
    if as_json:
        print_json({"name": name, "folder": str(folder), **imported.counts})
        return
    counts = imported.counts
    out = Console()
    out.print(
        f"{count_noun(counts['cells'], 'cell')}, {count_noun(counts['runs'], 'run')}: {counts['finished']} finished "
        f"({counts['diverged']} diverged), {counts['crashed']} crashed, {counts['missing']} missing."
    )
    for note in imported.imported.notes:
        out.print(Text(note), soft_wrap=True)
    again = "" if results == Path("results") else f" --results {shlex.quote(str(results))}"
    out.print(Text(f"Report it: {program()} report {name}{again}"), soft_wrap=True)
