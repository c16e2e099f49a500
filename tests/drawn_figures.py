"""Shared by the tests of figures: what is drawn of a study, and somebody else's runs."""

import dataclasses
from collections.abc import Collection
from pathlib import Path

import numpy as np
from diagnosed_runs import RUNS as DIAGNOSED
from diagnosed_runs import TEXT as DIAGNOSED_TEXT
from made_runs import import_of, imported_runs, study_of
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from harness.analysis.analyze import Analysis, analyse
from harness.records.record import Surface
from harness.records.study import Axes, Study
from harness.report.figures import all_figures

ALL = [
    "failure_rates",
    "spread",
    "performance_profile",
    "curves",
    "importance",
    "loss_vs_score",
    "step_size_factor",
    "seed_budget",
    "noise_floor",
    "best_of_n",
]
# What only recorded runs have; one of a surface that was asked for.
RECORDED = ["gradient_norms", "loss_surface", "early_warning"]
DATASETS, METHODS = ("cola", "rte", "sst2"), ("full", "lora")
GRID: tuple[Axes, ...] = tuple((("dataset", one), ("method", two)) for one in DATASETS for two in METHODS)


def drawn(found: Analysis | Study, names: Collection[str] | None = None) -> dict[str, Figure]:
    """All figures there are, or those of these names, laid out as well, for some warnings come only then."""
    analysis = analyse(found) if isinstance(found, Study) else found
    if names is None:
        result = dict(all_figures.draw(analysis))
    else:
        made = ((make.__name__, make(analysis)) for make in all_figures.MAKERS if make.__name__ in names)
        result = {name: figure for name, figure in made if figure is not None}
    for figure in result.values():
        figure.draw_without_rendering()
    return result


def recorded(folder: Path) -> Study:
    """A stand-in's study whose runs recorded their gradients, with a made surface between two of them."""
    study = study_of(folder, DIAGNOSED_TEXT, DIAGNOSED)
    place, trials = np.linspace(-1, 2, 5), study.runs["trial"]
    surface = Surface(
        trials=np.array([trials[0], trials[1]]), x=place, y=place, loss=np.add.outer(place**2, place**2) + 0.1,
        gradient_norm=np.abs(np.add.outer(place, place)), places=np.array([[0, 0], [1, 0], [0.3, 1]]),
        examples=np.array(128),
    )  # fmt: skip
    return dataclasses.replace(
        study, surface=surface, title="Bias correction and rate", stand_in="embedded stand-in, not BERT on RTE"
    )


def words(figure: Figure) -> str:
    texts = [text.get_text() for text in figure.findobj(Text)]
    return "\n".join(text for text in texts if text)


def marks(figure: Figure) -> int:
    """How many marks a figure shows: in the spread runs and means, in others runs."""
    return sum(len(found.get_offsets()) for ax in figure.axes for found in ax.findobj(PathCollection))


def theirs(folder, cells=GRID, score=lambda cell, seed: 0.6 + 0.05 * cell + 0.01 * seed, seeds=5, judged=True, **how):
    """An import of cells × seeds, with a majority of 0.62 if it is judged."""
    rows = []
    for cell in range(len(cells)):
        scores = [score(cell, seed) for seed in range(seeds)]
        extra = {}
        if judged:
            extra = {"majority_score": [0.62] * seeds, "outcome": ["failed" if s <= 0.62 else "ok" for s in scores]}
        rows += imported_runs(scores, cell, **extra)
    return import_of(folder, cells, rows, **how)
