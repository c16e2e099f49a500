"""Tables that sentences are made from and that the page does not show, by their names in claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd

from harness.analysis.analyze import Analysis
from harness.records.study import Study
from harness.report import next_experiment, opening, page_notes
from harness.report.sections import same_seed


def _of_study(make: Callable[[Study], pd.DataFrame]) -> Callable[[Analysis], pd.DataFrame]:
    return lambda analysis: make(analysis.study)


TABLES: Mapping[str, Callable[[Analysis], pd.DataFrame]] = {
    "epochs_compared": opening.epochs_compared,
    "reruns": same_seed.reruns,
    "same_seed_scatter": same_seed.scatter,
    "next_sweep": next_experiment.proposal_table,
    "along_axes": next_experiment.along_axes,
    "next_values": next_experiment.next_values,
    "rates_at_every_look": next_experiment.rates_at_every_look,
    "files_set_aside": _of_study(page_notes.files_set_aside),
    "majorities": _of_study(page_notes.majorities),
    "seed_rule": _of_study(page_notes.seed_rule),
    "seed_goals": _of_study(page_notes.seed_goals),
}
