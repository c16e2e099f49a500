"""All figures of a report: those that its sections name, drawn and saved on every core there is."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from harness.common.forked import Beside, cores
from harness.report.contents import SECTIONS
from harness.report.figures import style
from harness.report.figures.sheet import PHONE, requested

if TYPE_CHECKING:
    from harness.analysis.analyze import Analysis

NARROW = "spread_narrow"  # the spread for phones, which the page reads and removes
_MOST = 4  # processes that draw, each with a copy of what changes

Maker = Callable[["Analysis"], Figure | None]


def maker(function: str) -> Maker:
    """The function that draws a figure, from its name in a section: `scores.spread`."""
    module, _, name = function.rpartition(".")
    make: Maker = getattr(importlib.import_module(f"harness.report.figures.{module}"), name)
    return make


MAKERS: tuple[Maker, ...] = tuple(maker(spec.function) for section in SECTIONS for spec in section.figures)


def draw(analysis: Analysis) -> Iterator[tuple[str, Figure]]:
    """All figures of a report, as (file name without ending, figure), those left out that have nothing to show."""
    for make in MAKERS:
        figure = make(analysis)
        if figure is not None:
            yield make.__name__, figure


@contextmanager
def saved(analysis: Analysis, folder: Path) -> Iterator[None]:
    """Write all figures to a folder, on every core there is; whole when the block ends, which goes on meanwhile.

    Each process takes the next figure that none has taken. One that fails elsewhere is drawn here, which raises.
    """
    reading, writing = os.pipe()
    os.write(writing, bytes(range(len(MAKERS))))
    os.close(writing)

    def some() -> list[int]:
        drawn = []
        while taken := os.read(reading, 1):
            _save(MAKERS[taken[0]], analysis, folder)
            drawn.append(taken[0])
        return drawn

    helpers = [Beside(some) for _ in range(min(cores(), _MOST) - 1)]
    try:
        yield
        drawn = some()
        for helper in helpers:
            drawn += helper.result()
        for index in sorted({*range(len(MAKERS))}.difference(drawn)):
            _save(MAKERS[index], analysis, folder)
    finally:
        os.close(reading)
        for helper in helpers:
            helper.stop()


def _save(make: Maker, analysis: Analysis, folder: Path) -> None:
    """Save a figure, and of the spread also the drawing that phones show."""
    figure = make(analysis)
    if figure is None:
        return
    style.save(figure, folder, make.__name__)
    if make.__name__ == "spread":
        with requested(PHONE):
            narrow = make(analysis)
        if narrow is not None:
            style.save_narrow(narrow, folder, NARROW)
