"""How the status of a sweep looks on a screen."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from harness.cli.console import Console
from harness.cli.progress import plain
from harness.common.text import count_noun, show
from harness.config.recipe import MOST
from harness.execution.follow import duration
from harness.execution.lookup import program

if TYPE_CHECKING:
    from harness.analysis import status
    from harness.analysis.search_ranking import StoppedRecipe
    from harness.records.study import Study

# After so long without a sign of life the machine of a sweep may be down.
_LONG_SILENT_SECONDS = 300.0


def print_standing(out: Console, parts: list[Text | Table]) -> None:
    """Print the parts that `standing_parts` gives."""
    for part in parts:
        out.print(part, soft_wrap=isinstance(part, Text))


def standing_parts(
    now: status.Status, words: str | None, most_cells: int = MOST, stopped: Sequence[StoppedRecipe] = ()
) -> list[Text | Table]:
    """How a sweep stands, what matters most first: a terminal may have few lines."""
    total = now.total
    parts: list[Text | Table] = [Text(plain(now.sweep.title), style="bold")]
    if now.sweep.stand_in:
        parts.append(Text(plain(now.sweep.stand_in), style="yellow"))
    parts.append(Text(plain(f"Profile {now.sweep.profile}, in {now.folder}.")))
    parts.append(Text(plain(_state(now))))
    rest = "".join(
        f", {n} {name}"
        for n, name in ((total.crashed, "crashed"), (total.missing, "missing"), (total.unreadable, "unreadable"))
        if n
    )
    training = f" ({total.training} training now)" if total.training else ""
    parts.append(Text(
        f"{total.finished} of {total.planned} trials finished, {total.failed} of them failed{rest}{training}."
    ))  # fmt: skip
    parts += [Text(plain(line)) for line in (now.seeds.lines if now.seeds else ())]
    if stopped:
        from harness.report import search_page

        parts.append(Text(plain(" ".join(search_page.given_up(stopped)))))
    if now.state == "running" and now.heartbeat:
        from harness.analysis import status

        left = now.heartbeat.seconds_left
        unknown = "not known, as a search is open-ended" if now.sweep.search else "estimating …"
        time_left = unknown if left is None else f"about {duration(left)}"
        on = f"{count_noun(now.heartbeat.workers, 'worker')} on {now.heartbeat.device}"
        parts.append(Text(plain("; ".join((f"Time left: {time_left}, with {on}", *status.use(now.heartbeat.host))))))
    if now.warning:
        parts.append(Text(plain(now.warning), style="yellow" if any(True in pack.lost for pack in now.packs) else ""))
    parts += _pack_table(now)
    if now.crashed:
        parts.append(Text("Crashed:", style="bold"))
        for trial, error, attempts in now.crashed[:10]:
            message = plain(error)
            tried = f" (attempt {attempts})" if attempts > 1 else ""
            parts.append(Text(f"  {trial}{tried}: {message if len(message) <= 200 else message[:199] + '…'}"))
        if len(now.crashed) > 10:
            parts.append(Text(f"  … and {len(now.crashed) - 10} more"))
    parts += unreadable_lines(now.unreadable)
    if now.failed:
        more = f", … and {len(now.failed) - 5} more (--json lists them)" if len(now.failed) > 5 else ""
        parts.append(Text(plain(f"Failed: {', '.join(now.failed[:5])}{more}")))
    parts.append(_counts_table(now, most_cells))
    if len(now.cells) > most_cells:
        parts.append(Text(f"… and {len(now.cells) - most_cells} more cells, which are shown without --watch"))
    left = now.total.missing + now.total.unreadable - sum(recipe.runs for recipe in stopped)
    return [*parts, *(Text(plain(f"{what}: {command}")) for what, command in _next(now, words, left))]


def end_with_set_aside(study: Study, out: Console | None, product: str, *, reports: bool = False) -> None:
    """Name the files that a product had to leave out, and how to see all that is wrong; raises Exit(1) for any.

    Args:
        study: What was read.
        out: Where the names go; None: they stand in what was printed.
        product: What they are not in, as `the report`.
        reports: Whether a report was written, which also shows what lies beside the records.
    """
    files = [(file.file, file.reason) for file in study.set_aside.files]
    if reports:
        files += [(name, "it can't be read") for name in study.set_aside.beside]
    if not files:
        return
    if out is not None:
        for line in unreadable_lines(files):
            out.print(line, soft_wrap=True)
        words = f"They were left out of {product}; `harness verify` checks the whole folder."
        out.print(Text(words), soft_wrap=True)
    raise typer.Exit(1)


def unreadable_lines(files: Sequence[tuple[str, str]]) -> list[Text | Table]:
    """The files that can't be used, the first ten, each as (name, why)."""
    if not files:
        return []
    lines: list[Text | Table] = [Text("Unreadable:", style="bold")]
    lines += [Text(f"  {plain(name)}: {plain(problem)}") for name, problem in files[:10]]
    return lines + ([Text(f"  … and {len(files) - 10} more")] if len(files) > 10 else [])


