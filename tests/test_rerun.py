"""A trial trained again, and how two runs are compared."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness import execute, records
from harness.execute import Options
from harness.records import Store
from harness.rerun import compare, rerun
from harness.sweep import Cell, HarnessError, Sweep, Trial, expand

pytestmark = pytest.mark.usefixtures("cpu_only")


@pytest.fixture(scope="module")
def trained(trial: Callable[..., Trial], tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Store]:
    """A finished sweep of one cell and two seeds."""
    cell = Cell(axes=(), recipe=trial(epochs=1).recipe)
    sweep = Sweep(name="one", profile="default", title="One", cells=(cell,), seeds=(trial(1).seeds, trial(2).seeds))
    store = Store(tmp_path_factory.mktemp("one") / "one")
    execute.run(sweep, store, Options(in_process=True), lambda progress: None)
    return sweep, store


def test_a_rerun_is_identical(trained: tuple[Sweep, Store]) -> None:
    sweep, store = trained
    before = {path.name: path.read_bytes() for path in store.trials.iterdir()}
    found = rerun(sweep, store, expand(sweep)[1], 1e-3)
    assert (found.verdict, found.max_difference, found.first_differing_step) == ("identical", 0.0, None)
    assert {path.name: path.read_bytes() for path in store.trials.iterdir()} == before


def test_a_comparison_says_where_and_how_far_two_runs_differ(trained: tuple[Sweep, Store]) -> None:
    sweep, store = trained
    trial = expand(sweep)[0].id
    record, kept = store.load(trial), store.curves(trial)
    assert record is not None
    assert record.measured is not None
    assert record.environment is not None
    assert kept is not None
    digest = record.arrays_sha256
    losses = kept.train_loss.copy()
    losses[4] += np.float32(1e-4)
    threads = record.environment.model_copy(update={"threads": 2})
    weights = record.measured.model_copy(update={"weights_sha256": "0"})
    again = record.model_copy(update={"environment": threads, "measured": weights})
    near = compare(record, kept, again, replace(kept, train_loss=losses), 1e-3, digest)
    assert (near.verdict, near.first_differing_step, near.reasons) == (
        "within_tolerance",
        5,
        ("threads: 1 then, 2 now",),
    )
    assert near.max_difference == pytest.approx(1e-4, rel=1e-2)
    other = {"cuda": "13.0", "driver": "580.1", "kernels": "AVX2", "dirty_diff_sha256": "f" * 64}
    before = {"cuda": "12.8", "driver": None, "kernels": "AVX512", "dirty_diff_sha256": "0" * 64}  # driver: not known
    place = record.environment
    far = compare(
        record.model_copy(update={"environment": place.model_copy(update=before)}), kept,
        record.model_copy(update={"environment": place.model_copy(update=other)}),
        replace(kept, train_loss=losses), 1e-3, digest,
    )  # fmt: skip
    assert far.reasons == (
        f"uncommitted changes: {'0' * 20} then, {'f' * 20} now",
        "CUDA: 12.8 then, 13.0 now",
        "CPU kernels: AVX512 then, AVX2 now",
    )
    assert compare(record, kept, again, replace(kept, train_loss=losses), 1e-5).verdict == "different"
    losses[2] = np.nan
    broken = compare(record, kept, record, replace(kept, train_loss=losses), 1e-3, digest)
    assert (broken.verdict, broken.max_difference, broken.first_differing_step) == ("different", None, 3)
    assert broken.reasons == ("nothing in the records explains it",)
    tampered = compare(record, kept, record, replace(kept, train_loss=losses), 1e-3, "another")
    assert tampered.reasons == ("the record's curves were changed after they were written: their hash is another",)
    # Without the curves the weights decide, and the comparison says so.
    bare = compare(record, None, record, kept, 1e-3)
    assert (bare.verdict, bare.by_steps) == ("identical", False)
    assert compare(record, None, again, kept, 1e-3).verdict == "different"
    # Two runs that diverged alike are identical: NaN equals NaN.
    lost = replace(kept, train_loss=np.full_like(kept.train_loss, np.nan))
    assert compare(record, lost, record, lost, 1e-3).verdict == "identical"


def test_a_rerun_needs_a_finished_record(trained: tuple[Sweep, Store], tmp_path: Path) -> None:
    sweep, _ = trained
    with pytest.raises(HarnessError, match="which is missing"):
        rerun(sweep, Store(tmp_path), expand(sweep)[0], 1e-3)


def test_the_frame_of_a_real_sweep_has_a_row_a_trial(trained: tuple[Sweep, Store]) -> None:
    sweep, store = trained
    table = records.frame(sweep, store)
    assert table["trial"].tolist() == [trial.id for trial in expand(sweep)]
    assert table["status"].tolist() == ["finished", "finished"]
