"""The plan joined with the records: one row a planned trial, and what of the folder could not be used."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pandas as pd

from harness.common.errors import HarnessError
from harness.config.recipe import SEED_FIELDS
from harness.config.trials import Sweep, Trial, expand
from harness.records.array_shapes import ExpectedArrays, expected_arrays
from harness.records.reading import Unreadable, read_trial_arrays
from harness.records.record import Curves, Environment, LogitsCheck, Measured
from harness.records.store import Store

_TEXTS = {
    "outcome", "reason", "metric", "error", "weights_sha256", "data_sha256", "model_sha256", "augmentation_sha256",
    "tokens_sha256", "tokenizer_sha256", "config_sha256", "metric_sha256", "step_mode", "step_mode_reason",
    "label_names",
}  # fmt: skip


class SetAside:
    """The files of a results folder that could not be used; it grows while arrays are read, each file once."""

    def __init__(
        self, files: Iterable[Unreadable] = (), parts: Sequence[SetAside] = (), beside: Iterable[str] = ()
    ) -> None:
        """Begin with these files, and with those of other collections, which may grow too.

        `beside` are the names of what lies beside the records and can't be read: reruns, baselines, a loss surface.
        """
        self._files = {file.file: file for file in files}
        self._parts = tuple(parts)
        self._beside = tuple(beside)

    def add(self, file: Unreadable) -> None:
        """Keep one more."""
        self._files.setdefault(file.file, file)

    @property
    def files(self) -> tuple[Unreadable, ...]:
        """All of them so far, records before arrays, by their names."""
        own = sorted(self._files.values(), key=lambda file: (not file.file.endswith(".json"), file.file))
        return (*own, *(file for part in self._parts for file in part.files))

    @property
    def beside(self) -> tuple[str, ...]:
        """The names of the files beside the records that can't be read."""
        return (*self._beside, *(name for part in self._parts for name in part.beside))


@dataclass(frozen=True)
class JoinedRecords:
    """A sweep's table of runs, with what is needed to read their arrays."""

    runs: pd.DataFrame
    set_aside: SetAside
    expected: dict[str, ExpectedArrays] = field(repr=False)  # by trial, of those that left arrays

    def load(self, store: Store, trial: str) -> Curves | None:
        """The arrays of a trial; None where there are none or they can't be used, which is remembered."""
        expected = self.expected.get(trial)
        if expected is None:
            return None
        curves = read_trial_arrays(f"{store.trials}/{trial}.npz", trial, expected)
        if isinstance(curves, Unreadable):
            self.set_aside.add(curves)
            return None
        return curves


def _in_a_table(value: object) -> object:
    if isinstance(value, tuple):
        return json.dumps(value, ensure_ascii=False)
    return value.largest_difference if isinstance(value, LogitsCheck) else value


def joined_records(sweep: Sweep, store: Store, trials: Sequence[Trial] | None = None) -> JoinedRecords:
    """The plan LEFT JOIN the records: exactly one row a planned trial, in the plan's order; or of some of its trials.

    Columns: `trial` (id), `cell` (index), one per axis, `seed`, `init_seed`, `order_seed`, `dropout_seed`, `status`
    (finished, crashed, missing or unreadable), `attempts`, `error` (of a crashed run its traceback, of an unreadable
    record why it can't be used), every field of `Measured` (of `logits_check` the largest difference, `label_names` as
    JSON) and of `Environment`; not known is None or NaN.
    """
    names = ["trial", "cell", *sweep.axes, *SEED_FIELDS, "status", "attempts", "error"]
    measures, places = list(Measured.model_fields), list(Environment.model_fields)
    taken = {"trial", "cell", *SEED_FIELDS, "status", "attempts", "error", *measures, *places}
    if name := next((axis for axis in sweep.axes if axis in taken), None):
        raise HarnessError(f"the axis {name} has the name of a column of the results", fix="Call it something else")
    rows: list[tuple[object, ...]] = []
    expected: dict[str, ExpectedArrays] = {}
    unreadable: list[Unreadable] = []
    axes = [tuple(value for _, value in cell.axes) for cell in sweep.cells]
    no_measures, no_place = (None,) * len(measures), (None,) * len(places)
    for trial, record in store.read_each(expand(sweep) if trials is None else trials):
        of_seeds = (getattr(trial.seeds, name) for name in SEED_FIELDS)
        state: tuple[str, int, str | None] = ("missing", 0, None)
        measured, environment = None, None
        if isinstance(record, Unreadable):
            unreadable.append(record)
            state = ("unreadable", 0, record.reason)
        elif record is not None:
            state = (record.status, record.attempts, record.error)
            measured, environment = record.measured, record.environment
            arrays = expected_arrays(record)
            if arrays is not None:
                expected[trial.id] = arrays
        measures_of = (_in_a_table(getattr(measured, name)) for name in measures) if measured else no_measures
        environment_of = (getattr(environment, name) for name in places) if environment else no_place
        rows.append((trial.id, trial.cell, *axes[trial.cell], *of_seeds, *state, *measures_of, *environment_of))
    table = pd.DataFrame(rows, columns=[*names, *measures, *places])
    for name in Measured.model_fields:
        if name not in _TEXTS:
            table[name] = pd.to_numeric(table[name])
    return JoinedRecords(table, SetAside(unreadable), expected)


def frame(sweep: Sweep, store: Store, trials: Sequence[Trial] | None = None) -> pd.DataFrame:
    """The table of `joined_records` alone."""
    return joined_records(sweep, store, trials).runs