def _state(now: status.Status) -> str:
    silent = "" if now.silent_seconds is None else f"last sign of life {duration(now.silent_seconds)} ago"
    if now.state == "running":
        sentence = f"Running ({now.holder}); {silent or 'no progress reported yet'}."
        if now.elsewhere and (now.silent_seconds or 0) > _LONG_SILENT_SECONDS:
            sentence += f" If that machine is down for good, remove {now.folder / '.lock'}."
        return sentence
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


def _next(now: status.Status, words: str | None, left: int) -> list[tuple[str, str]]:
    """What to type next, and what for; `left` are missing and not given up."""
    begin = words or "the command that began it"
    retried = now.total.crashed and not now.sweep.search  # a search tries other recipes instead
    if now.state == "running":
        after = [("Retry the crashed when it has ended", f"{begin} --retry-crashed")] if retried else []
        return [*after, ("To stop it", "Ctrl-C where it runs; re-run the same command to resume")]
    commands = []
    if left:
        commands.append(("Train what is missing", begin))
    if retried:
        commands.append(("Retry the crashed", f"{begin} --retry-crashed"))
    if now.total.finished:
        commands.append(("Report it", shlex.join([program(), "report", str(now.folder)])))
    return commands


def _counts_table(now: status.Status, most_cells: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in now.sweep.axes or ("recipe",):
        table.add_column(Text(plain(name)))
    damaged = ("unreadable",) if now.unreadable else ()
    for name in ("planned", "finished", "failed", "crashed", "missing", *damaged, "training"):
        table.add_column(name, justify="right")
    for cell, counted in list(zip(now.sweep.cells, now.cells, strict=True))[:most_cells]:
        names = [Text(plain(show(value))) for _, value in cell.axes] or [Text("the only one")]
        failed = f"{counted.failed}/{counted.finished}" if counted.finished else "–"
        ended = (counted.planned, counted.finished, failed, counted.crashed, counted.missing)
        counts = (*ended, *((counted.unreadable,) if damaged else ()), counted.training)
        table.add_row(*names, *map(str, counts))
    return table


def _pack_table(now: status.Status) -> list[Text | Table]:
    """The running packs, a line for each of a pack's cells, of which four are shown: those first with lost lanes."""
    if not now.packs:
        return []
    if now.sweep.is_script:
        return [_script_table(now)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("pack", "done", "steps", "pace", "time"):
        table.add_column(name, justify="right")
    table.add_column("training")
    for number, pack in enumerate(now.packs, 1):
        steps, pace = "–" if pack.steps is None else f"{pack.steps_done}/{pack.steps}", "–"
        if pack.steps_per_second is not None:
            pace = f"{pack.steps_per_second:.{0 if pack.steps_per_second >= 10 else 2}f} steps/s"
        first = (str(number), f"{100 * pack.share:.0f} %", steps, pace, duration(pack.seconds))
        seeds: dict[int, list[str]] = defaultdict(list)
        for trial, lost in zip(pack.trials, pack.lost, strict=True):
            seeds[trial.cell].append(f"{trial.seeds.seed}{' (at risk)' if lost else ''}")
        what = [
            f"{now.sweep.cells[cell].label}: {'seed' if len(of) == 1 else 'seeds'} {', '.join(of)}"
            for cell, of in sorted(
                seeds.items(), key=lambda cell_and_seeds: not any("at risk" in seed for seed in cell_and_seeds[1])
            )
        ]
        if len(what) > 4:
            what[3:] = [f"… and {count_noun(len(what) - 3, 'more cell')}"]
        if pack.deaths:
            what.append(f"its worker died {count_noun(pack.deaths, 'time')} before")
        for line_number, line in enumerate(what):
            table.add_row(*(first if line_number == 0 else ("",) * len(first)), Text(plain(line)))
    return [table]


def _script_table(now: status.Status) -> Table:
    """The running scripts, each with its latest score and the last line that it wrote."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("time", "score"):
        table.add_column(name, justify="right")
    for name in ("running", "last output"):
        table.add_column(name)
    for pack in now.packs:
        (trial,) = pack.trials
        score = "–" if pack.score is None else f"{pack.score:.4g}"
        died = f" (its worker died {count_noun(pack.deaths, 'time')} before)" if pack.deaths else ""
        name = f"{now.sweep.cells[trial.cell].label}: seed {trial.seeds.seed}{died}"
        output = pack.output if len(pack.output) <= 80 else f"{pack.output[:79]}…"
        table.add_row(duration(pack.seconds), score, Text(plain(name)), Text(plain(output)))
    return table
