"""Shared by the tests of kept models: small sweeps that keep what they train."""

from pathlib import Path

import numpy as np
from driving import quiet

from harness.config.trials import Cell, Sweep, Trial
from harness.execution import driver
from harness.execution.driver import Options
from harness.records.store import Store

ALL = Options(in_process=True, keep="all")


def sweep_of(*trials: Trial) -> Sweep:
    """A cell for each of the recipes of some trials, over all of their seeds."""
    recipes = list(dict.fromkeys(trial.recipe for trial in trials))
    seeds = tuple(dict.fromkeys(trial.seeds for trial in trials))
    cells = tuple(Cell(axes=(("cell", number),), recipe=recipe) for number, recipe in enumerate(recipes))
    return Sweep(name="kept", profile="default", title="Kept", cells=cells, seeds=seeds)


def trained(sweep: Sweep, folder: Path, options: Options = ALL) -> Store:
    store = Store(folder)
    assert driver.run(sweep, store, options, quiet).left == 0
    return store


def logits(store: Store, trial: Trial) -> np.ndarray:
    curves = store.curves(trial.id)
    assert curves is not None
    return curves.logits
