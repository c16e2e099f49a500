"""All figures of a report, in their order; they are drawn in `figures_scores`, `_curves`, `_variance`, `_diagnosis`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from harness.common.forked import Beside, cores
from harness.report.figures import style
from harness.report.figures.curves import curves
from harness.report.figures.diagnosis import (
    early_warning,
    gradient_norms,
    loss_surface,
    loss_vs_score,
    step_size_factor,
)
from harness.report.figures.scores import failure_rates, performance_profile, spread
from harness.report.figures.variance import best_of_n, importance, noise_floor, seed_budget

if TYPE_CHECKING:
    from harness.analysis.analyze import Analysis

_MOST = 4  # processes that draw, each with a copy of what changes


MAKERS: tuple[Callable[[Analysis], Figure | None], ...] = (
    *(spread, failure_rates, curves, noise_floor, best_of_n, seed_budget, importance, performance_profile),
    *(loss_vs_score, gradient_norms, step_size_factor, early_warning, loss_surface),
)


def draw(found: Analysis) -> Iterator[tuple[str, Figure]]:
    """All figures of a report, as (file name without ending, figure), those left out that have nothing to show."""
    for make in MAKERS:
        figure = make(found)
        if figure is not None:
            yield make.__name__, figure


@contextmanager
def saved(found: Analysis, folder: Path) -> Iterator[None]:
    """Write all figures to a folder, on every core there is; whole when the block ends, which goes on meanwhile.

    Each process takes the next figure that none has taken. One that fails elsewhere is drawn here, which raises.
    """
    reading, writing = os.pipe()
    os.write(writing, bytes(range(len(MAKERS))))
    os.close(writing)

    def some() -> list[int]:
        drawn = []
        while taken := os.read(reading, 1):
            _save(MAKERS[taken[0]], found, folder)
            drawn.append(taken[0])
        return drawn

    helpers = [Beside(some) for _ in range(min(cores(), _MOST) - 1)]
    try:
        yield
        drawn = some()
        for helper in helpers:
            drawn += helper.result()
        for place in sorted({*range(len(MAKERS))}.difference(drawn)):
            _save(MAKERS[place], found, folder)
    finally:
        os.close(reading)
        for helper in helpers:
            helper.stop()


def _save(make: Callable[[Analysis], Figure | None], found: Analysis, folder: Path) -> None:
    figure = make(found)
    if figure is not None:
        style.save(figure, folder, make.__name__)
