"""What a section of the report is: a question, with what answers it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.analysis.analyze import Analysis
from harness.report.table import TableSpec

Term = tuple[str, str]  # a word of the report and what it means


@dataclass(frozen=True)
class FigureSpec:
    """The figure of a section: `scores.spread` is `spread` in `figures/scores.py`, whose files are called `spread`."""

    function: str
    reading: str  # how to read it

    @property
    def name(self) -> str:
        """The name of its files, without ending."""
        return self.function.rpartition(".")[2]


def _no_sentences(analysis: Analysis) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class Section:
    """One question of the report: what it asks, its sentences, its figure, its tables and the words that it uses.

    A file of `sections/` makes one, and `contents.SECTIONS` lists it. Its tables and its figure are left out where they
    have nothing to show, the whole section where nothing of it has.
    """

    anchor: str
    heading: str
    question: str
    sentences: Callable[[Analysis], Sequence[str]] = _no_sentences
    figure: FigureSpec | None = None
    tables: tuple[TableSpec, ...] = ()
    more_figures: tuple[FigureSpec, ...] = ()  # further ones, below its tables
    glossary: tuple[Term, ...] = ()

    @property
    def figures(self) -> tuple[FigureSpec, ...]:
        """All its figures, the one that answers the question first."""
        return ((self.figure,) if self.figure else ()) + self.more_figures
