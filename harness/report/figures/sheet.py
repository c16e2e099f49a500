"""How a figure is set: its width, its fonts, whether it has a title, and the axes that it is drawn in."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.common.text import show
from harness.records.study import Study
from harness.report.figures import fonts

DPI = 200
WIDTH = 5.6  # inches: fonts of 8 points stay legible when a paper sets the figure to a column of 3.4 inches
SIZE = 8.5  # points, of most texts; those of ticks, legends and notes are given beside it and grow with it
STYLE: Any = {  # matplotlib types its keys one by one, differently in each version
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.5,
    "savefig.facecolor": "white",
    "svg.hashsalt": "stability",  # the same figure gives the same bytes
    "svg.fonttype": "none",  # text stays text, to be edited
    "pdf.fonttype": 42,  # TrueType: publishers refuse the Type 3 fonts that matplotlib writes by itself
    "ps.fonttype": 42,
}


@dataclass(frozen=True)
class Sheet:
    """How a figure is set.

    Attributes:
        width: inches.
        size: points of most texts.
        families: fonts, the first that has a sign draws it.
        title: whether a line above says what is shown, and of a stand-in that it is one.
        legend: whether the legend is drawn.
        axes: the caller's, to draw in; none: a figure is made.
    """

    width: float = WIDTH
    size: float = SIZE
    families: tuple[str, ...] = (fonts.FAMILY,)
    title: bool = True
    legend: bool = True
    axes: tuple[Axes, ...] = ()

    @property
    def scale(self) -> float:
        """How much larger fonts are than usual."""
        return self.size / SIZE

    @property
    def settings(self) -> Any:
        """matplotlib's settings for it."""
        sizes = {"font.size": 8.5, "axes.titlesize": 8.5, "axes.labelsize": 8.5, "figure.titlesize": 8.5}
        sizes |= {"xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 7.5}
        scaled = {name: size * self.scale for name, size in sizes.items()}
        return STYLE | scaled | {"font.family": [*self.families, "sans-serif"]}  # an SVG names them all


PRESETS = {  # widths of a column and of the text in the conferences' style files, with a font like theirs
    "acl": Sheet(3.03, 8, ("Times New Roman",)),
    "acl-wide": Sheet(6.3, 8, ("Times New Roman",)),
    "neurips": Sheet(5.5, 8, ("Times New Roman",)),
    "icml": Sheet(3.25, 8, ("Times New Roman",)),
    "icml-wide": Sheet(6.75, 8, ("Times New Roman",)),
}

PHONE = Sheet(3.4)  # as wide as a phone shows it with letters of the page's size

_PLAIN = Sheet()
_requested: ContextVar[Sheet] = ContextVar("_requested")
_current: ContextVar[Sheet] = ContextVar("_current")

P = ParamSpec("P")
R = TypeVar("R")


def current() -> Sheet:
    """How the figure that is being drawn is set."""
    return _current.get(_PLAIN)


@contextmanager
def requested(sheet: Sheet) -> Iterator[None]:
    """Figures drawn meanwhile are set like this."""
    token = _requested.set(sheet)
    try:
        yield
    finally:
        _requested.reset(token)


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Draw under our style, whatever the caller's matplotlib is set to, in fonts that have the signs of the names."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with _set(_sheet_for(args[0] if args else None)):
            return draw(*args, **kwargs)

    return drawn


@contextmanager
def _set(sheet: Sheet) -> Iterator[None]:
    if _current.get(None) is sheet:  # of a figure that is saved: setting matplotlib's three hundred takes its time
        yield
        return
    token = _current.set(sheet)
    try:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(sheet.settings)
            yield
    finally:
        _current.reset(token)


def _sheet_for(subject: object) -> Sheet:
    """The requested sheet for a study, an analysis of one, or a figure that was set before."""
    if isinstance(subject, ReportFigure):
        return subject.sheet
    study = getattr(subject, "study", subject)
    sheet = _requested.get(_PLAIN)
    texts = subject if isinstance(subject, str) else "".join(texts_of(study)) if isinstance(study, Study) else ""
    families = (*sheet.families, *fonts.covering(set(texts), sheet.families))
    return replace(sheet, families=families)


def texts_of(study: Study) -> list[str]:
    """The names of a study that its figures may show."""
    values = [show(value) for axis in study.axes for value in study.values(axis)]
    metrics = [str(name) for name in study.runs["metric"].dropna().unique()] if "metric" in study.runs else []
    return [study.title, study.stand_in or "", *study.axes, *values, *metrics]


class ReportFigure(Figure):
    """A figure that is saved as it was drawn: in its fonts, with texts that can be edited."""

    sheet: Sheet = Sheet()
    what: str = ""  # what it shows, and how much of what there is
    run_marks: list[tuple[Axes, list[int], np.ndarray]]  # rows of the table of runs, and where they are [N, 2]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As matplotlib's."""
        super().__init__(*args, **kwargs)
        self.run_marks = []

    def savefig(self, fname: Any, **kwargs: Any) -> None:
        """As matplotlib's, whatever that is set to."""
        with _set(self.sheet):
            super().savefig(fname, **kwargs)
