"""How far a sweep is, in a line; shown on a terminal, in a log or in a notebook."""

from __future__ import annotations

import html
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness.common import notebook
from harness.common.text import count_noun, without_controls

if TYPE_CHECKING:
    from harness.execution.driver import Progress

_LOG_SECONDS = 60.0  # between two lines of a log while no count changes


def duration(seconds: float) -> str:
    """A time in the unit that people would say it in."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 or not seconds else "less than 1 s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def line(progress: Progress) -> str:
    """How far a sweep is: counts, the time left and what trains it."""
    if progress.phase:
        return f"{progress.phase} ({progress.finished} of {progress.planned} trials finished so far)"
    crashed = f", {progress.crashed} crashed" if progress.crashed else ""
    left = ", estimating the time left …" if progress.estimating else ""
    left = left if progress.seconds_left is None else f", about {duration(progress.seconds_left)} left"
    on = f" ({progress.lanes} training on {count_noun(progress.workers, 'worker')})" if progress.lanes else ""
    return f"{progress.finished}/{progress.planned} finished, {progress.failed} failed{crashed}{left}{on}"


@contextmanager
def sweep_shown() -> Iterator[Callable[[Progress], None]]:
    """What to call as a sweep moves: a bar in a notebook, else lines on standard error."""
    show = _bar() if notebook.shell() is not None else _lines()
    messages: list[str] = []

    def follow(progress: Progress) -> None:
        while progress.messages:
            messages.append(progress.messages.pop(0))
        show(progress.finished + progress.crashed, progress.planned, line(progress), messages)

    yield follow
    show(None, None, "", messages)


@contextmanager
def steps_shown(unit: str) -> Iterator[Callable[[int, int], None]]:
    """What to call with the steps of one run, done and in all: a bar in a notebook, else lines on standard error."""
    show = _bar() if notebook.shell() is not None else _lines()
    yield lambda step, steps: show(step, steps, f"{step}/{steps} {unit}", [])
    show(None, None, "", [])


_Show = Callable[[int | None, int | None, str, list[str]], None]


def _bar() -> _Show:
    """Updates one output of a notebook's cell: what was said, then a bar with its line."""
    display = importlib.import_module("IPython.display")
    handle = display.display(display.HTML(""), display_id=True)

    def show(done: int | None, planned: int | None, text: str, messages: list[str]) -> None:
        parts = [f"<div>{html.escape(message)}</div>" for message in messages]
        if done is not None:
            parts.append(f'<progress value="{done}" max="{planned}"></progress> {html.escape(text)}')
        handle.update(display.HTML("".join(parts)))

    return show


def _lines() -> _Show:
    """Prints on standard error: on a terminal one line that changes, else one a tenth, and one a minute."""
    last, printed = -1, 0.0
    live = sys.stderr.isatty()

    def show(done: int | None, planned: int | None, text: str, messages: list[str]) -> None:
        nonlocal last, printed
        clear = "\r\x1b[K" if live else ""
        while messages:
            print(f"{clear}{without_controls(messages.pop(0))}", file=sys.stderr, flush=True)
        if live:
            print(f"{clear}{text}", end="", file=sys.stderr, flush=True)
        elif done is not None and planned is not None:
            tenth = 10 * done // max(1, planned)
            if tenth != last or time.monotonic() - printed > _LOG_SECONDS:
                last, printed = tenth, time.monotonic()
                print(text, file=sys.stderr, flush=True)

    return show
