"""One self-contained page, Markdown and CSV from the tables and figures, written whole or not at all."""

from __future__ import annotations

import base64
import math
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from harness import analysis, figures, records
from harness.records import Curves, Environment, Store
from harness.sweep import ModelSpec, Recipe, Scalar, Sweep, TaskSpec, show

LARGEST_INLINE_SVG = 400_000  # bytes; the page carries larger figures as PNG, to stay light with very many runs
_ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(?:[^\s/'\":,;()]+/)+")


@dataclass(frozen=True)
class Report:
    """What was written: the folder, its page, and the summary that `harness report --json` prints."""

    folder: Path
    page: Path
    summary: dict[str, object]


# ------------------------------------------------------------------------------------------------------- for programs


def _known(value: object) -> object:
    """A table's value as JSON has it: plain numbers, None for NaN."""
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _single(values: Iterable[float]) -> float | None:
    distinct = set(values)
    return float(distinct.pop()) if len(distinct) == 1 else None


def summary(sweep: Sweep, table: pd.DataFrame) -> dict[str, object]:
    """The contract of `harness report --json`: scores as fractions, 95 % Wilson bounds, None where not known.

    `majority` is None before any run is finished, and where the cells differ in it (several tasks).
    """
    counts = ("planned", "finished", "crashed", "missing", "failed", "failed_low", "failed_high")
    keys = (*counts, "mean", "sd", "min", "median", "max", "scored", "at_chance", "best_mean", "loss", "majority")
    by_cell = analysis.cells(sweep, table)
    found: list[dict[str, object]] = []
    for cell, row in zip(sweep.cells, by_cell.to_dict("records"), strict=True):
        found.append({"axes": dict(cell.axes), **{key: _known(row[key]) for key in keys}})
    return {
        "sweep": sweep.name,
        "profile": sweep.profile,
        "title": sweep.title,
        "stand_in": sweep.stand_in,
        "majority": _single(table["majority_score"].dropna()),
        "answer": analysis.answer(sweep, table),
        "cells": found,
    }


def _trials_csv(table: pd.DataFrame) -> str:
    """One row a planned trial, without file-system paths; an error is its last line."""
    shown = table.assign(
        at_chance=analysis.at_chance(table),
        error=[_error_line(error) if isinstance(error, str) else None for error in table["error"]],
    )
    counts = ["correct", "majority_correct", "best_step", "diverged_step", "steps", "dev_examples", "train_examples"]
    counts += ["parameters", "peak_memory_bytes", "threads", "pack_size"]
    whole = {name: pd.to_numeric(shown[name]).astype("Int64") for name in counts}  # a missing one makes no 3.0 of 3
    return str(shown.assign(**whole).to_csv(index=False, lineterminator="\n"))


def _cells_csv(by_cell: pd.DataFrame) -> str:
    return str(by_cell.to_csv(index=False, lineterminator="\n", float_format="%.10g"))


# --------------------------------------------------------------------------------------------------------- for people


@dataclass(frozen=True)
class Table:
    """A table as text: its header and rows; `numeric` says which columns are numbers, to be set right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]


@dataclass(frozen=True)
class Picture:
    """One figure of the page: file name without ending, caption, text for those who don't see it, and its data URI."""

    name: str
    heading: str
    caption: str
    alt: str
    source: str


@dataclass(frozen=True)
class Run:
    """One trial of a table that ends with the command to train it again."""

    cells: tuple[str, ...]
    command: str


@dataclass(frozen=True)
class Page:
    """All that the templates show, as text."""

    title: str
    heading: str
    stand_in: str | None
    name: str
    answer: tuple[str, ...]
    completeness: str
    score: str
    spread: Picture
    failure_rates: Picture
    curves: Picture
    cells: Table
    arms: Table
    place: tuple[str, ...]
    failed: tuple[Run, ...]
    crashed: tuple[Run, ...]
    noise: tuple[str, ...]
    settings: Table
    provenance: Table
    glossary: tuple[tuple[str, str], ...]


def _score(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _error_line(error: str) -> str:
    """The line of an error that says what happened, without the folders of the machine it happened on."""
    lines = [line.strip() for line in error.splitlines() if line.strip()] or ["no message"]
    said = lines[-1] if lines[0].startswith("Traceback") else lines[0]
    return _ABSOLUTE_PATH.sub("…/", said)[:300]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], numeric: Iterable[int] = ()) -> Table:
    right = set(numeric)
    return Table(tuple(header), tuple(tuple(row) for row in rows), tuple(i in right for i in range(len(header))))


def _cell_table(sweep: Sweep, by_cell: pd.DataFrame) -> Table:
    axes = [axis.replace("_", " ") for axis in sweep.axes] or ["recipe"]
    header = [*axes, "finished", "failed", "rate [95 %]", "at chance", "n", "mean", "sd", "min", "median", "max"]
    header += ["best mean", "crashed", "missing"]
    rows = []
    for cell, row in zip(sweep.cells, by_cell.to_dict("records"), strict=True):
        finished, failed = row["finished"], row["failed"]
        rates = [f"{finished}/{row['planned']}", f"{failed}/{finished}", analysis.rate(failed, finished)]
        rates += [str(row["at_chance"]), str(row["scored"])]
        scores = [_score(row[name]) for name in ("mean", "sd", "min", "median", "max", "best_mean")]
        place = [show(value) for _, value in cell.axes] or ["the only one"]
        rows.append([*place, *rates, *scores, str(row["crashed"]), str(row["missing"])])
    return _table(header, rows, range(len(axes), len(header)))


def _arm_table(sweep: Sweep, table: pd.DataFrame) -> Table:
    header = ["axis", "value", "failed", "rate [95 %]", "mean score", "mean training loss", "Fisher's exact p"]
    rows = []
    for _, arm in analysis.arms(sweep, table).iterrows():
        p = "–" if math.isnan(arm["p"]) else f"{arm['p']:.2g}" + ("" if arm["balanced"] else " (unbalanced)")
        counts = [f"{arm['failed']}/{arm['finished']}", analysis.rate(arm["failed"], arm["finished"])]
        rows.append(
            [arm["axis"].replace("_", " "), show(arm["value"]), *counts, _score(arm["mean"]), _score(arm["loss"]), p]
        )
    return _table(header, rows, range(2, 7))


def _place(sweep: Sweep, cell: int, seed: str) -> tuple[str, ...]:
    return (*(show(value) for _, value in sweep.cells[cell].axes), seed)


def _failed(sweep: Sweep, runs: pd.DataFrame) -> tuple[Run, ...]:
    rows = []
    for _, run in runs.iterrows():
        verdict = run["verdict"] + (f": {run['reason']}" if run["reason"] else "")
        numbers = [_score(run[name]) for name in ("score", "best", "majority", "loss")]
        rows.append(Run((*_place(sweep, run["cell"], run["seed"]), verdict, *numbers), run["command"]))
    return tuple(rows)


def _crashed(sweep: Sweep, table: pd.DataFrame, prefix: str | None) -> tuple[Run, ...]:
    rows = []
    for _, run in table[table["status"] == "crashed"].iterrows():
        error = _error_line(run["error"]) if isinstance(run["error"], str) else "no message"
        texts = (*_place(sweep, run["cell"], analysis.seed_name(run)), str(run["attempts"]), error)
        rows.append(Run(texts, analysis.rerun_command(sweep, run["trial"], prefix)))
    return tuple(rows)


def _setting(value: object) -> str:
    """A setting as text; of a task or model what decides the result, not where its files lie on a machine."""
    if isinstance(value, TaskSpec | ModelSpec):
        fields = value.model_dump(exclude={"files", "folder", "name"}, exclude_defaults=True)
        return ", ".join([value.name, *(f"{key} {show(inner)}" for key, inner in fields.items())])
    return show(value)


def _settings(sweep: Sweep) -> Table:
    """Every field of the recipes: one value, or which cells have which."""
    rows = []
    for field in Recipe.model_fields:
        if field in sweep.axes:
            values: list[Scalar] = list(dict.fromkeys(dict(cell.axes)[field] for cell in sweep.cells))
            rows.append([field, ", ".join(map(show, values)) + " (axis)"])
            continue
        having: dict[str, list[str]] = {}
        for cell in sweep.cells:
            label = dict(cell.axes).get("recipe", cell.label)  # only named recipes vary a field that is no axis
            having.setdefault(_setting(getattr(cell.recipe, field)), []).append(show(label))
        if len(having) == 1:
            rows.append([field, next(iter(having))])
        else:
            rows.append(
                [field, "; ".join(f"{value} ({', '.join(dict.fromkeys(who))})" for value, who in having.items())]
            )
    rows += [[name, numbers] for name, numbers in _seed_parts(sweep).items()]
    return _table(["setting", "value"], rows)


def _seed_parts(sweep: Sweep) -> dict[str, str]:
    """Which seeds drive what: one line where one integer drives all three parts."""
    together = all(len({seeds.init_seed, seeds.order_seed, seeds.dropout_seed}) == 1 for seeds in sweep.seeds)
    if together:
        return {"seeds (head, order and dropout together)": _ranges([seeds.seed for seeds in sweep.seeds])}
    names = ("init_seed", "order_seed", "dropout_seed")
    return {name: _ranges([getattr(seeds, name) for seeds in sweep.seeds]) for name in names}


def _ranges(numbers: Sequence[int]) -> str:
    """1, 2, 3, 7 as `1–3, 7`."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}–{high}" for low, high in runs)


def _provenance(table: pd.DataFrame) -> Table:
    """Where the finished runs were made; several values of one thing are told with their numbers of runs."""
    done = table[table["status"] == "finished"]
    names = {name: name.replace("_", " ") for name in Environment.model_fields}
    names |= {"commit": "harness commit", "harness": "harness version", "data_sha256": "data, SHA-256"}
    names |= {"model_sha256": "model, SHA-256", "parameters": "parameters trained", "steps": "steps"}
    names |= {"train_examples": "training examples", "dev_examples": "dev examples"}
    rows = []
    for name, shown in names.items():
        counts = done[name].value_counts(dropna=False, sort=False).sort_index(key=lambda index: index.map(str))
        texts = []
        for value, runs in counts.items():
            text = "not known" if pd.isna(value) else str(int(value)) if isinstance(value, float) else str(value)
            text = text[:16] if name.endswith("sha256") else text
            texts.append(text if len(counts) == 1 else f"{text} ({runs} runs)")
        if texts:
            rows.append([shown, "; ".join(texts)])
    if len(done):
        seconds = pd.to_numeric(done["lane_seconds"]).sum()
        rows.append(["training time, sum over runs", _duration(seconds)])
        mebibytes = pd.to_numeric(done["peak_memory_bytes"]).max() / 2**20
        rows.append(["peak memory of a pack", f"{mebibytes:.0f} MiB"])
    return _table(["what", "value"], rows)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _counted(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def _completeness(sweep: Sweep, table: pd.DataFrame, unreadable: int) -> str:
    counts = {status: int((table["status"] == status).sum()) for status in ("finished", "crashed", "missing")}
    cells, seeds = _counted(len(sweep.cells), "cell"), _counted(len(sweep.seeds), "seed")
    states = ", ".join(f"{count} {status}" for status, count in counts.items())
    text = f"Planned: {cells} × {seeds} = {len(table)}; {states}."
    if unreadable:
        text += f" {unreadable} of the missing left a record that cannot be read."
    if counts["finished"] < len(table):
        text += " Rates are over the finished runs; a crashed or missing run is missing data, never a failed run."
    return text


def _glossary(table: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    share = f"{100 * analysis.NEAR_ENTROPY:.0f} %"
    return (
        (
            "failed",
            "A finished run whose final dev score is at or below that of always answering the majority class, compared "
            "in counts of right answers. A run that diverged (NaN or infinite) has no score and counts as failed. "
            "Reasons, where they can be told: constant (one class predicted), diverged, collapsed (was above the "
            "majority, ended below).",
        ),
        (
            "at chance",
            "A run above the majority by count whose right answers are not above it at 5 % (one-sided exact binomial "
            f"test) and whose training loss in the last epoch is at least {share} of the labels' entropy: not failed "
            "by the definition, and plainly not trained. It is marked, and not counted as failed.",
        ),
        (
            "rate [95 %]",
            "Failed of finished runs with Wilson's interval. Rates pooled over an axis mix the settings of the others; "
            "Fisher's exact test compares the two values of an axis so pooled, two-sided, unadjusted for the number of "
            "tests, and leaves aside that both share their seeds.",
        ),
        (
            "mean, sd",
            "Over the scored runs of a cell, failed ones included; sd with n − 1. Where all fail, sd is small.",
        ),
        ("n", "Runs with a final score, those that the mean is over: finished without the diverged ones."),
        ("crashed, missing", "What happened to the process, not to the science: missing data, outside every rate."),
    )


def _captions(sweep: Sweep) -> dict[str, tuple[str, str]]:
    """Heading and how to read it, of each figure."""
    return {
        "spread": (
            "Spread",
            "Each dot is one run, each box the middle half of a cell's runs (drawn from five scores on); whiskers "
            "reach the farthest run within 1.5 box heights. Crosses are failed runs, hollow squares runs at chance, "
            "triangles at the bottom runs that diverged. n counts the scores, ✕ the failed.",
        ),
        "failure_rates": (
            "Failure rates",
            "The mark is the failed share of a cell's finished runs, the bar its 95 % Wilson interval: with few seeds "
            "even 0 failed leaves room for a high rate. Crashed and missing runs stand beside the count.",
        ),
        "curves": (
            "Curves",
            "Left the dev score, right the training loss (running mean), one line a run. The dashed lines are the "
            "majority's score and the labels' entropy: a run whose loss stays at the entropy has learned nothing.",
        ),
    }


def _picture(name: str, sweep: Sweep, folder: Path, sentence: str) -> Picture:
    heading, caption = _captions(sweep)[name]
    svg, png = (folder / f"{name}.{ending}" for ending in ("svg", "png"))
    light = svg.stat().st_size <= LARGEST_INLINE_SVG
    content = base64.b64encode((svg if light else png).read_bytes()).decode()
    source = f"data:image/{'svg+xml' if light else 'png'};base64,{content}"
    return Picture(name, heading, caption, f"{heading} of {sweep.title}. {sentence}", source)


def _page(
    sweep: Sweep, table: pd.DataFrame, by_cell: pd.DataFrame, folder: Path, unreadable: int, prefix: str | None
) -> Page:
    answer = tuple(analysis.answer(sweep, table))
    pictures = {name: _picture(name, sweep, folder, answer[0]) for name in ("spread", "failure_rates", "curves")}
    metrics = sorted(set(table["metric"].dropna())) or ["score"]
    said = sweep.stand_in and sweep.stand_in not in sweep.title
    return Page(
        title=f"{sweep.title} ({sweep.stand_in})" if said else sweep.title,
        heading=sweep.title,
        stand_in=sweep.stand_in if said else None,
        name=sweep.folder_name,
        answer=answer,
        completeness=_completeness(sweep, table, unreadable),
        score=f"Scores are the dev {' / '.join(metrics).replace('_', ' ')} at the end of training, as fractions; "
        "“best mean” alone is over each run's best evaluation.",
        spread=pictures["spread"],
        failure_rates=pictures["failure_rates"],
        curves=pictures["curves"],
        cells=_cell_table(sweep, by_cell),
        arms=_arm_table(sweep, table),
        place=(*(axis.replace("_", " ") for axis in sweep.axes), "seed"),
        failed=_failed(sweep, analysis.failed_runs(sweep, table, prefix)),
        crashed=_crashed(sweep, table, prefix),
        noise=tuple(analysis.noise_note(sweep, table)),
        settings=_settings(sweep),
        provenance=_provenance(table),
        glossary=_glossary(table),
    )


def _markdown(text: object) -> Markup:
    """Text as Markdown shows it: no markup of its own taken over, no cell or line broken."""
    plain = str(escape(" ".join(str(text).split()))).replace("&#39;", "'").replace("&#34;", '"')
    return Markup(re.sub(r"([|\\`*\[\]])", r"\\\1", plain).replace("_", "\\_"))


def _render(template: str, page: Page) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = _markdown
    return environment.get_template(template).render(page=page)


def write(sweep: Sweep, store: Store, *, out: Path | None = None, rerun: str | None = None) -> Report:
    """Write the report of a sweep from the records there are, complete or not, into `out` or `<results>/report`.

    `rerun` stands before ` --trial <id>` in the commands shown, where the default, `harness rerun <name> --profile
    <profile>`, would not find the sweep (one given by a path, or with other settings). A report that is already there
    is replaced by two renames once the new one is whole, so that a killed report never leaves half a page.
    """
    table = records.frame(sweep, store)
    by_cell = analysis.cells(sweep, table)
    folder = out if out is not None else store.folder / "report"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        fresh = Path(beside) / "new"
        _fill(fresh, sweep, table, by_cell, store, rerun)
        if folder.exists():
            folder.rename(Path(beside) / "old")
        fresh.rename(folder)
    return Report(folder=folder, page=folder / "index.html", summary=summary(sweep, table))


def _fill(
    folder: Path, sweep: Sweep, table: pd.DataFrame, by_cell: pd.DataFrame, store: Store, rerun: str | None
) -> None:
    """Write all files of a report into a new folder."""
    drawn = folder / "figures"
    drawn.mkdir(parents=True)
    for name, figure in figures.draw(sweep, table, by_cell, _arrays(store, table)):
        figures.save(figure, drawn, name)
    page = _page(sweep, table, by_cell, drawn, len(store.unreadable(sweep)), rerun)
    for name, content in {
        "index.html": _render("report.html.j2", page),
        "report.md": _render("report.md.j2", page),
        "trials.csv": _trials_csv(table),
        "cells.csv": _cells_csv(by_cell),
    }.items():
        (folder / name).write_text(content, encoding="utf-8")


def _arrays(store: Store, table: pd.DataFrame) -> Mapping[str, Curves]:
    finished = table.loc[table["status"] == "finished", "trial"]
    kept = ((trial, store.curves(trial)) for trial in finished)
    return {trial: arrays for trial, arrays in kept if arrays is not None}
