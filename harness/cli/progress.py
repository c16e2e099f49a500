"""What all commands print with: JSON, headlines, times and sizes, and progress on a terminal or in a log."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from harness.cli.console import Console
from harness.common import tested_versions
from harness.common.text import without_controls
from harness.config.trials import Sweep
from harness.execution import driver, follow
from harness.execution.follow import duration


def print_json(value: dict[str, object]) -> None:
    """Print one object, with nothing that is no JSON."""
    print(json.dumps(value, allow_nan=False))


def print_headline(out: Console, sweep: Sweep, reason: str) -> None:
    """The title of a sweep, what it stands in for, and its profile with the reason."""
    out.print(Text(sweep.title, style="bold"))
    if sweep.stand_in:
        out.print(Text(sweep.stand_in, style="yellow"))
    out.print(Text(f"Profile {sweep.profile}: {reason}."), soft_wrap=True)


def print_untested(out: Console) -> None:
    """Say where the versions that would train are not those that the tests ran with."""
    if (warning := tested_versions.warning(tested_versions.installed())) is not None:
        out.print(Text(warning, style="yellow"), soft_wrap=True)


def plain(text: str) -> str:
    """A text on one line, without what would move a terminal's cursor or change its colours."""
    return "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))


def size_of(count: int) -> str:
    """A size in MiB or GiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


# ------------------------------------------------------------------------------------------------------------- progress


@contextmanager
def sweep_progress(out: Console) -> Iterator[Callable[[driver.Progress], None]]:
    """A bar on a terminal; elsewhere a plain line when a pack ends, the phase changes, and at least every minute."""
    if out.is_terminal:
        words = TextColumn("{task.description}", markup=False)
        with Bar(SpinnerColumn(), BarColumn(bar_width=20), words, console=out, transient=True) as bar:
            task = bar.add_task("checking the data and the model …", total=None)

            def live_line(progress: driver.Progress) -> None:
                while progress.messages:
                    bar.console.print(progress.messages.pop(0), soft_wrap=True)
                done, total = progress.finished + progress.crashed, None if progress.phase else progress.planned
                bar.update(task, description=follow.line(progress), completed=done, total=total)

            yield live_line
        return
    last: tuple[object, ...] = ()
    when = 0.0

    def plain_line(progress: driver.Progress) -> None:
        nonlocal last, when
        while progress.messages:
            print(without_controls(progress.messages.pop(0)), file=out.file, flush=True)
        state = (progress.finished, progress.crashed, progress.phase)
        if state != last or time.monotonic() - when > 60:
            last, when = state, time.monotonic()
            print(follow.line(progress), file=out.file, flush=True)

    yield plain_line


@contextmanager
def step_progress(out: Console, unit: str) -> Iterator[Callable[[int, int], None]]:
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
def row_progress(out: Console) -> Iterator[Callable[[int, int], None]]:
    """Rows answered and their pace: a live line on a terminal, a line every half minute elsewhere."""
    began = printed = time.monotonic()

    def line(done: int, total: int) -> str:
        left = f" of {total:,}" if total else ""
        return f"{done:,}{left} rows, {done / max(time.monotonic() - began, 1e-9):,.0f} rows/s"

    if out.is_terminal:
        with Live(console=out, refresh_per_second=4, transient=True) as live:
            yield lambda done, total: live.update(Text(line(done, total)))
        return

    def logged(done: int, total: int) -> None:
        nonlocal printed
        if time.monotonic() - printed > 30:
            printed = time.monotonic()
            out.print(line(done, total))

    yield logged


@contextmanager
def pretraining_progress(out: Console) -> Iterator[Callable[[int, int, float], None]]:
    """As `_steps`, with the loss and the time left at the pace so far, which leaves out what an earlier start made."""
    began = time.monotonic()
    first: int | None = None

    def words(step: int, steps: int, loss: float) -> str:
        nonlocal first, began
        if first is None:
            first, began = step, time.monotonic()
        made = step - first
        left = duration((time.monotonic() - began) / made * (steps - step)) if made else "time not known"
        return f"loss {loss:.3f}" + (f", {left} left" if step < steps else "")

    if not out.is_terminal:

        def line(step: int, steps: int, loss: float) -> None:
            message = words(step, steps, loss)
            if step == steps or step % max(1, steps // 10) == 0:
                out.print(f"{step}/{steps} steps, {message}")

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
