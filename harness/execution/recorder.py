"""Results that come back from the workers become records, once it is sure that they belong to this sweep."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from harness.common import tested_versions
from harness.common.errors import HarnessError, describe_os_error
from harness.common.text import last_line
from harness.config.trials import Sweep, Trial
from harness.execution import clock, repeats, step_compilation
from harness.execution.progress import Progress
from harness.execution.rerun import TOLERANCE, compare
from harness.execution.train_pack import Result, make_record
from harness.models import token_hash
from harness.models.keep_weights import Shelf
from harness.models.saved import UnkeptError
from harness.records.record import Curves, Environment, Record
from harness.records.store import Store


class Recorder:
    """Writes the records of a sweep, and tells the person what they say of versions and of compiled steps."""

    def __init__(
        self,
        sweep: Sweep,
        store: Store,
        records: Mapping[str, Record],
        retried: Collection[str],
        shelf: Shelf | None,
        progress: Progress,
        mixing: Callable[[Environment], str | None] = lambda environment: None,
    ) -> None:
        """Write into `store`, beside its `records`; of the `retried` trials the old record is set aside.

        `mixing` says what of a worker's environment is another than that of the records.
        """
        self.sweep, self.store, self.retried, self.shelf, self.progress = sweep, store, retried, shelf, progress
        self.trained = 0
        self._inputs = _input_hashes(records)
        self._tokens = token_hash.known(records.values())
        # What was said of them: the driver's own by its command.
        self._versions = {tested_versions.warning(tested_versions.installed())}
        self._fallbacks: set[str] = set()
        self._mixing, self._mixed = mixing, dict[Environment, str | None]()

    def keep(self, results: list[Result]) -> None:
        """Record a pack's results; raises HarnessError for other inputs than the sweep's, and for a full disk."""
        for record, _ in results:
            _same_inputs(record, self._inputs)
            token_hash.check_record(record, self._tokens)
        if self.shelf is not None:
            with weights_written():
                self.shelf.publish([record for record, _ in results])
        for record, curves in results:
            save(self.store, record, curves, self.retried)
            self.trained += 1
            self.progress.finished += 1
            self.progress.failed += bool(record.measured and record.measured.outcome == "failed")
            self._tell_mixing(record)
            self._tell_versions(record)
            self._tell_fallback(record)
        if self.shelf is not None:
            self.shelf.settle()

    def repeat(self, number: int, results: list[Result]) -> None:
        """Keep what a run of a recorded trial gave, for the comparison of one seed's results."""
        for again, curves in results:
            record = self.store.load(again.id)
            assert record is not None
            saved = self.store.read_arrays(record, recording=False, any_hash=True)
            comparison = compare(record, saved, again, curves, TOLERANCE, self.store.arrays_sha256(again.id))
            unkept = repeats.keep(self.store, comparison, "repeat", number)
            if unkept is not None:
                raise no_room(unkept)
            words = {"within_tolerance": "the same within tolerance"}.get(comparison.verdict, comparison.verdict)
            self.progress.messages.append(f"repeat {number} of {again.id}: {words}")

    def crash(self, trial: Trial, error: str) -> None:
        """Record a trial that can't be trained, with its traceback."""
        record = make_record(self.sweep.name, self.sweep.profile, trial, clock.utc(), None, None, error)
        save(self.store, record, None, self.retried)
        self.trained += 1
        self.progress.crashed += 1
        self.progress.messages.append(f"{trial.id} crashed: {last_line(error)}")

    def _tell_fallback(self, record: Record) -> None:
        """Say once of each reason why trials that were to have compiled steps have none."""
        reason = step_compilation.fallback(record)
        if reason is not None and reason not in self._fallbacks:
            self._fallbacks.add(reason)
            self.progress.messages.append(f"{record.id} {reason}")

    def _tell_mixing(self, record: Record) -> None:
        """Say once of each kind of worker what made the records and is not what it has."""
        if record.environment is None or record.environment in self._mixed:
            return
        sentence = self._mixing(record.environment)
        if sentence is not None and sentence not in self._mixed.values():
            self.progress.messages.append(sentence)
        self._mixed[record.environment] = sentence

    def _tell_versions(self, record: Record) -> None:
        """Say once of each worker's versions where they are not tested; a cluster's may be others than the driver's."""
        if record.environment is None or record.trial.script is not None:
            return
        warning = tested_versions.warning(record.environment.model_dump(include=set(tested_versions.TESTED)))
        if warning is not None and warning not in self._versions:
            self._versions.add(warning)
            self.progress.messages.append(f"A worker: {warning}")


def save(store: Store, record: Record, curves: Curves | None, retried: Collection[str]) -> None:
    """Write a record, of a retried trial in place of the old one; raises HarnessError where that can't be done."""
    with written(store.path(record.id)):
        if record.id in retried:
            store.set_aside(record.id)
        record = record.model_copy(update={"attempts": store.attempts(record.id) + 1})
        store.save(record, curves)


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Name the file that can't be written: the error of a full disk names none."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise no_room(f"{error.filename or path}: {describe_os_error(error)}") from error


@contextmanager
def weights_written() -> Iterator[None]:
    """Name the folder of weights that can't be written, as `written` does."""
    try:
        yield
    except UnkeptError as error:
        raise no_room(str(error)) from error


def no_room(problem: str) -> HarnessError:
    """The error of results that can't be written."""
    return HarnessError(
        f"cannot write the results: {problem}",
        fix="Make room and re-run the same command to resume: what was trained before is kept",
    )


def _inputs_of(record: Record) -> dict[tuple[str, str], str]:
    """(kind, name) -> hash of what a finished trial was made of."""
    measured = record.measured
    if measured is None or record.trial.script is not None:
        return {}
    recipe = record.trial.recipe
    hashes = {
        ("examples", recipe.task.name): measured.data_sha256,
        ("weights", recipe.model.name): measured.model_sha256,
        ("settings in config.json of", recipe.model.name): measured.config_sha256,
    }
    return {key: value for key, value in hashes.items() if value is not None}


def _input_hashes(records: Mapping[str, Record]) -> dict[tuple[str, str], str]:
    hashes: dict[tuple[str, str], str] = {}
    for record in records.values():
        hashes = _inputs_of(record) | hashes  # the first trial's, as its data are those that a resumed sweep must have
    return hashes


def _same_inputs(record: Record, known: dict[tuple[str, str], str]) -> None:
    """Refuse what a worker on another machine has under the same name, when its first pack comes back."""
    for (kind, name), digest in _inputs_of(record).items():
        if known.setdefault((kind, name), digest) != digest:
            raise HarnessError(
                f"the {kind} '{name}' are not those that the finished trials began with",
                fix="Restore them, on every machine, or name another folder with --results",
            )
