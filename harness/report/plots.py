"""The figures of a report one by one, for notebooks and scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypedDict, Unpack

from harness.common import notebook

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from harness.analysis.analyze import Analysis


class Analysed(Protocol):
    """What can be drawn: results that know their tables."""

    @property
    def analysis(self) -> Analysis:
        """Every table of the report; made when the first figure is drawn."""


class Look(TypedDict, total=False):
    """How a figure is set.

    Attributes:
        ax: axes of yours to draw in, as many as the figure has panels; the figure returned is theirs.
        width: inches, or as `8.2cm`.
        font_size: points of most texts.
        font: an installed font.
        venue: the width and font of `acl`, `acl-wide`, `neurips`, `icml` or `icml-wide`.
        title: a line above that says what is shown; without one by default.
        legend: whether the legend is drawn; it is by default.
    """

    ax: Axes | Sequence[Axes]
    width: str | float
    font_size: float
    font: str
    venue: str
    title: bool
    legend: bool


class Plots:
    """The figures of a report, each a matplotlib Figure to style further and save.

    Each raises HarnessError where these runs have nothing that it could show.
    """

    def __init__(self, results: Analysed) -> None:
        """Draw these results."""
        self._results = results

    def spread(self, **look: Unpack[Look]) -> Figure:
        """Final scores of every run, cell by cell; failed runs are crosses."""
        return self._draw("spread", look)

    def failure_rates(self, **look: Unpack[Look]) -> Figure:
        """The failure rate of each cell with Wilson's interval."""
        return self._draw("failure_rates", look)

    def curves(self, **look: Unpack[Look]) -> Figure:
        """Dev score and training loss over the steps, a line per run."""
        return self._draw("curves", look)

    def noise_floor(self, **look: Unpack[Look]) -> Figure:
        """The spread over seeds beside the dev set's sampling noise."""
        return self._draw("noise_floor", look)

    def best_of_n(self, **look: Unpack[Look]) -> Figure:
        """The score to expect of the best of n seeds."""
        return self._draw("best_of_n", look)

    def seed_budget(self, **look: Unpack[Look]) -> Figure:
        """The width of the intervals of mean and failure rate by the number of seeds."""
        return self._draw("seed_budget", look)

    def importance(self, **look: Unpack[Look]) -> Figure:
        """The share of each setting in the variance of the score, and in explaining failures."""
        return self._draw("importance", look)

    def performance_profile(self, **look: Unpack[Look]) -> Figure:
        """The share of runs above each score."""
        return self._draw("performance_profile", look)

    def loss_vs_score(self, **look: Unpack[Look]) -> Figure:
        """Final training loss against final score, a mark per run."""
        return self._draw("loss_vs_score", look)

    def gradient_norms(self, **look: Unpack[Look]) -> Figure:
        """Gradient norms by layer over training, of failed and other runs."""
        return self._draw("gradient_norms", look)

    def step_size_factor(self, **look: Unpack[Look]) -> Figure:
        """How much larger Adam's updates are without bias correction."""
        return self._draw("step_size_factor", look)

    def early_warning(self, **look: Unpack[Look]) -> Figure:
        """How early failed runs can be told from others."""
        return self._draw("early_warning", look)

    def loss_surface(self, **look: Unpack[Look]) -> Figure:
        """The loss around a failed and a good run, where `harness diagnose --surface` computed it."""
        return self._draw("loss_surface", look)

    def distributions(self, **look: Unpack[Look]) -> Figure:
        """The density of each cell's scores over a strip of its runs, from twenty runs of a cell on."""
        return self._draw("distributions", look)

    def failure_map(self, **look: Unpack[Look]) -> Figure:
        """The failure rate over two axes of three or more values each."""
        return self._draw("failure_map", look)

    def parallel(self, **look: Unpack[Look]) -> Figure:
        """Every run as a line over four or more axes to its score."""
        return self._draw("parallel", look)

    def outcome_curves(self, **look: Unpack[Look]) -> Figure:
        """Dev score and training loss of failed runs and of others as bands, from thirty runs on."""
        return self._draw("outcome_curves", look)

    def seed_ranks(self, **look: Unpack[Look]) -> Figure:
        """The rank of each seed in every cell, seeds sorted by their mean rank."""
        return self._draw("seed_ranks", look)

    def _draw(self, name: str, look: Look) -> Figure:
        import numpy as np

        from harness.report import named_figures

        settings = dict(look)
        given, legend = settings.pop("ax", None), bool(settings.pop("legend", True))
        axes: list[Axes] = [] if given is None else list(np.ravel(np.array(given, dtype=object)))
        sheet, _ = named_figures.sheet_for(**settings)  # type: ignore[arg-type]
        if axes:
            boxes = [ax.get_window_extent() for ax in axes]
            dots = max(box.x1 for box in boxes) - min(box.x0 for box in boxes)
            sheet = replace(sheet, width=float(dots) / axes[0].figure.dpi + 0.7)
        spec = named_figures.figure_named(name)
        figure = named_figures.draw(self._results.analysis, spec, replace(sheet, legend=legend), axes)
        notebook.show_figures()
        return figure
