"""The figures of a report one by one, for notebooks and scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from harness.common import notebook
from harness.common.errors import HarnessError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from harness.analysis.analyze import Analysis


class Analysed(Protocol):
    """What can be drawn: results that know their tables."""

    @property
    def analysis(self) -> Analysis:
        """Every table of the report; made when the first figure is drawn."""


class Plots:
    """The figures of a report, each a matplotlib Figure to style further and save.

    Each raises HarnessError where these runs have nothing that it could show.
    """

    def __init__(self, results: Analysed) -> None:
        """Draw these results."""
        self._results = results

    def spread(self) -> Figure:
        """Final scores of every run, cell by cell; failed runs are crosses."""
        return self._draw("spread")

    def failure_rates(self) -> Figure:
        """The failure rate of each cell with Wilson's interval."""
        return self._draw("failure_rates")

    def curves(self) -> Figure:
        """Dev score and training loss over the steps, a line per run."""
        return self._draw("curves")

    def noise_floor(self) -> Figure:
        """The spread over seeds beside the dev set's sampling noise."""
        return self._draw("noise_floor")

    def best_of_n(self) -> Figure:
        """The score to expect of the best of n seeds."""
        return self._draw("best_of_n")

    def seed_budget(self) -> Figure:
        """The width of the intervals of mean and failure rate by the number of seeds."""
        return self._draw("seed_budget")

    def importance(self) -> Figure:
        """The share of each setting in the variance of the score, and in explaining failures."""
        return self._draw("importance")

    def performance_profile(self) -> Figure:
        """The share of runs above each score."""
        return self._draw("performance_profile")

    def loss_vs_score(self) -> Figure:
        """Final training loss against final score, a mark per run."""
        return self._draw("loss_vs_score")

    def gradient_norms(self) -> Figure:
        """Gradient norms by layer over training, of failed and other runs."""
        return self._draw("gradient_norms")

    def step_size_factor(self) -> Figure:
        """How much larger Adam's updates are without bias correction."""
        return self._draw("step_size_factor")

    def early_warning(self) -> Figure:
        """How early failed runs can be told from others."""
        return self._draw("early_warning")

    def loss_surface(self) -> Figure:
        """The loss around a failed and a good run, where `harness diagnose --surface` computed it."""
        return self._draw("loss_surface")

    def _draw(self, name: str) -> Figure:
        from harness.report.figures import all_figures

        makers = {maker.__name__: maker for maker in all_figures.MAKERS}
        figure = makers[name](self._results.analysis)
        if figure is None:
            raise HarnessError(
                f"{self._results!r} has nothing for the figure {name} to show",
                fix="See what the report has in its place",
            )
        notebook.show_figures()
        return figure
