"""All figures of a report, in their order; they are drawn in `figures_scores`, `_curves`, `_variance`, `_diagnosis`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from harness.figures_curves import curves
from harness.figures_diagnosis import early_warning, gradient_norms, loss_surface, loss_vs_score, step_size_factor
from harness.figures_scores import failure_rates, performance_profile, spread
from harness.figures_variance import best_of_n, importance, noise_floor, seed_budget

if TYPE_CHECKING:
    from harness.analysis import Analysis


def draw(found: Analysis) -> Iterator[tuple[str, Figure]]:
    """All figures of a report, as (file name without ending, figure), those left out that have nothing to show."""
    spreads = (spread, failure_rates, curves, noise_floor, best_of_n, seed_budget, importance, performance_profile)
    reasons = (loss_vs_score, gradient_norms, step_size_factor, early_warning, loss_surface)
    for make in (*spreads, *reasons):
        figure = make(found)
        if figure is not None:
            yield make.__name__, figure
